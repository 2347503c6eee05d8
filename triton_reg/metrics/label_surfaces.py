"""Where the surfaces of labelled structures are."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.operators import array

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

    Compiled on CPUs, plain torch elsewhere.

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
    if len(structures.unique()) < len(structures) or bool((structures < 1).any()):
        raise ValueError(
            f"label_surfaces: structures must be above 0, each once, got {structures.tolist()}"
        )
    if int(labels.min()) < 0:
        raise ValueError(f"label_surfaces: labels must not be negative, got {int(labels.min())}")
    if not labels.is_cpu:
        return label_surfaces_reference(labels, structures)
    from triton_reg.ops._cpu import surface as cpu

    numbers = _numbers(labels, structures)
    found = cpu.label_surfaces(array(labels), array(numbers), len(structures))
    return Surfaces(structures.long(), *map(torch.from_numpy, found))


def label_surfaces_reference(labels: Tensor, structures: Tensor) -> Surfaces:
    """Plain torch definition of :func:`label_surfaces`."""
    numbered = F.pad(_numbers(labels, structures)[labels.long()], [1] * 6)
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
    return Surfaces(
        structures.long(), counts.cumsum(0), corners[order].short(), codes[order].byte()
    )


def _numbers(labels: Tensor, structures: Tensor) -> Tensor:
    """Which structure, from 1, each label value is: int32; 0 is none of them."""
    most = max(int(labels.max()), int(structures.max()) if len(structures) else 0)
    numbers = torch.zeros(most + 1, dtype=torch.int32, device=labels.device)
    numbers[structures.long()] = torch.arange(
        1, len(structures) + 1, dtype=torch.int32, device=labels.device
    )
    return numbers
