"""How many voxels each label has in two maps, and in both; defined in ``metrics/overlap.py``.

One sweep: the moving labels are looked up where the displacement leads, counted, and never stored.
Counts are integers, so the order in which programs add theirs changes nothing.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import SIZES, coordinates
from triton_reg.ops._triton.sampling import nearest

_BLOCK = 1024
# a histogram's work in registers grows with its bins: more labels take further sweeps
_WINDOW = 256
_PROGRAMS = 1024  # each brings a whole histogram to the memory


@triton.jit
def _label_there(moving, displacement, voxel, inside, steps, shape, fixed_shape):
    """Label of the moving voxel nearest to where each fixed voxel is led, 0 outside."""
    voxels = fixed_shape[0] * fixed_shape[1] * fixed_shape[2]
    z, y, x = coordinates(voxel, fixed_shape[1], fixed_shape[2])
    row = displacement + voxel
    pz = nearest(z * steps[0] + tl.load(row, mask=inside, other=0.0))
    py = nearest(y * steps[1] + tl.load(row + voxels, mask=inside, other=0.0))
    px = nearest(x * steps[2] + tl.load(row + 2 * voxels, mask=inside, other=0.0))
    # along an axis of one voxel there is nowhere to go
    pz, py = tl.where(shape[0] > 1, pz, 0.0), tl.where(shape[1] > 1, py, 0.0)
    px = tl.where(shape[2] > 1, px, 0.0)
    # compared as floats: what leads nowhere (NaN) leads to no voxel
    valid = inside & (pz >= 0) & (pz < shape[0]) & (py >= 0) & (py < shape[1])
    valid = valid & (px >= 0) & (px < shape[2])
    place = (pz.to(tl.int32) * shape[1] + py.to(tl.int32)) * shape[2] + px.to(tl.int32)
    return tl.load(moving + place, mask=valid, other=0)


@triton.jit
def _add(target, counts, lane, bins):
    tl.atomic_add(target + lane, counts.to(tl.int64), mask=(lane < bins) & (counts > 0))


@triton.jit(do_not_specialize=(*SIZES, "bins"))
def overlap_kernel(
    fixed,
    moving,
    displacement,
    counts,
    bins,
    step0,
    step1,
    step2,
    depth,
    height,
    width,
    fixed_depth,
    fixed_height,
    fixed_width,
    DISPLACED: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the voxels of each label in ``fixed [N]``, in the moving map, and in both to ``counts``.

    ``counts [3, bins]`` int64; labels beyond are left out. With ``DISPLACED`` the moving map is
    ``moving [D H W]`` at ``x step + u(x)``, ``u`` being ``displacement [3, N]`` float32; without,
    it is ``moving [N]``. Grid ``(programs, cdiv(bins, WINDOW))``.
    """
    voxels = fixed_depth * fixed_height * fixed_width
    low, lane = tl.program_id(1) * WINDOW, tl.arange(0, WINDOW)
    in_fixed = tl.zeros([WINDOW], tl.int32)
    in_moving, in_both = in_fixed, in_fixed
    for start in range(tl.program_id(0) * BLOCK, voxels, tl.num_programs(0) * BLOCK):
        voxel = start + tl.arange(0, BLOCK)
        inside = voxel < voxels
        a = tl.load(fixed + voxel, mask=inside, other=0)
        if DISPLACED:
            b = _label_there(
                moving, displacement, voxel, inside, (step0, step1, step2),
                (depth, height, width), (fixed_depth, fixed_height, fixed_width),
            )  # fmt: skip
        else:
            b = tl.load(moving + voxel, mask=inside, other=0)
        counts_a = inside & (a >= low) & (a < low + WINDOW)
        counts_b = inside & (b >= low) & (b < low + WINDOW)
        place_a, place_b = (a - low).to(tl.int32), (b - low).to(tl.int32)
        in_fixed += tl.histogram(place_a, WINDOW, mask=counts_a)
        in_moving += tl.histogram(place_b, WINDOW, mask=counts_b)
        in_both += tl.histogram(place_a, WINDOW, mask=counts_a & (a == b))
    _add(counts, in_fixed, low + lane, bins)
    _add(counts + bins, in_moving, low + lane, bins)
    _add(counts + 2 * bins, in_both, low + lane, bins)


def label_counts(
    fixed: Tensor, moving: Tensor, bins: int, displacement: Tensor | None = None
) -> Tensor:
    """``[3, bins]`` int64; the moving labels are looked up through the displacement, if any.

    Args:
        fixed, moving: integers ``[D, H, W]``; of one shape if there is no displacement.
        bins: labels at or above it, and negative ones, are left out.
        displacement: ``[3, D, H, W]`` float32 on the fixed grid, in moving voxels.
    """
    counts = torch.zeros(3, bins, dtype=torch.int64, device=fixed.device)
    window = min(_WINDOW, max(32, triton.next_power_of_2(bins)))
    programs = min(_PROGRAMS, triton.cdiv(fixed.numel(), _BLOCK))
    sizes = zip(moving.shape, fixed.shape, strict=True)
    steps = [float((size - 1) / max(other - 1, 1)) for size, other in sizes]
    fixed = fixed.contiguous()
    overlap_kernel[(programs, triton.cdiv(bins, window))](
        fixed, moving.contiguous(), fixed if displacement is None else displacement.contiguous(),
        counts, bins, *steps, *moving.shape, *fixed.shape,
        DISPLACED=displacement is not None, WINDOW=window, BLOCK=_BLOCK,
        # without fused multiply-adds a label halfway between voxels goes where it does on CPUs
        enable_fp_fusion=False,
    )  # fmt: skip
    return counts
