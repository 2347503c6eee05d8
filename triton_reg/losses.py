"""What training descends on: overlap of labels, likeness of volumes, smooth displacements."""

import torch
from torch import Tensor

from triton_reg.ops.dense_cost import sampled_plane
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.local_correlation import local_correlation_reference


def soft_dice(fixed_masks: Tensor, warped_masks: Tensor, order: int = 2) -> Tensor:
    """``2 Σ f w / (Σ f² + Σ w²)`` of each structure: ``[B, M, D, H, W]`` twice -> ``[B, M]``.

    1 for masks that are the same, also where both are empty. With ``order`` 1 the sizes are sums of
    the masks themselves, ``Σ f + Σ w``: masks that are blurred alike then count as unlike.

    Raises:
        ValueError: if the order is another.
    """
    if order not in (1, 2):
        raise ValueError(f"soft_dice: order must be 1 or 2, got {order}")
    both = (fixed_masks * warped_masks).sum((2, 3, 4))
    counted = [one if order == 1 else one.square() for one in (fixed_masks, warped_masks)]
    sizes = (counted[0] + counted[1]).sum((2, 3, 4))
    return (2 * both + 1e-5) / (sizes + 1e-5)


def local_correlation_loss(fixed: Tensor, warped: Tensor, window: int = 7) -> Tensor:
    """One minus the mean squared local correlation of volumes ``[B, C, D, H, W]``.

    See :func:`triton_reg.ops.local_correlation.local_correlation_reference`.

    Args:
        fixed, warped: compared.
        window: width of the cubes in voxels, odd.
    """
    return 1 - local_correlation_reference(fixed, warped, window).mean()


def roughness(vectors: Tensor) -> Tensor:
    """Mean squared forward difference of a displacement ``[B, 3, D, H, W]`` along the axes."""
    return torch.stack([vectors.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()


def nonlocal_labels(probabilities: Tensor, masks: Tensor, lattice: Lattice) -> Tensor:
    """What each control point's probabilities say of its label.

    ``Σ_l p(l) mask(x + l)`` with masks sampled linearly and continued as at their border: Heinrich,
    MICCAI 2019, the non-local label loss's estimate. Differentiable in the probabilities.

    Args:
        probabilities: ``[B, L, *lattice.points]``.
        masks: of the moving subject, ``[B, M, D, H, W]``, one channel a structure.
        lattice: in voxels of the masks.

    Returns:
        ``[B, M, *lattice.points]``.
    """
    planes = []
    for plane in range(lattice.points[0]):
        sampled = sampled_plane(masks, lattice, plane)  # [B, M, L, h w]
        here = probabilities[:, :, plane].flatten(2)
        planes.append(torch.einsum("bmlp,blp->bmp", sampled, here))
    return torch.stack(planes, dim=2).view(*masks.shape[:2], *lattice.points)


def class_weights(counts: Tensor, background: float = 0.15) -> Tensor:
    """Weights of structures ``[M]`` from their numbers of voxels, background first.

    The inverse square root, with a mean of 1 before that of the background is replaced.
    """
    weights = counts.double().clamp_min(1).rsqrt()
    weights = weights / weights.mean()
    return torch.cat([weights.new_tensor([background]), weights[1:]]).float()


def label_loss(estimate: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared difference of label probabilities ``[B, M, d, h, w]``.

    Args:
        estimate, truth: of every structure, background first, at the control points.
        weights: ``[M]``, see :func:`class_weights`.
    """
    return (weights.view(1, -1, 1, 1, 1) * (estimate - truth).square()).mean()
