"""Where the surfaces of labelled structures are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.operators import array, check_device

_WEIGHTS = [128 >> i for i in range(8)]


class Surfaces(NamedTuple):
    """The surfaces of one label map: what a subject's file says once, whatever it is paired with.

    A corner of the voxel grid is on a structure's surface if some of the eight voxels around it are
    of the structure and some are not; outside the map nothing is. Nine bytes a corner.

    Attributes:
        structures: ``[M]`` int64, the label values.
        starts: ``[M + 1]`` int64, where the corners of each structure begin.
        corners: ``[P, 3]`` int16, the corner between the voxels ``i - 1`` and ``i`` of each axis;
            in the order of the volume within each structure.
        codes: ``[P]`` uint8, which of the eight voxels are inside, bits as ``surface_areas`` has.
    """

    structures: Tensor
    starts: Tensor
    corners: Tensor
    codes: Tensor


def label_surfaces(labels: Tensor, structures: Tensor) -> Surfaces:
    """The surfaces of all structures of a label map, for :func:`surface_measures`.

    A kernel on CPUs and on GPUs.

    Args:
        labels: integers, ``[D, H, W]``; sizes below 32767.
        structures: ``[M]`` label values, without repetition and not 0.

    Raises:
        ValueError: if the map is not ``[D, H, W]``, a label is negative, or a structure is listed
            twice or not above 0.
    """
    if labels.dim() != 3 or labels.is_floating_point():
        raise ValueError(
            f"label_surfaces: labels must be integers [D, H, W], got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    check_device("label_surfaces", labels)
    values = structures.tolist()
    if len(set(values)) < len(values) or min(values, default=1) < 1:
        raise ValueError(f"label_surfaces: structures must be above 0, each once, got {values}")
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0:
        raise ValueError(f"label_surfaces: labels must not be negative, got {lowest}")
    structures = structures.to(labels.device, torch.int64)
    numbers = _numbers(structures, max(highest, *values, 0))
    if labels.is_cuda:
        return _label_surfaces_cuda(labels, numbers, structures)
    from triton_reg.ops._cpu import surface as cpu

    found = cpu.label_surfaces(array(labels), array(numbers), len(structures))
    return Surfaces(structures, *map(torch.from_numpy, found))


def _label_surfaces_cuda(labels: Tensor, numbers: Tensor, structures: Tensor) -> Surfaces:
    from triton_reg.ops._triton import surface as gpu

    with torch.cuda.device_of(labels):
        found = gpu.label_surfaces(labels, numbers, len(structures))
    return Surfaces(structures, *found)


def label_surfaces_reference(labels: Tensor, structures: Tensor) -> Surfaces:
    """Plain torch definition of :func:`label_surfaces`."""
    structures = structures.to(labels.device, torch.int64)
    numbers = _numbers(structures, max(int(labels.max()), *structures.tolist(), 0))
    numbered = F.pad(numbers[labels.long()], [1] * 6)
    depth, height, width = (size + 1 for size in labels.shape)
    window = torch.stack([
        numbered[z : z + depth, y : y + height, x : x + width]
        for z in (0, 1) for y in (0, 1) for x in (0, 1)
    ])  # fmt: skip
    weights = torch.tensor(_WEIGHTS, device=labels.device).view(8, 1, 1, 1)
    parts = []
    for i in range(8):
        equal = window == window[i]
        is_new = ~equal[:i].any(0)
        code = (equal * weights).sum(0)
        kept = is_new & (window[i] > 0) & (code < 255)
        parts.append((window[i][kept], kept.nonzero(), code[kept]))
    owners, corners, codes = (torch.cat(column) for column in zip(*parts, strict=True))
    first, second, third = corners.unbind(1)
    order = (((owners * depth + first) * height + second) * width + third).argsort()
    counts = torch.bincount(owners, minlength=len(structures) + 1)
    return Surfaces(structures, counts.cumsum(0), corners[order].short(), codes[order].byte())


def _numbers(structures: Tensor, highest: int) -> Tensor:
    """Which structure, from 1, each label value up to the highest is: int32; 0 is none of them."""
    numbers = torch.zeros(highest + 1, dtype=torch.int32, device=structures.device)
    numbers[structures] = torch.arange(len(structures), device=structures.device).int() + 1
    return numbers
