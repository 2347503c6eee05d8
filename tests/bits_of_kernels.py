"""Digests of what compiled kernels make, as JSON. Run by ``test_compiled_bits.py``."""

import hashlib
import json
import sys
from collections.abc import Iterator

import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import DIO, Method, MindSSC, PDDNet, Pretrained, VoxelOpt
from triton_reg.affine.placed import PlacedVolume
from triton_reg.affine.register import register_affine
from triton_reg.metrics.deformation import deformation_measures
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.similarity import lncc
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.joint_weights import joint_weights

SHAPE = (34, 38, 33)
PAIR = torch.zeros(1, 2, dtype=torch.int32)
METHODS: dict[str, Method] = {
    "VoxelOpt": VoxelOpt(),
    "VoxelOpt, parity": VoxelOpt.parity(MindSSC()),
    "PDD-Net": PDDNet(),
    "PDD-Net, MIND": PDDNet.two_warp(MindSSC()),
    "DIO": DIO(),
    "DIO, free-form": DIO(transform="freeform", loss="mse"),
    "DIO, B-spline": DIO(transform="bspline", features=MindSSC()),
    "DIO, learned": DIO(features=Pretrained("brain-t1")),
    "DIO, velocity": DIO(transform="svf", loss="mse"),
    "DIO, affine": DIO(transform="affine"),
}


def digest(*found: Tensor | float) -> str:
    said = hashlib.sha256()
    for one in found:
        said.update(torch.as_tensor(one).detach().contiguous().numpy().tobytes())
    return said.hexdigest()[:16]


def found() -> Iterator[tuple[str, str]]:
    fixed, moving = (100 * smooth_volume(SHAPE, seed) for seed in (1, 2))
    everywhere = torch.ones_like(fixed)
    for name, method in METHODS.items():
        sides = [method.prepare(one, everywhere) for one in (fixed, moving)]
        with torch.inference_mode():
            yield name, digest(*sides[0], method.register(*sides, PAIR).displacement.vectors)
    vectors = torch.cat([moving, fixed, moving.flip(3)], 1) / 50 - 1
    yield "measures", digest(*jacobian_measures(vectors), *deformation_measures(vectors, (1, 1, 1)))
    yield "local correlation", digest(lncc(fixed, moving, everywhere))
    placed = [PlacedVolume(one[0, 0], torch.eye(4, dtype=torch.float64)) for one in (fixed, moving)]
    yield "affine", digest(register_affine(placed[:1], placed[1:]).matrices)
    inner = torch.arange(SHAPE[2] ** 2 * 10, SHAPE[2] ** 2 * 11)
    warped = torch.cat([moving, moving.flip(2), fixed.flip(3)], 1)
    yield "joint weights", digest(joint_weights(fixed, warped, inner, inner[:, None].expand(-1, 3)))
    yield "gradients", digest(*gradients(fixed, moving, vectors))


def gradients(fixed: Tensor, moving: Tensor, vectors: Tensor) -> Iterator[Tensor]:
    """Those of a force and of its loss with respect to the features of both sides."""
    sides = [
        torch.cat([one, one.flip(2), one.square()], 1).requires_grad_() for one in (fixed, moving)
    ]
    placement = torch.eye(3, 7, dtype=torch.float64)
    placement[:, 4:] = torch.eye(3)
    force = feature_force(*sides, vectors, placement[None], ForceSettings())
    (force.loss.sum() + force.gradient.square().sum()).backward()
    yield from (one.grad for one in sides if one.grad is not None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(dict(found())))
