"""DIO: transforms, terms, prompts and stopping on pairs whose answer is known."""

from dataclasses import dataclass, replace

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import (
    DIO,
    DescentSettings,
    Displacement,
    Intensity,
    MindSSC,
    Prompts,
    PromptWeights,
    Regularisers,
    StopRule,
    register_pair,
)
from triton_reg.displacement import jacobian_determinant
from triton_reg.losses import roughness
from triton_reg.methods.dio_prompts import KeypointForce, LabelForce
from triton_reg.methods.dio_refinement import refined
from triton_reg.methods.level_grids import LevelGrid, between, placement_on
from triton_reg.methods.parametrisations import Linear, Spline
from triton_reg.ops.advance import Moments
from triton_reg.ops.blocks import block_means
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.sampling import positions_of
from triton_reg.ops.warp import warp

SHAPE = (24, 28, 30)
QUICK = DIO(iterations=(60, 40, 20))
PAIR = torch.zeros(1, 2, dtype=torch.int32)


def textured(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return 100 * smooth_volume(shape, seed)[0, 0]


def bent(seed: int, size: float = 2.0) -> tuple[Tensor, Tensor]:
    """A volume, and it where a smooth displacement moves it."""
    volume = textured(seed)
    pattern = torch.cat([smooth_volume(SHAPE, seed + axis) - 0.5 for axis in range(1, 4)], dim=1)
    vectors = size * pattern / pattern.abs().amax()
    return volume, warp(volume[None, None], vectors, padding="border")[0, 0]


def unlike(fixed: Tensor, moving: Tensor, displacement: Displacement) -> float:
    warped = displacement.warp(moving[None, None], padding="border")[0, 0]
    return ((warped - fixed)[4:-4, 4:-4, 4:-4]).square().mean().item()


@pytest.mark.parametrize("transform", ["freeform", "diffeomorphic", "svf", "bspline"])
def test_each_transform_undoes_a_bend(transform: str) -> None:
    fixed, moving = bent(11)
    method = replace(QUICK, transform=transform, spline_spacing=3.0)
    found = register_pair(method, fixed, moving).displacement
    still = Displacement(torch.zeros(1, 3, *SHAPE), SHAPE, SHAPE)
    share = 0.5 if transform == "bspline" else 0.3  # a spline has fewer parameters
    assert unlike(fixed, moving, found) <= share * unlike(fixed, moving, still)
    if transform in ("diffeomorphic", "svf"):
        assert jacobian_determinant(found.full()).min() > 0


@pytest.mark.parametrize("kind", ["affine", "rigid"])
def test_linear_maps_are_found_and_exact_between_their_corners(kind: str) -> None:
    turn = torch.tensor([[0.0, -0.06, 0.03], [0.06, 0.0, -0.02], [-0.03, 0.02, 0.0]])
    if kind == "affine":
        turn = turn + torch.diag(torch.tensor([0.05, -0.04, 0.03]))
    linear = torch.linalg.matrix_exp(turn)
    center = (torch.tensor(SHAPE) - 1) / 2
    shift = center - linear @ center + torch.tensor([1.0, -0.7, 0.4])
    truth = affine_vectors(linear, shift)
    # the moving volume is the fixed one where the inverse map leads
    inverse = torch.linalg.inv(linear)
    back = affine_vectors(inverse, -inverse @ shift)
    fixed = textured(5) * vignette()
    moving = warp(fixed[None, None], back, padding="border")[0, 0]
    method = DIO(transform=kind, loss="mse", iterations=(150, 100, 60))
    found = register_pair(method, fixed, moving).displacement
    assert found.vectors.shape == (1, 3, 2, 2, 2)
    error = (found.full() - truth)[..., 3:-3, 3:-3, 3:-3].norm(dim=1)
    assert error.mean() <= 0.15


def vignette() -> Tensor:
    """1 in the middle, 0 at the faces, so that nothing is cut off."""
    axes = [torch.hann_window(size, periodic=False).sqrt() for size in SHAPE]
    return axes[0].view(-1, 1, 1) * axes[1].view(-1, 1) * axes[2]


def affine_vectors(linear: Tensor, shift: Tensor) -> Tensor:
    axes = [torch.arange(size).float() for size in SHAPE]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    return (linear @ voxels + shift[:, None] - voxels).view(1, 3, *SHAPE)


def test_a_linear_map_goes_first_and_is_composed() -> None:
    fixed = textured(7)
    moving = torch.roll(fixed, (3, -3, 3), dims=(0, 1, 2))
    short = DIO(loss="mse", iterations=(10, 5, 3))
    alone = register_pair(short, fixed, moving).displacement
    both = register_pair(replace(short, first="affine", iterations=(60, 30, 10)), fixed, moving)
    assert unlike(fixed, moving, both.displacement) < unlike(fixed, moving, alone)
    assert both.extras["iterations"].shape == (1, 6)


def test_sizes_may_differ() -> None:
    fixed = textured(8)
    shape = (30, 28, 25)
    moving = torch.nn.functional.interpolate(
        fixed[None, None], shape, mode="trilinear", align_corners=True
    )[0, 0]
    result = register_pair(replace(QUICK, loss="mse"), fixed, moving)
    assert result.displacement.moving_shape == shape
    # corner voxels lie on corner voxels already
    assert result.displacement.full()[..., 3:-3, 3:-3, 3:-3].abs().mean() <= 0.2


@pytest.mark.parametrize("name", ["diffusion", "bending", "total_variation", "jacobian"])
def test_regularisers_have_the_gradient_of_their_loss(name: str) -> None:
    vectors = torch.randn(2, 3, 5, 6, 7, generator=torch.Generator().manual_seed(1)).double()
    terms = Regularisers(**{name: 2.0})
    found = terms.force((1.0, 1.0, 2.0))
    assert found is not None
    active = torch.tensor([True, False])
    loss, gradient = found(vectors, active)
    assert loss[0] > 0
    assert loss[1] == 0
    assert not gradient[1].any()
    step = 1e-6 * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2)).double()
    ahead, behind = (terms.loss(vectors + sign * step, (1.0, 1.0, 2.0))[0] for sign in (1, -1))
    assert (ahead - behind).item() / 2 == pytest.approx(
        (gradient[0] * step[0]).sum().item(), rel=1e-4
    )


def test_regularisers_smooth() -> None:
    fixed, moving = textured(1), textured(2)
    method = replace(QUICK, loss="mse", transform="freeform")
    plain, smooth = (
        register_pair(one, fixed, moving).displacement.full()
        for one in (method, replace(method, regularisers=Regularisers(diffusion=1.0)))
    )
    assert roughness(smooth) < 0.5 * roughness(plain)
    assert Regularisers().force((1.0, 1.0, 1.0)) is None


def test_prompted_labels_and_keypoints_pull() -> None:
    flat = torch.zeros(SHAPE)
    labels = torch.zeros(1, 1, *SHAPE, dtype=torch.int32)
    labels[..., 8:16, 10:18, 10:20] = 4
    moved = torch.roll(labels, 3, dims=2)
    method = replace(QUICK, loss="mse")
    features = [method.prepare(flat[None, None], torch.ones_like(flat)[None, None])] * 2
    prompts = Prompts(fixed_labels=labels, moving_labels=moved)
    found = method.register(*features, PAIR, prompts).displacement
    warped = found.warp(moved.float(), interpolation="nearest").int()
    overlap = (
        2 * ((warped == 4) & (labels == 4)).sum() / ((warped == 4).sum() + (labels == 4).sum())
    )
    assert overlap >= 0.9
    points = torch.tensor([[[12.0, 14.0, 15.0], [torch.nan] * 3]])
    there = points + torch.tensor([2.0, 0.0, -1.5])
    prompts = Prompts(fixed_keypoints=points, moving_keypoints=there)
    found = method.register(*features, PAIR, prompts).displacement.full()
    assert (found[0, :, 12, 14, 15] - torch.tensor([2.0, 0.0, -1.5])).norm() <= 0.5


@pytest.mark.parametrize("factor", [1, 2])
def test_prompt_forces_have_the_gradient_of_their_loss(factor: int) -> None:
    level = LevelGrid.over(SHAPE, factor)
    matrix = torch.eye(3, 4)[None]
    place = placement_on(matrix, level)
    vectors = 0.3 * torch.randn(1, 3, *level.shape, generator=torch.Generator().manual_seed(3))
    active = torch.ones(1, dtype=torch.bool)
    labels = torch.zeros(1, 1, *SHAPE, dtype=torch.int32)
    labels[..., 8:16, 10:18, 10:20] = 1
    prompts = Prompts(fixed_labels=labels, moving_labels=torch.roll(labels, 2, dims=3))
    force = LabelForce(prompts, level, place, 1.0)
    loss, gradient = force(vectors, active)
    assert loss > 0
    # the symmetric derivative of samples is not that of the loss to the last digit
    step = -0.01 * gradient / gradient.abs().max()
    change = (force(vectors + step, active).loss - loss).item()
    assert change == pytest.approx((gradient * step).sum().item(), rel=0.3)
    points = torch.tensor([[[12.0, 14.0, 15.0]]])
    prompts = Prompts(fixed_keypoints=points, moving_keypoints=points + 2)
    pull = KeypointForce(prompts, level, place, (1.0, 1.0, 1.0), PromptWeights())
    loss, gradient = pull(torch.zeros_like(vectors), active)
    assert loss.item() == pytest.approx(12.0, rel=1e-5)
    assert (gradient <= 0).all()  # against it lies the way
    torch.testing.assert_close(gradient.sum((2, 3, 4)), torch.full((1, 3), -4.0 * factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("transform", ["freeform", "diffeomorphic", "svf", "bspline", "affine"])
def test_a_displacement_refuses_to_be_differentiated(transform: str, dtype: torch.dtype) -> None:
    shape = (6, 7, 8)
    fixed, moving = (smooth_volume(shape, seed)[0, 0].to(dtype) for seed in (1, 2))
    quick = DIO(transform=transform, levels=(2, 1), iterations=(2, 2), masked=True)  # type: ignore[arg-type]
    expected = register_pair(quick, fixed, moving).displacement.vectors
    found = register_pair(quick, fixed, moving.requires_grad_()).displacement
    assert torch.equal(found.vectors, expected)
    warped = found.warp(moving[None, None])
    with pytest.raises(RuntimeError, match=r"DIO.register has no .* implicit_function"):
        warped.square().mean().backward()
    with torch.no_grad():
        assert not register_pair(quick, fixed, moving).displacement.vectors.requires_grad


def test_a_pair_stops_by_itself_and_says_why() -> None:
    fixed, moving = bent(21)
    patient = replace(QUICK, descent=DescentSettings(rule=StopRule(tolerance=-1.0)))
    assert register_pair(patient, fixed, moving).extras["converged"].tolist() == [[False] * 3]
    rushed = replace(QUICK, descent=DescentSettings(rule=StopRule(tolerance=1.0, patience=2)))
    extras = register_pair(rushed, fixed, moving).extras
    assert extras["converged"].all()
    assert extras["iterations"].tolist() == [[3, 3, 3]]  # the first always counts as progress
    assert (extras["gradient_ratio"] > 0).all()


def test_where_torch_sums_pairs_are_solved_one_by_one_on_a_gpu() -> None:
    card, host = torch.device("cuda"), torch.device("cpu")
    together = QUICK.pairs_at_once(card)
    assert together > 1 == QUICK.pairs_at_once(host)
    assert replace(QUICK, transform="freeform").pairs_at_once(card) == together
    for other in (
        replace(QUICK, transform="svf"),
        replace(QUICK, first="affine"),
        replace(QUICK, regularisers=Regularisers(bending=0.1)),
        replace(QUICK, diagnose=True),
    ):
        assert other.pairs_at_once(card) == 1


def test_outside_the_masks_nothing_is_compared() -> None:
    fixed = textured(3)
    moving = torch.roll(fixed, (2, -1, 1), dims=(0, 1, 2))
    mask = torch.ones(1, 1, *SHAPE)
    mask[..., 8:16, 9:18, 9:20] = 0
    spoiled = torch.where(mask[0, 0] > 0, fixed, 300.0)
    method = replace(QUICK, features=Intensity(window=(0.0, 300.0)), loss="mse", masked=True)
    features = (
        method.prepare(spoiled[None, None], mask),
        method.prepare(moving[None, None], torch.ones_like(mask)),
    )
    found = method.register(*features, PAIR).displacement.full()[0, :, 4:-4, 4:-4, 4:-4]
    error = (found - torch.tensor([2.0, -1.0, 1.0]).view(3, 1, 1, 1)).norm(dim=0)
    assert error.mean() <= 0.5


def test_steps_and_smoothing_are_the_same_in_mm() -> None:
    level = LevelGrid.over(SHAPE, 2)
    step = DescentSettings().step("diffeomorphic", level, (1.0, 1.0, 2.0), "mse")
    assert step.unit == (1.0, 1.0, 0.5)
    assert step.gradient_sigmas == (0.5, 0.5, 0.25)
    assert step.vector_sigmas == (0.3, 0.3, 0.15)


@dataclass(frozen=True)
class Times:
    """The volume, so many times."""

    size: float

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        return volume * self.size


@pytest.mark.parametrize("transform", ["freeform", "diffeomorphic", "bspline", "affine"])
def test_the_amplitude_of_features_changes_nothing(transform: str) -> None:
    fixed, moving = bent(17)
    found = []
    for size in (0.001, 10.0):
        method = replace(QUICK, features=Times(size), transform=transform, loss="mse")
        found.append(register_pair(method, fixed, moving).displacement.full())
    assert torch.allclose(*found, atol=1e-3)


def test_flat_features_move_nothing() -> None:
    flat = torch.full(SHAPE, 7.0)
    method = DIO(loss="mse", iterations=(4, 4, 4))
    assert register_pair(method, flat, flat).displacement.vectors.eq(0).all()


def test_moments_of_a_level_are_as_large_as_gradients_of_the_next() -> None:
    ramp = torch.arange(16.0).view(1, 1, 16, 1, 1).expand(1, 1, 16, 8, 12)
    grids = [LevelGrid.over((16, 8, 12), factor) for factor in (2, 1)]
    gradients = []
    for grid in grids:
        level = block_means(ramp, grid.factor)
        placement = placement_on(torch.eye(3, 4)[None], grid)
        still = torch.zeros(1, 3, *grid.shape)
        gradients.append(
            feature_force(level, level + 1, still, placement, ForceSettings()).gradient
        )
    moments = Moments(gradients[0], gradients[0].square(), torch.ones(1, dtype=torch.int32))
    still = torch.zeros_like(gradients[0])
    _, carried = refined(still, moments, *grids, "voxel")
    first, second, wanted = (one[:, 0, 4:-4, 2:-2, 2:-2] for one in (*carried[:2], gradients[1]))
    assert torch.allclose(first, wanted, rtol=1e-4)
    assert torch.allclose(second, wanted.square(), rtol=1e-4)
    _, published = refined(still, moments, *grids, "published")
    assert published.first.amax() == gradients[0].amax()


def test_intensity_steps_follow_the_intensity_gradient_and_features_need_not() -> None:
    fixed, moving = bent(31)
    for features, least, most in ((Intensity(), 0.999, 1.001), (MindSSC(), 0.2, 0.9)):
        method = replace(QUICK, features=features, loss="mse", diagnose=True)
        cosine = register_pair(method, fixed, moving).extras["step_cosine"]
        assert cosine.shape == (1, 3)
        assert ((cosine >= least) & (cosine <= most)).all()


def test_levels_are_blocks_of_the_volume() -> None:
    ramp = torch.arange(7.0).view(1, 1, 7, 1, 1).expand(1, 1, 7, 5, 6)
    coarse, whole = LevelGrid.over((7, 5, 6), 2), LevelGrid.over((7, 5, 6), 1)
    means = block_means(ramp, 2)
    assert means.shape == (1, 1, 4, 3, 3)
    assert means[0, 0, :, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.0]
    up = between(means, coarse, whole)
    assert up.shape == ramp.shape
    assert torch.allclose(up[0, 0, 1:5], ramp[0, 0, 1:5])
    # a shift of two voxels is one of a voxel of the level, wherever it is looked at
    matrix = torch.eye(3, 4)[None]
    matrix[:, 0, 3] = 2
    where = positions_of(torch.zeros(1, 3, *coarse.shape), placement_on(matrix, coarse))
    assert torch.allclose(where[0, 0, :, 0, 0], torch.arange(4.0) + 1)


def test_a_spline_reproduces_linear_fields_on_every_level() -> None:
    for factor in (1, 2, 4):
        spline = Spline(LevelGrid.over(SHAPE, factor), (6.0, 6.0, 6.0))
        count = spline.control_shape(SHAPE)
        control = (torch.arange(count[0]) - 1) * 6.0  # where control points lie
        parameters = torch.zeros(1, 3, *count)
        parameters[:, 0] = control.view(-1, 1, 1)
        found = spline.vectors(parameters)[0, 0, :, 0, 0]
        centres = torch.arange(spline.level.shape[0]) * factor + spline.level.offset
        assert torch.allclose(found, centres / factor, atol=1e-4)


def test_a_rigid_map_keeps_lengths_in_mm() -> None:
    level, voxel = LevelGrid.over(SHAPE, 1), (1.0, 1.0, 2.0)
    rigid = Linear(level, SHAPE, "rigid", voxel)
    matrix = rigid.matrix(torch.randn(1, 3, 2, 1, 1))[0, :, :3]
    size = torch.tensor(voxel)
    in_mm = matrix * size[:, None] / size
    assert torch.allclose(in_mm @ in_mm.T, torch.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DIO(transform="geodesic"), "transform must be one of freeform.*'geodesic'"),
        (lambda: DIO(iterations=(10, 10)), r"iterations for each of the levels \(4, 2, 1\)"),
        (lambda: DIO(levels=(4, 3, 1)), r"coarsest first, got \(4, 3, 1\)"),
        (lambda: DIO(loss="ncc"), "loss must be mse or lncc, got 'ncc'"),
        (lambda: DIO(window=4), "window must be odd and >= 3, got 4"),
        (lambda: DescentSettings(rate=0.0), "rate must be positive, got 0.0"),
        (lambda: DescentSettings(vector_sigma=-1.0), "sigmas must not be negative"),
        (lambda: Regularisers(bending=-1.0), "weights must not be negative"),
        (
            lambda: register_pair(
                replace(DIO.published(), transform="svf"), textured(0), textured(1)
            ),
            "units='published' knows no svf",
        ),
    ],
)  # fmt: skip
def test_messages_say_what_was_got(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
