"""The comparison of features under a displacement: compiled kernels against their definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_oracle import EPSILON, assert_as_good_as_float32, batch, vectors
from torch import Tensor

from triton_reg.ops.feature_force import (
    Force,
    ForceSettings,
    feature_force,
    feature_force_reference,
)
from triton_reg.ops.resize import Shape

FIXED, MOVING = (9, 12, 10), (11, 7, 17)
SETTINGS = {
    "mse symmetric": ForceSettings(),
    "mse linear": ForceSettings(derivative="linear"),
    "lncc 5": ForceSettings(loss="lncc"),
    "lncc 7 linear": ForceSettings(loss="lncc", window=7, derivative="linear"),
}
Call = Callable[..., Force]


def placements(fixed: Shape, moving: Shape, pairs: int, turned: float = 0.02) -> Tensor:
    """Centre on centre off the voxels, stretched, and turned a little."""
    found = torch.zeros(pairs, 3, 7)
    for axis, (size, to) in enumerate(zip(fixed, moving, strict=True)):
        found[:, axis, axis] = found[:, axis, 4 + axis] = to / size
        found[:, axis, 3] = to / size / 2 - 0.4
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(9))
    return found + turned * noise


def given(fixed: Shape, moving: Shape, channels: int, pairs: int = 2) -> list[Tensor]:
    """Features of both, vectors that lead out of the volume here and there, and placements."""
    features = batch(fixed, channels, pairs, 1) - 0.5, batch(moving, channels, pairs, 2) - 0.5
    return [*features, vectors(fixed, 3.0, pairs, 3), placements(fixed, moving, pairs)]


def assert_is_the_definition(
    tensors: list[Tensor], settings: ForceSettings, weights: Tensor | None
) -> None:
    inputs = tensors if weights is None else [*tensors, weights]

    def force(call: Call, *inputs: Tensor) -> Force:
        return call(*inputs[:4], settings, weights=inputs[4] if len(inputs) > 4 else None)

    found = force(feature_force, *inputs)
    for name in Force._fields:
        assert_as_good_as_float32(
            getattr(found, name).numpy(),
            lambda *inputs, which=name: getattr(force(feature_force_reference, *inputs), which),
            *inputs,
        )
    assert found.gradient.abs().max() > 0


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("channels", [1, 3, 12, 16, 21])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_force_is_the_definition(name: str, channels: int, weighted: bool) -> None:
    weights = batch(FIXED, 1, 2, 4) if weighted else None
    assert_is_the_definition(given(FIXED, MOVING, channels), SETTINGS[name], weights)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "shapes", [((5, 3, 7), (5, 3, 7)), ((1, 6, 1), (2, 1, 3)), ((4, 2, 33), (3, 40, 2))], ids=str
)
def test_volumes_of_any_size_will_do(shapes: tuple[Shape, Shape], channels: int) -> None:
    weights = batch(shapes[0], 1, 2, 4)
    assert_is_the_definition(given(*shapes, channels), ForceSettings(), weights)


def test_features_in_either_memory_format_give_the_same_bits() -> None:
    fixed, moving, *others = given(FIXED, MOVING, 8)
    plain = feature_force(fixed, moving, *others, ForceSettings())
    last = (one.to(memory_format=torch.channels_last_3d) for one in (fixed, moving))
    other = feature_force(*last, *others, ForceSettings())
    assert torch.equal(plain.loss, other.loss)
    assert torch.equal(plain.gradient, other.gradient)


@pytest.mark.parametrize("loss", ["mse", "lncc"])
def test_the_force_of_a_shifted_copy_points_back(loss: Any) -> None:
    moving = batch((12, 12, 12), 4, 1, 1)
    fixed = moving.roll(1, 2)  # fixed voxel z shows what lies at z - 1
    placement = torch.eye(3, 7)[None]
    placement[0, :, 4:] = torch.eye(3)
    inside = torch.zeros(1, 1, 12, 12, 12)
    inside[..., 3:9, 3:9, 3:9] = 1

    def force(along: float) -> Force:
        shift = torch.tensor([along, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 12, 12, 12)
        settings = ForceSettings(loss=loss)
        return feature_force(fixed, moving, shift, placement, settings, weights=inside)

    still, there = force(0), force(-1)
    pull = still.gradient.sum((2, 3, 4))[0]
    assert pull[0] > 4 * pull[1:].abs().max()
    assert there.loss.abs() < 1e-4 * still.loss


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("channels", [1, 12])
def test_a_batch_has_the_bits_of_each_pair_alone(name: str, channels: int) -> None:
    tensors = given(FIXED, MOVING, channels, pairs=3)
    weights = batch(FIXED, 1, 3, 4)
    together = feature_force(*tensors, SETTINGS[name], weights=weights)
    for pair in range(3):
        one = slice(pair, pair + 1)
        alone = feature_force(*(t[one] for t in tensors), SETTINGS[name], weights=weights[one])
        assert torch.equal(together.loss[one], alone.loss)
        assert torch.equal(together.gradient[one], alone.gradient)


def test_gradients_of_a_batch_have_the_bits_of_each_pair_alone() -> None:
    tensors, settings = given(FIXED, MOVING, 4, pairs=3), ForceSettings()

    def of_pairs(pairs: slice) -> tuple[Tensor, ...]:
        inputs = [one[pairs].clone().requires_grad_() for one in tensors[:3]]
        found = feature_force(*inputs, tensors[3][pairs], settings)
        return torch.autograd.grad(found.loss.sum() + found.gradient.square().sum(), inputs)

    together = of_pairs(slice(None))
    for pair in range(3):
        one = slice(pair, pair + 1)
        for whole, alone in zip(together, of_pairs(one), strict=True):
            assert torch.equal(whole[one], alone)


@pytest.mark.parametrize("name", SETTINGS)
def test_pairs_that_are_not_active_cost_nothing_and_pull_nothing(name: str) -> None:
    tensors = given(FIXED, MOVING, 4, pairs=3)
    tensors[0][1] = torch.nan
    active = torch.tensor([True, False, True])
    found = feature_force(*tensors, SETTINGS[name], active=active)
    whole = feature_force(*tensors, SETTINGS[name])
    for part, of_all in zip(found, whole, strict=True):
        assert part[1].eq(0).all()
        assert torch.equal(part[active], of_all[active])


def test_nan_stays_visible() -> None:
    fixed, moving, shift, placement = given(FIXED, MOVING, 4, pairs=1)
    for broken in (moving, shift):
        kept = broken.clone()
        broken[0, 1, 4, 3, 5] = torch.nan
        found = feature_force(fixed, moving, shift, placement, ForceSettings())
        assert found.loss.isnan().all()
        assert found.gradient.isnan().any()
        broken.copy_(kept)


def gradients(
    call: Call, tensors: list[Tensor], settings: ForceSettings, dtype: torch.dtype, **extra: Any
) -> tuple[Tensor, ...]:
    """Of a random sum of both results with respect to fixed, moving and vectors."""
    inputs = [one.to(dtype, copy=True).requires_grad_() for one in tensors[:3]]
    found = call(*inputs, tensors[3].to(dtype), settings, **extra)
    generator = torch.Generator().manual_seed(5)
    seeds = [torch.randn(one.shape, generator=generator).to(dtype) for one in found]
    return torch.autograd.grad(list(found), inputs, seeds)


@pytest.mark.parametrize("name", ["mse symmetric", "mse linear", "lncc 5"])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_gradients_are_those_of_the_definition(name: str, channels: int) -> None:
    tensors, settings = given(FIXED, MOVING, channels), SETTINGS[name]
    extra = {"weights": batch(FIXED, 1, 2, 4), "active": torch.tensor([True, channels != 3])}
    found = gradients(feature_force, tensors, settings, torch.float32, **extra)
    own = gradients(feature_force_reference, tensors, settings, torch.float32, **extra)
    truth = gradients(feature_force_reference, tensors, settings, torch.float64, **extra)
    for kernel, reference, exact in zip(found, own, truth, strict=True):
        assert kernel.shape == exact.shape
        own_error = (reference.double() - exact).abs().max()
        error = (kernel.double() - exact).abs().max()
        # both passes round: four times the slack of a forward pass
        assert error <= 2 * own_error + 32 * EPSILON * exact.abs().max()
        assert exact.abs().max() > 0


@pytest.mark.parametrize("wanted", range(3), ids=["fixed", "moving", "vectors"])
def test_a_gradient_alone_has_the_bits_of_all_three(wanted: int) -> None:
    tensors = given(FIXED, MOVING, 5)
    together = gradients(feature_force, tensors, ForceSettings(), torch.float32)
    inputs = [one.requires_grad_(index == wanted) for index, one in enumerate(tensors[:3])]
    found = feature_force(*inputs, tensors[3], ForceSettings())
    generator = torch.Generator().manual_seed(5)
    seeds = [torch.randn(one.shape, generator=generator) for one in found]
    (alone,) = torch.autograd.grad(list(found), inputs[wanted], seeds)
    assert torch.equal(alone, together[wanted])


@pytest.mark.parametrize("derivative", ["symmetric", "linear"])
def test_gradients_in_float64_are_those_of_differences(derivative: Any) -> None:
    tensors = [one.double() for one in given((3, 4, 3), (4, 3, 5), 2, pairs=1)]
    settings = ForceSettings(derivative=derivative)

    def force(*inputs: Tensor) -> Force:
        return feature_force(*inputs, tensors[3], settings)

    inputs = tuple(one.requires_grad_() for one in tensors[:3])
    assert torch.autograd.gradcheck(force, inputs, fast_mode=True)


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
@pytest.mark.parametrize("requires_grad", [False, True], ids=["forward", "gradients"])
def test_the_operators_pass_torchs_own_checks(requires_grad: bool) -> None:
    fixed, moving, shift, placement = given((3, 4, 5), (4, 3, 5), 3)
    inputs = [one.requires_grad_(requires_grad) for one in (fixed, moving, shift)]
    weights, active = batch((3, 4, 5), 1, 2, 4), torch.tensor([True, False])
    operators = torch.ops.triton_reg
    values = ("mse", 5, "symmetric")
    torch.library.opcheck(
        operators.feature_force.default, (*inputs, placement, weights, active, *values)
    )
    if not requires_grad:
        tensors = (fixed, moving, shift, placement, None, None, "linear", torch.ones(2), shift)
        for wanted in ([True, True, True], [False, True, False]):
            torch.library.opcheck(operators.feature_force_backward.default, (*tensors, wanted))


def test_bad_input_says_what_is_needed() -> None:
    fixed, moving, shift, placement = given((3, 4, 5), (4, 3, 5), 2)
    settings = ForceSettings()
    with pytest.raises(ValueError, match=r"must lie on its grid .* \[2, 3, 2, 4, 5\]"):
        feature_force(fixed, moving, shift[:, :, 1:], placement, settings)
    with pytest.raises(ValueError, match=r"share its pairs and channels, got .* \[2, 1, 4, 3, 5\]"):
        feature_force(fixed, moving[:, :1], shift, placement, settings)
    with pytest.raises(ValueError, match=r"got .* \[1, 1, 3, 4, 5\] and"):
        feature_force(fixed, moving, shift, placement, settings, weights=fixed[:1, :1])
    with pytest.raises(ValueError, match=r"placement must be \[2, 3, 7\], got \[1, 3, 7\]"):
        feature_force(fixed, moving, shift, placement[:1], settings)
    with pytest.raises(ValueError, match="features and vectors alone, but placement or weights"):
        feature_force(fixed, moving, shift, placement.requires_grad_(), settings)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"loss": "ncc"}, "loss must be mse or lncc, got 'ncc'"),
        ({"window": 4}, "window must be odd and >= 3, got 4"),
        ({"derivative": "central"}, "derivative must be symmetric or linear, got 'central'"),
    ],
)
def test_bad_settings_say_why(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForceSettings(**setting)
