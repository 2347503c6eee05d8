"""The Triton kernels of a descent on features against their definitions, in the interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

from dataclasses import astuple
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from triton_oracle import assert_as_good_as_float32, batch, poisoned_memory, surrounded, vectors

from triton_reg.methods.descent import Problem, StopRule, descend
from triton_reg.ops import advance as stepping
from triton_reg.ops import feature_force as comparison
from triton_reg.ops import feature_force_backward as force_backward
from triton_reg.ops import gaussian as smoothing
from triton_reg.ops._triton import advance as step_kernels
from triton_reg.ops._triton import correlation_force, descent_graph, reduction
from triton_reg.ops._triton import feature_force as force_kernels
from triton_reg.ops._triton import gaussian as gaussian_kernels
from triton_reg.ops.advance import Moments, StepSettings, advance_reference
from triton_reg.ops.feature_force import ForceSettings, feature_force_reference
from triton_reg.ops.gaussian import smoothed_reference

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

FIXED, MOVING = (4, 5, 7), (5, 3, 6)
STEPS = (
    StepSettings(update="add", rate=0.7, unit=(1.0, 0.5, 2.0), gradient_sigmas=(1.0, 0.5, 0.0)),
    StepSettings(update="compose", rate=0.7, unit=(1.0, 0.5, 2.0), vector_sigmas=(0.5, 0.0, 0.5)),
    StepSettings(
        update="compose", optimiser="sgd", gradient_sigmas=(2.0, 0.0, 0.0),
        vector_sigmas=(0.0, 0.0, 1.6),
    ),
)  # fmt: skip


class Given(NamedTuple):
    """What a force is asked of."""

    fixed: Tensor
    moving: Tensor
    vectors: Tensor
    placement: Tensor


def given(channels: int, seed: int = 0) -> Given:
    """Two pairs of other sizes, turned a little; some voxels lead outside."""
    fixed, moving = batch(FIXED, channels, 2, seed), batch(MOVING, channels, 2, seed + 3)
    generator = torch.Generator().manual_seed(seed)
    turn = 0.1 * torch.randn(2, 3, 7, generator=generator)
    turn[..., :3] += 0.9 * torch.eye(3)
    turn[..., 4:] += torch.eye(3)
    last = torch.channels_last_3d
    features = (one.contiguous(memory_format=last) for one in (fixed, moving))
    return Given(*features, vectors(FIXED, 1.5, 2, seed + 5), turn)


def whole_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for each operation, not each lane."""
    for module in (step_kernels, gaussian_kernels):
        monkeypatch.setattr(module, "planes_a_program", lambda *_: 8)


@pytest.mark.parametrize("derivative", ["symmetric", "linear"])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_a_force_is_the_definition(channels: int, derivative: str) -> None:
    tensors, weights = given(channels), batch(FIXED, 1, 2, 7)
    settings = ForceSettings(derivative=derivative)  # type: ignore[arg-type]
    active = torch.tensor([True, channels != 3])
    values = astuple(settings)
    found = comparison._feature_force_cuda(*tensors, weights, active, *values)
    for index, one in enumerate(found):
        assert_as_good_as_float32(
            one,
            lambda *t, n=index: feature_force_reference(
                *t, settings, weights=weights.to(t[0]), active=active
            )[n],
            *tensors,
        )
    if channels == 3:
        assert found[0][1] == 0
        assert (found[1][1] == 0).all()
        return
    alone = (one[1:].clone() for one in tensors)
    again = comparison._feature_force_cuda(*alone, weights[1:], None, *values)
    assert torch.equal(again[0], found[0][1:])
    assert torch.equal(again[1], found[1][1:])


@pytest.mark.parametrize("derivative", ["symmetric", "linear"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_correlation_is_the_definition(
    channels: int, derivative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation_force, "_BLOCK", 512)
    # each pair in a group of its own where there are many channels
    monkeypatch.setattr(correlation_force, "_GROUP_BYTES", 11 * 4 * 140)
    tensors, weights = given(channels), batch(FIXED, 1, 2, 7)
    settings = ForceSettings(loss="lncc", window=3, derivative=derivative)  # type: ignore[arg-type]
    active = torch.tensor([True, channels != 3])
    found = comparison._feature_force_cuda(*tensors, weights, active, *astuple(settings))
    for index, one in enumerate(found):
        assert_as_good_as_float32(
            one,
            lambda *t, n=index: feature_force_reference(
                *t, settings, weights=weights.to(t[0]), active=active
            )[n],
            *tensors,
        )
    if channels == 3:
        assert found[0][1] == 0
        assert (found[1][1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(dtype: torch.dtype) -> None:
    tensors = given(5)
    features = [one.to(dtype) for one in tensors[:2]]
    values = astuple(ForceSettings())
    found = comparison._feature_force_cuda(*features, *tensors[2:], None, None, *values)
    rounded = (one.float() for one in features)
    expected = comparison._feature_force_cuda(*rounded, *tensors[2:], None, None, *values)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_on_voxels_the_slope_is_the_central_difference() -> None:
    moving = torch.rand(1, 1, 5, 6, 7, generator=torch.Generator().manual_seed(1))
    placement = torch.cat([torch.eye(3), torch.zeros(3, 1), torch.eye(3)], dim=1)[None]
    still, values = torch.zeros(1, 3, 5, 6, 7), astuple(ForceSettings())
    fixed = torch.zeros_like(moving)
    _, gradient = comparison._feature_force_cuda(
        fixed, moving, still, placement, None, None, *values
    )
    slope = (moving[..., 2:] - moving[..., :-2]) / 2
    expected = 2 * moving[..., 1:-1] * slope / moving.numel()
    torch.testing.assert_close(gradient[:, 2:, ..., 1:-1], expected)


def cotangents() -> tuple[Tensor, Tensor]:
    """Of the loss and of the gradient, for the pairs of :func:`given`."""
    return surrounded(torch.tensor([0.7, -1.3])), vectors(FIXED, 1.0, 2, 11)


@pytest.mark.parametrize("derivative", ["symmetric", "linear"])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_gradients_of_a_force_are_those_of_the_definition(channels: int, derivative: str) -> None:
    tensors, weights = given(channels), batch(FIXED, 1, 2, 7)
    settings = ForceSettings(derivative=derivative)  # type: ignore[arg-type]
    active, of_results = torch.tensor([True, channels != 3]), cotangents()
    found = force_backward._feature_force_backward_cuda(
        *tensors, weights, active, derivative, *of_results, [True, True, True]
    )

    def definition(which: int, *inputs: Tensor) -> Tensor:
        def force(*sides: Tensor) -> tuple[Tensor, ...]:
            extra = {"weights": weights.to(sides[0]), "active": active}
            return tuple(feature_force_reference(*sides, inputs[3], settings, **extra))

        pulled = torch.func.vjp(force, *inputs[:3])[1]
        return pulled(tuple(one.to(inputs[0]) for one in of_results))[which]

    for index, one in enumerate(found):
        assert one.shape == tensors[index].shape
        assert one[0].abs().max() > 0
        assert_as_good_as_float32(one, partial(definition, index), *tensors)
        if channels == 3:
            assert (one[1] == 0).all()


@pytest.mark.parametrize("index", range(3), ids=["fixed", "moving", "vectors"])
def test_a_gradient_alone_is_that_of_all_three(index: int) -> None:
    tensors, wanted = given(5), [one == index for one in range(3)]
    backward = partial(
        force_backward._feature_force_backward_cuda,
        *tensors, None, None, "symmetric", *cotangents(),
    )  # fmt: skip
    alone, together = backward(wanted), backward([True, True, True])
    assert torch.equal(alone[index], together[index])
    assert all(one.numel() == 0 for at, one in enumerate(alone) if at != index)


def test_gradients_of_half_precision_are_rounded_to_it() -> None:
    tensors = given(5)
    features = [one.half() for one in tensors[:2]]
    settings = "symmetric", *cotangents(), [True, True, True]
    found = force_backward._feature_force_backward_cuda(
        *features, *tensors[2:], None, None, *settings
    )
    expected = force_backward._feature_force_backward_cuda(
        *(one.float() for one in features), *tensors[2:], None, None, *settings
    )
    assert [one.dtype for one in found] == [torch.float16, torch.float16, torch.float32]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-3, atol=1e-6)


def test_features_that_no_kernel_reads_are_refused() -> None:
    tensors = given(2)
    with pytest.raises(ValueError, match="fixed must be float32, float16 or bfloat16, got"):
        force_kernels.squares_force(
            tensors.fixed.double(), tensors.moving, *tensors[2:], symmetric=True
        )


@pytest.mark.parametrize("sigmas", [(1.0, 0.5, 0.0), (2.0, 0.3, 1.0)], ids=str)
def test_smoothing_is_the_definition(
    sigmas: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian_kernels, "_BLOCK", 32)
    field = vectors(FIXED, 1.0, 2, 3)
    found = smoothing._smoothed_cuda(field, sigmas)
    assert_as_good_as_float32(found, lambda f: smoothed_reference(f, sigmas), field)


@pytest.mark.parametrize("settings", STEPS, ids=lambda one: f"{one.update} {one.optimiser}")
def test_a_step_is_the_definition(settings: StepSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_volumes(monkeypatch)
    start = vectors((4, 1, 7), 1.0, 2, 1)
    ours, theirs = Moments.of(start), Moments.of(start.double())
    one, other = start, start.double()
    for index, active in enumerate((None, torch.tensor([True, False]))):
        gradient = vectors((4, 1, 7), 1.0, 2, 10 + index)
        one = stepping._advance_cuda(one, surrounded(gradient), *ours, active, *settings.values())
        before = other
        other = advance_reference(other, gradient.double(), theirs, settings, active)
    assert torch.equal(ours.steps, torch.tensor([2, 1], dtype=torch.int32))
    torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.first.double(), theirs.first, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.second.double(), theirs.second, rtol=1e-5, atol=1e-6)
    assert torch.equal(before[1], other[1])
    assert not torch.equal(before[0], other[0])


def test_sums_and_maxima_of_rows() -> None:
    rows = torch.rand(2, 5000, generator=torch.Generator().manual_seed(1))
    found = reduction.reduced(rows, maximum=False, scale=0.5)
    torch.testing.assert_close(found, 0.5 * rows.sum(1))
    assert torch.equal(reduction.reduced(rows, maximum=True), rows.amax(1))
    rows[1, 4500] = torch.nan
    assert reduction.reduced(rows, maximum=True).isnan().tolist() == [False, True]


@pytest.mark.parametrize("update", ["compose", "add"])
def test_a_descent_is_the_plain_loop(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pair has nothing to gain, and stops before the others."""
    whole_volumes(monkeypatch)
    monkeypatch.setattr(descent_graph, "_ITERATIONS", 2)
    tensors, rule = given(2), StopRule(tolerance=1e-3, patience=2)
    tensors.fixed[1], tensors.moving[1] = 0, 0
    step = StepSettings(
        update=update,  # type: ignore[arg-type]
        rate=0.5, gradient_sigmas=(0.5, 0.0, 0.0), vector_sigmas=(0.0, 0.5, 0.0),
    )  # fmt: skip
    start = 0.1 * tensors.vectors
    ours, theirs = Moments.of(start), Moments.of(start.double())
    found = descent_graph.descend_squares(
        descent_graph.Squares(tensors.fixed, tensors.moving, tensors.placement, None, True),
        start, ours, step, descent_graph.Stop(5, rule.tolerance, rule.patience),
    )  # fmt: skip
    precise = (one.double() for one in (tensors.fixed, tensors.moving, tensors.placement))
    problem = Problem(*precise, force=ForceSettings())
    expected = descend(problem, None, start.double(), theirs, step, 5, rule)
    torch.testing.assert_close(found.vectors.double(), expected.parameters, rtol=1e-4, atol=1e-5)
    assert found.iterations.tolist() == expected.iterations.tolist() == [5, 3]
    assert found.converged.tolist() == expected.converged.tolist() == [False, True]
    assert ours.steps.tolist() == theirs.steps.tolist() == [5, 2]
    torch.testing.assert_close(found.loss.double(), expected.loss)
    torch.testing.assert_close(
        found.gradient_ratio.double(), expected.gradient_ratio, equal_nan=True, rtol=1e-4, atol=0
    )
    torch.testing.assert_close(ours.first.double(), theirs.first, rtol=1e-4, atol=1e-7)
