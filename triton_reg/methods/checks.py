"""What methods ask of the features and prompts that they are given."""

from torch import Tensor

from triton_reg.method import Features, Prompts


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
