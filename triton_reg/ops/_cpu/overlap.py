"""How many voxels each label has in two maps, and in both at once."""

from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL


@njit(**KERNEL)
def label_counts(first, second, counts):
    """Add the voxels of each label in the first map, in the second, and in both to ``counts``.

    Args:
        first, second: flat integers ``[N]``, each in ``[0, bins)``.
        counts: ``[3, bins]`` int64.
    """
    in_first, in_second, in_both = counts[0], counts[1], counts[2]
    for i in range(first.shape[0]):
        a, b = first[i], second[i]
        in_first[a] += 1
        in_second[b] += 1
        if a == b:
            in_both[a] += 1
