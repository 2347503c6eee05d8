"""The checks that several operations share; each names the call, what it got and what it needs."""

from collections.abc import Sequence

from torch import Tensor


def check_volumes(call: str, **volumes: Tensor) -> None:
    """Raise ``ValueError`` unless every tensor is a floating ``[B, C, D, H, W]``."""
    for name, volume in volumes.items():
        if volume.dim() != 5:
            raise ValueError(f"{call}: {name} must be [B, C, D, H, W], got {list(volume.shape)}")
        if not volume.is_floating_point():
            raise TypeError(f"{call}: {name} must be floating point, got {volume.dtype}")


def check_same_shape(call: str, **tensors: Tensor) -> None:
    """Raise ``ValueError`` unless all tensors have one shape."""
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise ValueError(f"{call}: {' and '.join(shapes)} must share one shape, got {shapes}")


def check_displacement(call: str, displacement: Tensor) -> None:
    """Raise ``ValueError`` unless the tensor is a floating ``[B, 3, D, H, W]``."""
    check_volumes(call, displacement=displacement)
    if displacement.shape[1] != 3:
        raise ValueError(
            f"{call}: displacement must be [B, 3, D, H, W], got {list(displacement.shape)}"
        )


def check_choice(call: str, name: str, said: object, known: Sequence[str]) -> None:
    """Raise ``ValueError`` unless what was said is one of the known words."""
    if said not in known:
        raise ValueError(f"{call}: {name} must be one of {', '.join(known)}, got {said!r}")


def check_spacing(call: str, spacing: tuple[float, float, float], name: str = "spacing") -> None:
    """Raise ``ValueError`` unless there are three finite spacings above 0."""
    if len(spacing) != 3 or not all(0 < step < float("inf") for step in spacing):
        raise ValueError(f"{call}: {name} must be three numbers above 0, got {spacing}")
