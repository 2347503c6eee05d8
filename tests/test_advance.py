"""A step of an optimiser and the smoothing around it: compiled kernels against definitions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_oracle import SHAPES, assert_as_good_as_float32, batch, vectors
from torch import Tensor

from triton_reg.ops.advance import (
    Moments,
    StepSettings,
    adam_direction,
    advance,
    advance_reference,
    moved_by,
)
from triton_reg.ops.gaussian import Sigmas, smoothed, smoothed_reference
from triton_reg.ops.resize import Shape

UNIT = (0.5, 0.8, 1.1)
SETTINGS = {
    "added adam": StepSettings(unit=UNIT),
    "added gradient": StepSettings(optimiser="sgd", unit=UNIT),
    "composed adam": StepSettings(update="compose", rate=0.8, unit=UNIT),
    "composed far": StepSettings(update="compose", rate=4.0, unit=UNIT, betas=(0.5, 0.9)),
    "composed gradient": StepSettings(update="compose", optimiser="sgd", rate=1.0),
    "not smoothed": StepSettings(gradient_sigmas=(0, 0, 0), vector_sigmas=(0, 0, 0)),
    "smoothed unevenly": StepSettings(gradient_sigmas=(0, 2.5, 1), vector_sigmas=(1.2, 0, 3)),
}
Advance = Callable[..., Tensor]


def after_steps(
    call: Advance, start: Tensor, gradient: Tensor, settings: StepSettings, steps: int = 3
) -> tuple[Tensor, Moments]:
    """Vectors and moments after steps whose gradients turn."""
    moments, moved = Moments.of(start), start
    for step in range(steps):
        moved = call(moved, (1 + step) * gradient.roll(step, 1), moments, settings)
    return moved, moments


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigmas", [(1, 1, 1), (0.5, 0.5, 0.5), (0, 1.7, 4), (2.5, 0, 0.2)])
def test_smoothing_is_the_definition(shape: Shape, sigmas: Sigmas) -> None:
    field = batch(shape, 3, 2, 1)
    found = smoothed(field, sigmas).numpy()
    assert_as_good_as_float32(found, lambda one: smoothed_reference(one, sigmas), field)


def test_smoothing_keeps_a_constant_inside_and_is_its_own_adjoint() -> None:
    inside = smoothed(torch.ones(1, 1, 9, 9, 9), (1, 1, 1))[..., 2:-2, 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    one, other = (batch((6, 5, 7), 3, 1, seed) for seed in (1, 2))
    there = (smoothed(one, (1, 2, 0.5)) * other).sum()
    torch.testing.assert_close(there, (one * smoothed(other, (1, 2, 0.5))).sum())
    one.requires_grad_()
    (found,) = torch.autograd.grad(smoothed(one, (1, 2, 0.5)), one, other)
    assert torch.equal(found, smoothed(other, (1, 2, 0.5)))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_are_the_definition(name: str, shape: Shape) -> None:
    settings = SETTINGS[name]
    given = vectors(shape, 2.0, 2, 1), vectors(shape, 1.0, 2, 2)
    # after one step Adam's direction is the gradient's sign: rounding decides it near zero
    moved, moments = after_steps(advance, *given, settings)
    assert moments.steps.tolist() == [3, 3]
    _, truth = after_steps(advance_reference, *(one.double() for one in given), settings)
    for moment, exact in zip(moments[:2], truth[:2], strict=True):
        torch.testing.assert_close(moment.double(), exact, atol=1e-6, rtol=0)
    assert_as_good_as_float32(
        moved.numpy(), lambda v, g: after_steps(advance_reference, v, g, settings)[0], *given
    )


@pytest.mark.parametrize("name", ["added adam", "composed adam", "composed far"])
def test_a_batch_has_the_bits_of_each_pair_alone(name: str) -> None:
    start, gradient = vectors((9, 12, 10), 2.0, 3, 1), vectors((9, 12, 10), 1.0, 3, 2)
    together, of_all = after_steps(advance, start, gradient, SETTINGS[name])
    for pair in range(3):
        one = slice(pair, pair + 1)
        alone, moments = after_steps(advance, start[one], gradient[one], SETTINGS[name])
        assert torch.equal(together[one], alone)
        for whole, part in zip(of_all, moments, strict=True):
            assert torch.equal(whole[one], part)


@pytest.mark.parametrize("name", ["added adam", "composed adam"])
def test_pairs_that_are_not_active_stay_as_they_are(name: str) -> None:
    start, gradient = vectors((5, 3, 7), 2.0, 3, 1), vectors((5, 3, 7), 1.0, 3, 2)
    moments, kept = Moments.of(start), start.clone()
    moments.first[1], moments.second[1], moments.steps[1] = 0.25, 0.5, 7
    gradient[1] = torch.nan
    moved = advance(start, gradient, moments, SETTINGS[name], torch.tensor([True, False, True]))
    assert torch.equal(start, kept)
    assert torch.equal(moved[1], start[1])
    assert moments.first[1].eq(0.25).all()
    assert moments.second[1].eq(0.5).all()
    assert moments.steps.tolist() == [1, 7, 1]
    assert moved.isfinite().all()
    assert not torch.equal(moved[0], start[0])


def test_moments_of_any_layout_are_changed_in_place() -> None:
    start, gradient = vectors((5, 3, 7), 2.0, 2, 1), vectors((5, 3, 7), 1.0, 2, 2)
    plain, last = Moments.of(start), Moments.of(start.to(memory_format=torch.channels_last_3d))
    assert not last.first.is_contiguous()
    expected = advance(start, gradient, plain, StepSettings())
    assert torch.equal(advance(start, gradient, last, StepSettings()), expected)
    assert torch.equal(plain.first, last.first)
    assert torch.equal(plain.second, last.second)


@pytest.mark.parametrize("name", ["added adam", "composed adam"])
def test_the_differentiable_step_is_the_same_step(name: str) -> None:
    start, gradient = vectors((5, 3, 7), 2.0, 2, 1), vectors((5, 3, 7), 1.0, 2, 2)
    settings, moments = SETTINGS[name], Moments.of(start)
    expected = advance(start, gradient, moments, settings)
    direction = adam_direction(moments.first, moments, settings)
    torch.testing.assert_close(moved_by(start, direction, settings), expected)
    wanted = start.double().requires_grad_(), direction.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *pair: moved_by(*pair, settings), wanted, fast_mode=True)


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
def test_the_operators_pass_torchs_own_checks() -> None:
    start, gradient = vectors((3, 4, 5), 2.0, 2, 1), vectors((3, 4, 5), 1.0, 2, 2)
    operators = torch.ops.triton_reg
    for requires_grad in (False, True):
        field = start.clone().requires_grad_(requires_grad)
        torch.library.opcheck(operators.smoothed.default, (field, [1.0, 0.0, 0.5]))
    values: Any = SETTINGS["composed adam"].values()
    values = [list(one) if isinstance(one, tuple) else one for one in values]
    arguments = (start, gradient, *Moments.of(start), torch.tensor([True, False]), *values)
    torch.library.opcheck(operators.advance.default, arguments)


def test_bad_input_says_what_is_needed() -> None:
    start = vectors((3, 4, 5), 2.0, 2, 1)
    moments = Moments.of(start)
    with pytest.raises(ValueError, match=r"vectors and gradient and .* must share one shape"):
        advance(start, start[:, :, 1:], moments, StepSettings())
    with pytest.raises(ValueError, match=r"steps must be \[2\], got \[1\]"):
        advance(start, start, moments._replace(steps=moments.steps[:1]), StepSettings())
    with pytest.raises(ValueError, match=r"must be \[B, 3, D, H, W\]"):
        advance(start[:, :2], start, moments, StepSettings())
    with pytest.raises(ValueError, match="a sigma for each of 3 axes, got"):
        smoothed(start, (1.0, 1.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"vectors must be \[B, C, D, H, W\], got \[3, 4\]"):
        smoothed(torch.zeros(3, 4), (1, 1, 1))
