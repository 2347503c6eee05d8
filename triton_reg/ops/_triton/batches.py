"""How many pairs a launch takes at each level."""

from collections.abc import Sequence

# what fills a large GPU and still leaves the displacements of a launch in its L2 cache
_VOXELS_A_LAUNCH = 2**21
_MOST_PAIRS = 64


def pairs_a_launch(
    batch: int, voxels: Sequence[int], bytes_a_pair: Sequence[int], limit_bytes: int
) -> tuple[int, ...]:
    """Pairs a launch at each level: a power of two, as many as the level is coarse.

    Small levels of one pair would leave most of a GPU idle; large levels of many pairs would push
    their own displacements out of the cache.

    Args:
        batch: pairs to be registered.
        voxels: of each level.
        bytes_a_pair: work memory at each level.
        limit_bytes: work memory at most; one pair is taken even where it needs more.
    """
    enough = 1 << max(0, batch - 1).bit_length()
    chosen = []
    for size, size_bytes in zip(voxels, bytes_a_pair, strict=True):
        pairs = min(enough, _MOST_PAIRS, max(1, _VOXELS_A_LAUNCH // size))
        pairs = min(pairs, max(1, limit_bytes // size_bytes))
        chosen.append(1 << (pairs.bit_length() - 1))
    return tuple(chosen)
