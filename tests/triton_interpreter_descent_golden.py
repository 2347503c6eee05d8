"""The published DIO's recorded outputs against the Triton kernels, in Triton's interpreter.

Every operator's GPU side is registered for CPU tensors, in this process alone; the tests are those
of ``golden/test_recorded_dio.py`` in float32: the first step of each optimiser on a level and a few
steps as one descent, or with ``COHORT_EVERYTHING=1`` all steps that are recorded and the gradients
through phantom steps, which takes the interpreter long: a step of 3,000 voxels is four seconds. Run
by ``test_triton.py``, see ``triton_interpreter.py``.
"""

import os

import pytest
import torch
from golden import test_recorded_dio as golden
from golden.vectors import Vectors

from triton_reg.methods import descent
from triton_reg.ops import (
    advance,
    compose,
    feature_force,
    feature_force_backward,
    gaussian,
    resize,
    warp,
)
from triton_reg.ops._triton import advance as step_kernels
from triton_reg.ops._triton import compose as compose_kernels
from triton_reg.ops._triton import gaussian as gaussian_kernels
from triton_reg.ops._triton import warp as warp_kernels
from triton_reg.ops._triton.feature_lines import LineForm

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

EVERYTHING = "COHORT_EVERYTHING" in os.environ
STEPS = (1, 5, 10, 20) if EVERYTHING else (1,)
CASES = ["freeform_sgd", "freeform_adam", "diffeo_adam"]

SIDES = (
    (advance._advance, advance._advance_cuda),
    (compose._compose, compose._compose_cuda),
    (compose._integrate, compose._integrate_cuda),
    (feature_force._feature_force, feature_force._feature_force_cuda),
    (
        feature_force_backward.feature_force_backward,
        feature_force_backward._feature_force_backward_cuda,
    ),
    (gaussian._smoothed, gaussian._smoothed_cuda),
    (resize._resize, resize._resize_cuda),
    (warp._warp, warp._warp_cuda),
)
for operator, on_gpu in SIDES:
    operator.register_kernel("cpu")(on_gpu)


@pytest.fixture
def inputs() -> Vectors:
    return Vectors("dio_input.npz")


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for each operation, not each lane."""
    for module in (step_kernels, gaussian_kernels):
        monkeypatch.setattr(module, "planes_a_program", lambda *_: 16)
        monkeypatch.setattr(module, "_BLOCK", 1024)
    for module in (compose_kernels, warp_kernels):
        monkeypatch.setattr(module, "_BLOCK", 4096)
    small = LineForm.constants.fget
    assert small is not None
    large = property(lambda form: small(form) | {"BLOCK": 4096})
    monkeypatch.setattr(LineForm, "constants", large)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_a_level_step_by_step(case: str, steps: int, inputs: Vectors) -> None:
    golden.test_a_level_alone_step_by_step(case, steps, inputs)


@pytest.mark.parametrize("case", CASES)
def test_a_level_as_one_descent(
    case: str, inputs: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "descends_on_gpu", lambda *_: True)
    golden.test_a_level_alone_step_by_step(case, 5, inputs)


if EVERYTHING:

    @pytest.mark.parametrize("case", golden.PHANTOMS)
    def test_gradients_through_phantom_steps(case: str, inputs: Vectors) -> None:
        golden.test_phantom_steps_give_the_published_gradients(case, torch.float32, inputs)
