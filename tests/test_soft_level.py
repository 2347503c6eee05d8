"""VoxelOpt with soft argmins: what it tends to at low temperatures, and its gradients."""

from dataclasses import replace

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import Intensity, LevelSettings, SoftVoxelOpt, VoxelOpt
from triton_reg.ops.cost_volume import cost_volume_reference, label_offsets
from triton_reg.ops.coupled_argmin import coupled_argmin_reference
from triton_reg.ops.entropy import entropy_reference
from triton_reg.ops.soft_level import register_soft_level, soft_argmin, solve_soft_level
from triton_reg.ops.solve_level import register_level_reference, solve_level_reference

SHORT = LevelSettings(passes=1, couplings=(0.1, 1.0))
ONE_PAIR = torch.zeros(1, 2, dtype=torch.int32)


class Raw:
    """Volumes as they are, so that gradients with respect to features are easy to take."""

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        return volume * mask


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("radius", "coupling"), [(1, 0.0), (1, 0.3), (2, 0.05)])
def test_at_a_low_temperature_it_is_the_hard_argmin_where_that_is_unique(
    radius: int, coupling: float
) -> None:
    labels = len(label_offsets(radius))
    cost, displacement = noise((2, labels, 5, 4, 6), 0), 2 * noise((2, 3, 5, 4, 6), 1) - 1
    offsets = torch.tensor(label_offsets(radius), dtype=torch.float64).view(1, -1, 3, 1, 1, 1)
    total = cost + coupling * (displacement[:, None] - offsets).square().sum(2)
    lowest = total.sort(1).values
    unique = lowest[:, 1] - lowest[:, 0] > 0.02
    assert unique.double().mean() > 0.2
    hard = coupled_argmin_reference(cost, displacement, coupling, radius)
    errors = []
    for temperature in (1e-2, 3e-3, 1e-3):
        soft = soft_argmin(cost, displacement, coupling, radius, temperature)
        errors.append((soft - hard).abs().amax(1)[unique].max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_labels_that_tie_are_averaged() -> None:
    cost, nowhere = torch.ones(1, 27, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2)
    assert soft_argmin(cost, nowhere, 0.0, 1, 0.01).abs().max() < 1e-6
    offsets = label_offsets(1)
    for label in (offsets.index((1, 0, -1)), offsets.index((1, 1, 1))):
        cost[:, label] = 0
    mean = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1, 1).expand_as(nowhere)
    torch.testing.assert_close(soft_argmin(cost, nowhere, 0.0, 1, 0.01), mean)


@pytest.mark.parametrize("entropy_radius", [None, 2])
def test_the_entropy_is_the_references(entropy_radius: int | None) -> None:
    fixed, moving = (smooth_volume((7, 6, 8), seed, channels=3).double() for seed in (0, 1))
    settings = replace(SHORT, entropy_radius=entropy_radius)
    cost = cost_volume_reference(fixed, moving, entropy_radius or 1)
    _, entropy = solve_soft_level(fixed, moving, settings, 0.05)
    torch.testing.assert_close(entropy, entropy_reference(cost))


@pytest.mark.parametrize("filter_cost", [True, False])
def test_at_a_low_temperature_a_level_is_the_hard_level(filter_cost: bool) -> None:
    fixed, moving = (noise((1, 2, 8, 9, 7), seed) for seed in (0, 1))
    settings = LevelSettings(filter_cost=filter_cost)
    hard, _ = solve_level_reference(fixed, moving, settings)
    soft, _ = solve_soft_level(fixed, moving, settings, 1e-6)
    assert ((soft - hard).abs() < 1e-3).double().mean() > 0.98
    known = 0.5 * noise((1, 3, 8, 9, 7), 2)
    hard, _ = register_level_reference(fixed, moving, known, settings, 4)
    soft, _ = register_soft_level(fixed, moving, known, settings, 1e-6, 4)
    assert ((soft - hard).abs() < 1e-3).double().mean() > 0.98


@pytest.mark.parametrize(
    "settings",
    [
        SHORT,
        replace(SHORT, smoothing="adaptive-paper", tap_radius=2, entropy_radius=2, radius=1),
        replace(SHORT, filter_cost=False, smoothing="isotropic"),
    ],
    ids=["adaptive", "paper", "isotropic"],
)
def test_gradients_of_a_level_are_right(settings: LevelSettings) -> None:
    """With respect to features and displacement, through warp, solve, integration, composition."""
    shapes = ((2, 2, 4, 3, 5), (2, 2, 4, 3, 5), (2, 3, 4, 3, 5))
    inputs = [noise(shape, seed).requires_grad_() for seed, shape in enumerate(shapes)]

    def level(fixed: Tensor, moving: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
        return register_soft_level(fixed, moving, displacement, settings, 0.1, 2)

    assert torch.autograd.gradcheck(level, inputs, fast_mode=True)


def test_the_gradient_of_each_voxel_is_right() -> None:
    fixed, moving = (noise((1, 1, 2, 3, 2), seed).requires_grad_() for seed in (3, 4))

    def level(fixed: Tensor, moving: Tensor) -> Tensor:
        return register_soft_level(fixed, moving, None, SHORT, 0.1, 3)[0]

    assert torch.autograd.gradcheck(level, (fixed, moving))


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("downsample", [1, 2])
def test_gradients_through_two_levels_match_differences(recompute: bool, downsample: int) -> None:
    voxelopt = VoxelOpt(
        features=Raw(), level=SHORT, levels=2, squarings=3, downsample=downsample, solves=(2, 1)
    )
    method = SoftVoxelOpt(voxelopt=voxelopt, temperature=0.05, recompute=recompute)
    shape = (16, 17, 18) if downsample == 1 else (33, 35, 37)
    volumes = torch.cat([smooth_volume(shape, seed).double() for seed in (0, 1)])
    weight = noise((1, 3, 16, 17, 18), 2)

    def loss(volumes: Tensor) -> Tensor:
        features = method.prepare(volumes, torch.ones_like(volumes))
        pair = torch.tensor([[0, 1]], dtype=torch.int32)
        return (weight * method.register(features, features, pair).displacement.vectors).sum()

    at = volumes.clone().requires_grad_()
    loss(at).backward()
    direction, step = noise(tuple(volumes.shape), 3) - 0.5, 1e-7
    with torch.no_grad():
        ahead, behind = loss(volumes + step * direction), loss(volumes - step * direction)
    difference = (ahead - behind) / (2 * step)
    assert at.grad is not None
    assert abs(difference) > 1e-3
    torch.testing.assert_close((at.grad * direction).sum(), difference, rtol=1e-4, atol=0)
    assert at.grad[0].abs().max() > 0
    assert at.grad[1].abs().max() > 0


def quick(temperature: float = 0.02, **settings: object) -> SoftVoxelOpt:
    voxelopt = VoxelOpt(features=Intensity(), levels=3, solves=(1,), level=SHORT, squarings=4)
    return SoftVoxelOpt(voxelopt=replace(voxelopt, **settings), temperature=temperature)


def volumes(n: int) -> Tensor:
    return torch.cat([100 * smooth_volume((16, 18, 20), seed) for seed in range(n)])


def test_a_batch_gives_what_each_pair_gives_alone() -> None:
    method, three = quick(), volumes(3)
    features = tuple(one.requires_grad_() for one in method.prepare(three, torch.ones_like(three)))
    pairs = torch.tensor([[0, 1], [2, 0], [1, 2]], dtype=torch.int32)
    batch = method.register(features, features, pairs).displacement.vectors
    together = torch.autograd.grad(batch.square().sum(), features)
    alone = [method.register(features, features, pairs[i : i + 1]) for i in range(3)]
    vectors = torch.cat([one.displacement.vectors for one in alone])
    torch.testing.assert_close(batch, vectors, rtol=1e-5, atol=1e-6)
    apart = torch.autograd.grad(vectors.square().sum(), features)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_a_low_temperature_registers_as_voxelopt_does() -> None:
    soft, two = quick(temperature=1e-6), volumes(2)
    hard, mask = soft.voxelopt, torch.ones_like(two[:1])
    vectors = []
    for method in (soft, hard):
        fixed, moving = (method.prepare(one, mask) for one in two.split(1))
        vectors.append(method.register(fixed, moving, ONE_PAIR).displacement.vectors)
    assert (vectors[0] - vectors[1]).abs().median() < 1e-3


def test_a_pair_that_says_nothing_has_finite_gradients() -> None:
    method, blank = quick(), torch.ones(2, 1, 16, 16, 16)
    features = [one.requires_grad_() for one in method.prepare(blank, torch.ones_like(blank))]
    pair = torch.tensor([[0, 1]], dtype=torch.int32)
    loss = method.register(tuple(features), tuple(features), pair).displacement.vectors.sum()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, features))


def test_the_fingerprint_changes_with_every_setting() -> None:
    other = Intensity(window=(2, 9))
    methods = (quick(), quick(0.1), quick(levels=2), quick(features=other))
    prints = {method.fingerprint for method in methods}
    assert len(prints) == 4
    assert quick().fingerprint in prints
    assert quick().voxelopt.fingerprint not in prints
    assert replace(quick(), recompute=False).fingerprint == quick().fingerprint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, u: soft_argmin(a, u, 0.0, 1, 0.0), "temperature must be above 0, got 0"),
        (
            lambda a, u: soft_argmin(a, u, 0.0, 2, 0.1),
            "needs a cost of 125 labels, got 27",
        ),
        (lambda a, u: solve_soft_level(a, u, SHORT, 0.1), "fixed and moving must share one shape"),
        (lambda a, u: solve_soft_level(a, a, SHORT, -1.0), "must be above 0, got -1"),
        (
            lambda a, u: register_soft_level(a, a, u[..., :2], SHORT, 0.1),
            "fixed and displacement must share one shape",
        ),
        (lambda a, u: SoftVoxelOpt(temperature=0), "SoftVoxelOpt: temperature must be above 0"),
    ],
)
def test_messages_say_what_was_got(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 27, 3, 3, 3), torch.zeros(1, 3, 3, 3, 3))
