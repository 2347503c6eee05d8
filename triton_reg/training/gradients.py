"""Gradients that a training step can follow: finite, and no longer than asked for."""

from collections.abc import Iterable

from torch import Tensor, nn


class DivergedError(RuntimeError):
    """A gradient is not finite, so that there is no next step."""


def shorten_gradients(parameters: Iterable[Tensor], longest: float) -> None:
    """Scale the gradients of parameters in place, so that together they are no longer.

    Raises:
        DivergedError: if they are not finite.
    """
    # here and not torch's error_if_nonfinite, which tells people to go on regardless
    if not nn.utils.clip_grad_norm_(parameters, longest).isfinite():
        raise DivergedError(
            "the gradients of this step are not finite: the training has diverged; a lower"
            " learning_rate may help"
        )
