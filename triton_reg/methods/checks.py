"""What methods ask of the volumes, features, pairs and prompts that they are given."""

import torch
from torch import Tensor

from triton_reg.method import Features, Prompts


def checked_volume(call: str, volume: Tensor, mask: Tensor) -> Tensor:
    """The volume ``[N, 1, D, H, W]`` as methods compute with it: in float32 unless it is float64.

    Raises:
        ValueError: if it has another shape, the mask is not of that shape, or a voxel is NaN, or
            infinite inside the mask.
    """
    if volume.dim() != 5 or volume.shape[1] != 1:
        raise ValueError(f"{call}: volume must be [N, 1, D, H, W], got {list(volume.shape)}")
    if mask.shape != volume.shape:
        raise ValueError(
            f"{call}: mask must have the volume's shape {list(volume.shape)}, got "
            f"{list(mask.shape)}"
        )
    # on a GPU too the host waits for this: once a subject, and little beside its features
    if not volume.isfinite().all():
        _check_spoiled(call, volume, mask)
    return volume if volume.dtype == torch.float64 else volume.float()


def _check_spoiled(call: str, volume: Tensor, mask: Tensor) -> None:
    """Raise ``ValueError`` for voxels that would spoil the features of others."""
    # outside the mask a window cuts infinity off, and 0 takes its place; NaN stays what it is
    spoiled = volume.isnan() | (volume.isinf() & (mask > 0))
    if spoiled.any():
        raise ValueError(
            f"{call}: volume must be finite inside the mask and nowhere NaN, got "
            f"{int(spoiled.sum())} voxels that are not"
        )


def check_same_grid(call: str, fixed: Features, moving: Features) -> None:
    """Raise ``ValueError`` unless fixed and moving features have the same shapes."""
    shapes = [[list(part.shape[1:]) for part in features] for features in (fixed, moving)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{call}: fixed and moving must share their features' shapes, got {shapes[0]} and "
            f"{shapes[1]}"
        )


def check_on_grid(call: str, features: Tensor, volume: Tensor) -> None:
    """Raise ``ValueError`` unless features lie on the volume's own grid."""
    if features.shape[2:] != volume.shape[2:]:
        raise ValueError(
            f"{call}: features must lie on the volume's grid {list(volume.shape[2:])}, got "
            f"{list(features.shape[2:])}"
        )


def check_pairs(call: str, pairs: Tensor, fixed: Features, moving: Features) -> None:
    """Raise unless pairs ``[B, 2]``, one or more, hold rows of the fixed and moving subjects.

    Raises:
        TypeError: if they are neither int32 nor int64.
        ValueError: if they have another shape, or a subject is not there.
    """
    if pairs.dim() != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(
            f"{call}: pairs must be [B, 2] with at least one pair, got {list(pairs.shape)}"
        )
    if pairs.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{call}: pairs must be int32 or int64, got {pairs.dtype}")
    # to look at a GPU's rows the host would wait for all its work, and a compiler has none to see
    if pairs.is_cuda or torch.compiler.is_compiling():
        return
    sides = {"fixed": fixed, "moving": moving}
    for (name, features), rows in zip(sides.items(), pairs.unbind(1), strict=True):
        count, first, last = len(features[0]), int(rows.min()), int(rows.max())
        if first < 0 or last >= count:
            raise ValueError(
                f"{call}: pairs must hold rows from 0 to {count - 1} of the {name} subjects, got "
                f"{first} to {last}"
            )


def check_prompts(call: str, prompts: Prompts | None, pairs: Tensor) -> None:
    """Raise ``ValueError`` unless there are prompts for each pair, or none at all."""
    if prompts is None:
        return
    for name, told in vars(prompts).items():
        if told is not None and len(told) != len(pairs):
            raise ValueError(f"{call}: {name} must be of {len(pairs)} pairs, got {len(told)}")


def refuse_prompts(call: str, prompts: Prompts | None) -> None:
    """Raise ``ValueError`` if there are prompts: they are never passed over in silence."""
    if prompts is not None:
        raise ValueError(f"{call}: takes no prompts; PDDNet and DIO do")
