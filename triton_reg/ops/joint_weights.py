"""How much each atlas counts at a voxel, when atlases may make the same mistakes."""

import torch
from torch import Tensor

from triton_reg.ops.match_patches import FLAT, bordered, check_atlases, patches_of, standardised
from triton_reg.ops.operators import array, check_device, has_kernel, operator

_AT_ONCE = 1 << 14  # voxels: patches of all atlases are some tens of MB


def joint_weights(
    target: Tensor,
    warped: Tensor,
    voxels: Tensor,
    positions: Tensor,
    *,
    radius: int = 2,
    alpha: float = 0.5,
    beta: int = 2,
) -> Tensor:
    """Weights of joint label fusion: least expected error of the weighted vote.

    ``w = (M + alpha I)^-1 1 / (1' (M + alpha I)^-1 1)``, where ``M(i, j)`` is
    ``<|T - A_i|, |T - A_j|>^beta`` over a patch: Wang et al., "Multi-atlas segmentation with joint
    label fusion", IEEE TPAMI 2013. Patches have mean 0 and variance 1, and the product is the mean
    over the patch, so that ``alpha`` means the same for every radius. Weights sum to 1 and may be
    negative; two copies of one atlas share the weight of one, more so with a smaller ``alpha``.

    Args:
        target: ``[1, 1, D, H, W]``.
        warped: ``[1, N, D, H, W]``, atlases on the target's grid.
        voxels: ``[V]`` int64, flat indices of the target's voxels to look at.
        positions: ``[V, N]`` int64, flat indices of the voxels whose patches of the atlases stand
            for them, as :func:`triton_reg.ops.match_patches.match_patches` finds them.
        radius: half width of a patch in voxels.
        alpha: added to the diagonal; the larger, the more alike the weights.
        beta: a power of at least 1; the larger, the more the atlas with the least error counts.

    Returns:
        ``[V, N]``.

    Raises:
        ValueError: if the shapes do not fit together, or a setting is out of range.
        TypeError: if voxels are not int64.
    """
    check_atlases("joint_weights", target, warped, voxels)
    if positions.shape != (len(voxels), warped.shape[1]):
        raise ValueError(
            f"joint_weights: positions must be {[len(voxels), warped.shape[1]]}, got "
            f"{list(positions.shape)}"
        )
    if radius < 1 or not alpha > 0 or beta < 1:
        raise ValueError(
            "joint_weights: radius and beta must be at least 1 and alpha above 0, got radius "
            f"{radius}, beta {beta}, alpha {alpha}"
        )
    check_device("joint_weights", target, ("cpu",))
    return _joint_weights(target, warped, voxels, positions, radius, alpha, beta)


def joint_weights_reference(
    target: Tensor,
    warped: Tensor,
    voxels: Tensor,
    positions: Tensor,
    radius: int = 2,
    alpha: float = 0.5,
    beta: int = 2,
) -> Tensor:
    """Plain torch definition of :func:`joint_weights`."""
    weights = []
    fixed, atlases = standardised(target)[0, 0], standardised(warped)[0]
    for here, there in zip(voxels.split(_AT_ONCE), positions.split(_AT_ONCE), strict=True):
        own = patches_of(fixed, here, radius)
        errors = torch.stack(
            [
                (own - patches_of(volume, there[:, atlas], radius)).abs()
                for atlas, volume in enumerate(atlases)
            ],
            dim=1,
        )  # [V, N, P]
        products = (errors @ errors.transpose(1, 2) / errors.shape[2]) ** beta
        matrix = products + alpha * torch.eye(warped.shape[1], dtype=target.dtype)
        found = torch.linalg.solve(matrix, torch.ones_like(matrix[..., :1]))[..., 0]
        weights.append(found / found.sum(1, keepdim=True))
    return torch.cat(weights) if weights else target.new_empty(positions.shape)


@operator("triton_reg::joint_weights")
def _joint_weights(
    target: Tensor,
    warped: Tensor,
    voxels: Tensor,
    positions: Tensor,
    radius: int,
    alpha: float,
    beta: int,
) -> Tensor:
    if not has_kernel(target, warped):
        return joint_weights_reference(target, warped, voxels, positions, radius, alpha, beta)
    from triton_reg.ops._cpu import joint_weights as cpu

    volumes = bordered(standardised(torch.cat([target, warped], dim=1)), radius)[0]
    places = array(voxels), array(positions)
    return torch.from_numpy(cpu.joint_weights(array(volumes), *places, radius, alpha, beta, FLAT))


@_joint_weights.register_fake
def _(
    target: Tensor,
    warped: Tensor,
    voxels: Tensor,
    positions: Tensor,
    radius: int,
    alpha: float,
    beta: int,
) -> Tensor:
    del voxels, radius, alpha, beta
    return target.new_empty(positions.shape[0], warped.shape[1])
