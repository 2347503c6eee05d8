"""The published code's recorded outputs against the Triton kernels, in Triton's interpreter.

Every operator's GPU side is registered for CPU tensors, in this process alone; the tests are those
of ``golden/test_voxelopt.py`` in float32: one file of a level and the coarse levels of a pyramid,
or with ``COHORT_EVERYTHING=1`` every file, which takes the interpreter long. Run by
``test_triton.py``, see ``triton_interpreter.py``.
"""

import os

import pytest
import torch
from golden import test_voxelopt as golden
from golden.test_voxelopt import assert_pyramid_flow, prepared, settings_of, vectors
from golden.vectors import Vectors
from torch import Tensor
from triton_oracle import large_blocks

from triton_reg.ops import (
    compose,
    local_contrast,
    mind_ssc,
    register_pyramid,
    resize,
    solve_level,
    warp,
)
from triton_reg.ops.pyramid_settings import PyramidSettings

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.usefixtures("large_blocks"),
]

__all__ = ["large_blocks", "vectors"]  # fixtures for all tests here

STAGE, PYRAMID = "voxelopt_stage_ks1_adaptive.npz", "voxelopt_pyramid_ks1_adaptive.npz"
EVERYTHING = "COHORT_EVERYTHING" in os.environ
STAGES = golden.STAGES if EVERYTHING else [STAGE]
LEFT_OUT = 3  # finer levels: the interpreter takes a minute or more for each

compose._compose.register_kernel("cpu")(compose._compose_cuda)
compose._integrate.register_kernel("cpu")(compose._integrate_cuda)
local_contrast._local_contrast.register_kernel("cpu")(local_contrast._local_contrast_cuda)
mind_ssc._mind_ssc.register_kernel("cpu")(mind_ssc._mind_ssc_cuda)
resize._resize.register_kernel("cpu")(resize._resize_cuda)
solve_level._solve_level.register_kernel("cpu")(solve_level._solve_level_cuda)
warp._warp.register_kernel("cpu")(warp._warp_cuda)
register_pyramid._register_pyramid.register_kernel("cpu")(register_pyramid._register_pyramid_cuda)


@pytest.mark.parametrize("vectors", STAGES, indirect=True)
def test_a_level(vectors: Vectors) -> None:
    golden.test_a_level_follows_the_published_arithmetic(vectors, torch.float32)


@pytest.mark.parametrize("vectors", ["mindssc.npz"], indirect=True)
def test_mind(vectors: Vectors) -> None:
    golden.test_mind_follows_the_published_arithmetic(vectors, torch.float32)


@pytest.mark.parametrize("vectors", ["warp_ops.npz"], indirect=True)
def test_warping(vectors: Vectors) -> None:
    golden.test_warping_follows_the_published_arithmetic(vectors, torch.float32)


def test_tied_labels_are_summed() -> None:
    given = Vectors("voxelopt_stage_ties.npz")
    fixed, moving = (given.tensor(f"const_{role}", torch.float32) for role in ("fixed", "moving"))
    displacement, _ = solve_level.solve_level(fixed, moving, settings_of(STAGE))
    assert given.error("const_flow", displacement).quantile(0.99) <= 1e-4


def test_the_coarse_levels_of_a_pyramid() -> None:
    """Its displacement is that of the recorded steps, composed by the definition."""
    given, recorded = Vectors("voxelopt_pyramid_input.npz"), Vectors(PYRAMID)
    level = settings_of(PYRAMID)
    settings = PyramidSettings(level=level, solves=(1,), squarings=7, precision="exact")
    sides = []
    for role in ("fixed", "moving"):
        levels = list(prepared(given.tensor(role, torch.float32), level))[LEFT_OUT:]
        shape = resize.grid_shape(levels[0])
        sides.append(register_pyramid.stored_pyramid(levels, shape, settings))
    pair = torch.zeros(1, 2, dtype=torch.int32)
    found, _ = register_pyramid.register_pyramid(*sides, pair, settings)
    assert_pyramid_flow((found - composed_steps(recorded, LEFT_OUT)).abs())


if EVERYTHING:

    @pytest.mark.parametrize("vectors", golden.PYRAMIDS, indirect=True)
    def test_a_whole_pyramid(vectors: Vectors) -> None:
        golden.test_the_pyramid_follows_the_published_arithmetic(vectors, torch.float32)


def composed_steps(recorded: Vectors, finest: int) -> Tensor:
    """The displacement at a level that the recorded steps of all coarser ones make."""
    displacement = None
    for level in range(4, finest - 1, -1):
        step = recorded.tensor(f"level{level}_integrated", torch.float32)
        if displacement is None:
            displacement = step
            continue
        known = 2 * resize.resize_reference(displacement, resize.grid_shape(step))
        displacement = compose.compose_reference(step, known)
    assert displacement is not None
    return displacement
