"""Corners on the surfaces of structures; the definition stands in ``metrics/label_surfaces.py``.

One kernel, run twice: it counts the corners of each block, then writes them where those of the
blocks before end. So they come out in the order of the volume, the same each time.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import SIZES, coordinates

_BLOCK = 256


@triton.jit
def _around(labels, numbers, z, y, x, depth, height, width):
    """The structures of the eight voxels around each corner; 0 is none, as outside of the map."""
    window = ()
    for index in tl.static_range(8):
        vz, vy, vx = z - 1 + index // 4, y - 1 + index // 2 % 2, x - 1 + index % 2
        valid = (vz >= 0) & (vz < depth) & (vy >= 0) & (vy < height) & (vx >= 0) & (vx < width)
        label = tl.load(labels + (vz * height + vy) * width + vx, mask=valid, other=0)
        window += (tl.load(numbers + label.to(tl.int32), mask=valid, other=0),)
    return window


@triton.jit(do_not_specialize=SIZES)
def surface_corners_kernel(
    labels,
    numbers,
    offsets,
    owners,
    corners,
    codes,
    depth,
    height,
    width,
    WRITTEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each structure around each corner of ``labels [D H W]`` that has voxels of others there too.

    ``numbers`` says which structure, from 1, each label value is. Without ``WRITTEN`` the number of
    each block's corners goes to ``offsets [blocks]`` int32; with, ``offsets`` is where they begin,
    and each gets its structure from 0, ``corners [P, 3]`` int16 and code. Grid ``(blocks,)``.
    """
    corner = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = corner < (depth + 1) * (height + 1) * (width + 1)
    z, y, x = coordinates(corner, height + 1, width + 1)
    window = _around(labels, numbers, z, y, x, depth, height, width)
    found, coded = (), ()
    count = tl.zeros([BLOCK], tl.int32)
    for index in tl.static_range(8):
        owner, code, is_new = window[index], tl.zeros([BLOCK], tl.int32), inside
        for other in tl.static_range(8):
            same = window[other] == owner
            code += tl.where(same, 128 >> other, 0)
            if other < index:
                is_new = is_new & (window[other] != owner)
        kept = is_new & (owner > 0) & (code < 255)
        count += kept.to(tl.int32)
        found, coded = found + (kept,), coded + (code,)  # noqa: RUF005 (triton has no unpacking)
    if WRITTEN:
        place = tl.load(offsets + tl.program_id(0)) + tl.cumsum(count, axis=0) - count
        for index in tl.static_range(8):
            kept = found[index]
            tl.store(owners + place, window[index] - 1, mask=kept)
            tl.store(corners + 3 * place, z.to(tl.int16), mask=kept)
            tl.store(corners + 3 * place + 1, y.to(tl.int16), mask=kept)
            tl.store(corners + 3 * place + 2, x.to(tl.int16), mask=kept)
            tl.store(codes + place, coded[index].to(tl.uint8), mask=kept)
            place += kept.to(tl.int32)
    else:
        tl.store(offsets + tl.program_id(0), tl.sum(count, axis=0))


def label_surfaces(
    labels: Tensor, numbers: Tensor, structures: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The corners of all structures, by structure and within each in the order of the volume.

    Args:
        labels: integers ``[D, H, W]``, none negative or beyond ``numbers``.
        numbers: int32, which structure, from 1, each label value is; 0 is none of them.
        structures: how many there are.

    Returns:
        ``starts [structures + 1]`` int64, ``corners [P, 3]`` int16, ``codes [P]`` uint8.
    """
    labels, device = labels.contiguous(), labels.device
    depth, height, width = labels.shape
    blocks = triton.cdiv((depth + 1) * (height + 1) * (width + 1), _BLOCK)
    counts = torch.empty(blocks, dtype=torch.int32, device=device)
    maps = labels, numbers.contiguous()

    def sweep(offsets: Tensor, owners: Tensor, corners: Tensor, codes: Tensor) -> None:
        surface_corners_kernel[(blocks,)](
            *maps, offsets, owners, corners, codes, depth, height, width,
            WRITTEN=offsets is not counts, BLOCK=_BLOCK,
        )  # fmt: skip

    sweep(counts, counts, counts, counts)
    # integers: any order of addition gives the same
    ends = counts.cumsum(0, dtype=torch.int64)
    total = int(ends[-1])
    owners = torch.empty(total, dtype=torch.int32, device=device)
    corners = torch.empty(total, 3, dtype=torch.int16, device=device)
    codes = torch.empty(total, dtype=torch.uint8, device=device)
    sweep((ends - counts).int(), owners, corners, codes)
    owners, order = owners.sort(stable=True)
    wanted = torch.arange(structures + 1, dtype=torch.int32, device=device)
    return torch.searchsorted(owners, wanted), corners[order], codes[order]
