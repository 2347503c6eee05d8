"""A whole descent on the mean squared difference of features, on a GPU."""

import torch
from torch import Tensor

from triton_reg.ops.advance import Moments, StepSettings


def descends_on_gpu(vectors: Tensor, loss: str) -> bool:
    """Whether there is a kernel for a descent on these vectors, see :func:`descend_squares`."""
    return vectors.is_cuda and vectors.dtype == torch.float32 and loss == "mse"


def descend_squares(
    features: tuple[Tensor, Tensor, Tensor, Tensor | None],
    vectors: Tensor,
    moments: Moments,
    step: StepSettings,
    *,
    is_symmetric: bool,
    stop: tuple[int, float, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All iterations of a level, replayed as CUDA graphs; pairs stop on the device.

    It gives what :func:`triton_reg.methods.descent.descend` does with its plain loop.

    Args:
        features: fixed ``[B, C, *n]``, moving ``[B, C, *m]``, placement ``[B, 3, 7]`` and weights
            ``[B, 1, *n]`` or None.
        vectors: to start from, ``[B, 3, *n]``.
        moments: the optimiser's, changed in place.
        step: how vectors move.
        is_symmetric: which derivative of the samples.
        stop: iterations at most, tolerance and patience.

    Returns:
        Vectors, and for each pair its iterations, whether it converged, its last loss and the
        length of its last gradient over that of the first.
    """
    from triton_reg.ops._triton.descent_graph import Squares, Stop
    from triton_reg.ops._triton.descent_graph import descend_squares as descend

    with torch.cuda.device_of(vectors):
        problem = Squares(*features, is_symmetric)
        return tuple(descend(problem, vectors, moments, step, Stop(*stop)))  # type: ignore[return-value]
