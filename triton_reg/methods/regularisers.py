"""What keeps vectors smooth beside the smoothing of their steps."""

from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.advance import Vector
from triton_reg.ops.feature_force import Force

_TV_FLOOR = 1e-6  # keeps the root's gradient finite where nothing changes
_SMALLEST_DETERMINANT = 0.1


@dataclass(frozen=True, kw_only=True)
class Regularisers:
    """Weights of what is added to the loss, each a mean over voxels; lengths in voxels.

    Attributes:
        diffusion: squared first derivatives.
        bending: squared second derivatives, mixed ones twice (Rueckert et al., 1999).
        total_variation: length of the first derivatives, which leaves edges alone.
        jacobian: squared shortfall of the Jacobian determinant below 0.1: folding.
    """

    diffusion: float = 0.0
    bending: float = 0.0
    total_variation: float = 0.0
    jacobian: float = 0.0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0:
            raise ValueError(f"Regularisers: weights must not be negative, got {self}")

    def force(self, voxel: Vector) -> Callable[[Tensor, Tensor], Force] | None:
        """What they say of vectors, on voxels of such sizes; None if all weights are zero."""
        if not any(astuple(self)):
            return None

        def force(vectors: Tensor, active: Tensor) -> Force:
            # runs register in inference mode, whose tensors take no gradient
            with torch.inference_mode(False), torch.enable_grad():
                leaf = vectors.clone().detach().requires_grad_()
                loss = self.loss(leaf, voxel)
                (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            return Force(loss.detach() * active, gradient * active.view(-1, 1, 1, 1, 1))

        return force

    def loss(self, vectors: Tensor, voxel: Vector) -> Tensor:
        """Of ``[B, 3, D, H, W]`` in voxels whose sizes are proportional to ``voxel``; ``[B]``."""
        smallest = min(voxel)
        size = vectors.new_tensor(voxel) / smallest
        lengths = vectors * size.view(1, 3, 1, 1, 1)
        first = [lengths.diff(dim=2 + axis) / size[axis] for axis in range(3)]
        # tied to the vectors: where a grid is too thin for a term, its gradient is zero
        total = 0 * lengths.flatten(1).sum(1)
        if self.diffusion:
            total = total + self.diffusion * sum(_mean(one.square()) for one in first)
        if self.bending:
            total = total + self.bending * _bending(first, size)
        if self.total_variation:
            inner = [one.narrow(2, 0, lengths.shape[2] - 1) for one in first[1:]]
            inner = [first[0], *inner]
            inner = [one.narrow(3, 0, lengths.shape[3] - 1) for one in inner]
            inner = [one.narrow(4, 0, lengths.shape[4] - 1) for one in inner]
            squares = torch.stack([one.square() for one in inner]).sum(dim=(0, 2))
            total = total + self.total_variation * _mean((squares + _TV_FLOOR).sqrt()[:, None])
        if self.jacobian and min(vectors.shape[2:]) >= 3:  # else it has no inner voxel
            missing = (_SMALLEST_DETERMINANT - jacobian_determinant(vectors)).clamp_min(0)
            total = total + self.jacobian * _mean(missing.square()[:, None])
        return total


def _bending(first: list[Tensor], size: Tensor) -> Tensor:
    total = 0.0
    for axis, derivative in enumerate(first):
        for other in range(axis, 3):
            second = derivative.diff(dim=2 + other) / size[other]
            total = total + (1 if other == axis else 2) * _mean(second.square())
    assert isinstance(total, Tensor)
    return total


def _mean(field: Tensor) -> Tensor:
    """Over everything of each pair, summed over components."""
    values = field.flatten(2)  # empty along an axis of one voxel
    return values.mean(2).sum(1) if values.shape[2] else values.sum((1, 2))
