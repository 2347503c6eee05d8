from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from triton_reg import AffineSettings, PlacedVolume, register_affine
from triton_reg.affine.costs import COSTS, lncc_cost, ncc_cost
from triton_reg.affine.optimise import Descent, descend
from triton_reg.affine.parameters import DEGREES_OF_FREEDOM, AffineParameters, rotation_of
from triton_reg.affine.placed import at_level
from triton_reg.affine.sampling import FixedPoints, MovingVolumes
from triton_reg.affine.starts import center_of_mass, starts_of

# centres, half axes (both mm) and heights of ellipsoids with soft edges, without any symmetry
BLOBS = (
    ((0.0, 0.0, 0.0), (36.0, 30.0, 24.0), 1.0),
    ((18.0, 8.0, -6.0), (9.0, 12.0, 8.0), 0.9),
    ((-16.0, -10.0, 6.0), (12.0, 8.0, 10.0), 0.6),
    ((-4.0, 14.0, 6.0), (8.0, 8.0, 12.0), -0.7),
)
CENTER = torch.tensor([[4.0, -3.0, 2.0]], dtype=torch.float64)


def phantom(points_mm: Tensor) -> Tensor:
    """The value of a smooth body at world positions ``[..., 3]``."""
    value = torch.zeros_like(points_mm[..., 0])
    for center, width, height in BLOBS:
        away = (points_mm - points_mm.new_tensor(center)) / points_mm.new_tensor(width)
        value += height * torch.sigmoid(8 * (1 - away.norm(dim=-1)))
    return 100 * value


def scan(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    to_body: Tensor | None = None,
    look: Callable[[Tensor], Tensor] = phantom,
) -> PlacedVolume:
    """The body on a grid around the origin; ``to_body [4, 4]`` leads from the world to it."""
    affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64))
    affine[:3, 3] = -affine[:3, :3] @ (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    voxels = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), dim=-1).double()
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    if to_body is not None:
        world = world @ to_body[:3, :3].T + to_body[:3, 3]
    return PlacedVolume(look(world).float(), affine)


def motion(transform: str, size: float = 1.0) -> Tensor:
    """A fixed-to-moving matrix ``[4, 4]`` with all that ``transform`` has."""
    step = size * torch.tensor(
        [[0.1, -0.15, 0.2, 6.0, -5.0, 4.0, 0.06, 0.06, 0.06, 0.04, -0.05, 0.03]],
        dtype=torch.float64,
    )
    if transform in ("scaling", "affine"):
        step[:, 6:9] = size * torch.tensor([0.06, -0.05, 0.03])
    identity = torch.eye(3, dtype=torch.float64)[None]
    start = AffineParameters.rigid(identity, torch.zeros_like(CENTER))
    return start.stepped(step[:, : DEGREES_OF_FREEDOM[transform]], transform).matrix(CENTER)[0]  # type: ignore[index, arg-type]


FIXED = scan((50, 44, 40), (2.0, 2.0, 2.0))


def moved(transform: str) -> tuple[PlacedVolume, Tensor]:
    """The fixed body elsewhere, on another grid; and the matrix that leads there."""
    matrix = motion(transform)
    return scan((44, 50, 24), (2.5, 2.0, 3.5), torch.linalg.inv(matrix)), matrix


def distance_mm(found: Tensor, wanted: Tensor) -> float:
    """How far apart two matrices send points of the body, at most."""
    points = torch.cartesian_prod(*[torch.tensor([-25.0, 0.0, 25.0], dtype=torch.float64)] * 3)
    change = found - wanted
    return float((points @ change[:3, :3].T + change[:3, 3]).norm(dim=1).max())


@pytest.mark.parametrize("transform", DEGREES_OF_FREEDOM)
def test_a_known_transform_is_found_between_grids_of_other_shape_and_spacing(transform):
    moving, matrix = moved(transform)
    found = register_affine([FIXED], [moving], AffineSettings(transform=transform))
    assert distance_mm(found.matrices[0], matrix) < 0.3
    assert found.accepted.item()
    assert found.score_end > found.score_start
    assert found.score_end > 0.995


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost_finds_the_transform(cost):
    moving, matrix = moved("rigid")
    found = register_affine([FIXED], [moving], AffineSettings(transform="rigid", cost=cost))
    assert distance_mm(found.matrices[0], matrix) < 1.0


def test_mutual_information_sees_through_another_contrast():
    matrix = motion("rigid")
    bent = scan(
        (48, 44, 40),
        (2.0, 2.0, 2.0),
        torch.linalg.inv(matrix),
        lambda points: (phantom(points) - 60) ** 2,
    )
    settings = AffineSettings(transform="rigid", cost="mi")
    found = register_affine([FIXED], [bent], settings)
    assert distance_mm(found.matrices[0], matrix) < 2.0


def test_gain_offset_and_another_orientation_of_the_axes_change_nothing():
    moving, matrix = moved("rigid")
    turned = moving.affine @ torch.tensor(
        [[0, 0, -1, moving.volume.shape[0] - 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
        dtype=torch.float64,
    )
    volume = 3 * moving.volume.flip(0).permute(1, 2, 0) - 500
    found = register_affine(
        [FIXED], [PlacedVolume(volume, turned)], AffineSettings(transform="rigid")
    )
    assert distance_mm(found.matrices[0], matrix) < 0.3


def test_a_batch_gives_what_each_pair_gives_alone():
    movings = [moved("rigid")[0], moved("affine")[0]]
    fixeds = [FIXED, scan((30, 36, 40), (3.0, 2.5, 2.0))]
    together = register_affine(fixeds, movings)
    for row, (fixed, moving) in enumerate(zip(fixeds, movings, strict=True)):
        alone = register_affine([fixed], [moving])
        assert torch.equal(together.matrices[row], alone.matrices[0])
        assert together.starts[row] == alone.starts[0]
        assert together.iterations[row] == alone.iterations[0]


@pytest.mark.parametrize("limit", [3000, None])
def test_pairs_in_one_tensor_do_not_see_each_other(limit):
    fixeds = [FIXED, scan((30, 36, 40), (3.0, 2.5, 2.0))]
    movings = [moved("rigid")[0], moved("affine")[0]]
    levels = [at_level(fixed, 6.0) for fixed in fixeds]
    moving_levels = [at_level(moving, 6.0) for moving in movings]
    centers = torch.stack([center_of_mass(level) for level in levels])
    eye = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    descent = Descent("ncc" if limit else "lncc", "affine", 6.0, 12)

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        points = FixedPoints.of(levels[rows], centers[rows], limit)
        start = AffineParameters.rigid(eye[rows], torch.zeros_like(centers[rows]))
        volumes = MovingVolumes.of(moving_levels[rows])
        with torch.no_grad():
            parameters, tried = descend(points, volumes, start, descent)
        return parameters.matrix(centers[rows]), tried

    together, tried = run(slice(0, 2))
    for row in range(2):
        alone, alone_tried = run(slice(row, row + 1))
        assert distance_mm(together[row], alone[0]) < 0.02
        assert abs(int(tried[row] - alone_tried[0])) <= 1


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_what_lies_outside_of_a_mask_does_not_count(side):
    moving, matrix = moved("rigid")
    kept = FIXED if side == "fixed" else moving
    spoilt, mask = kept.volume.clone(), torch.ones_like(kept.volume)
    spoilt[:, :, -4:] += 200
    mask[:, :, -7:] = 0
    found = []
    for seen in (mask, None):
        changed = PlacedVolume(spoilt, kept.affine, seen)
        pair = (changed, moving) if side == "fixed" else (FIXED, changed)
        result = register_affine([pair[0]], [pair[1]], AffineSettings(transform="rigid"))
        found.append(distance_mm(result.matrices[0], matrix))
    assert found[0] < 1.0
    assert found[1] > 2 * found[0]


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        PlacedVolume(FIXED.volume, FIXED.affine, torch.zeros_like(FIXED.volume))


def test_a_start_that_cannot_be_improved_is_kept():
    settings = AffineSettings(iterations=0)
    moving, _ = moved("rigid")
    found = register_affine([FIXED], [moving], settings)
    assert not found.accepted.item()
    assert found.score_end == found.score_start
    assert found.iterations.item() == 0
    # the start that is kept does not stretch anything
    torch.testing.assert_close(
        found.matrices[0, :3, :3] @ found.matrices[0, :3, :3].T, torch.eye(3, dtype=torch.float64)
    )


def test_a_volume_on_itself_stays_where_it_is():
    found = register_affine([FIXED], [FIXED])
    assert found.starts == ("header",)
    assert distance_mm(found.matrices[0], torch.eye(4, dtype=torch.float64)) < 0.05


def test_principal_axes_turn_a_body_that_lies_on_its_side():
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = rotation_of(torch.tensor([[0.0, 0.0, 1.9]], dtype=torch.float64))[0]
    moving = scan((52, 56, 40), (2.0, 2.0, 2.0), torch.linalg.inv(turn))
    found = register_affine([FIXED], [moving], AffineSettings(transform="rigid"))
    assert found.starts[0].startswith("axes")
    assert distance_mm(found.matrices[0], turn) < 0.3


def test_the_search_starts_from_rotations_about_each_axis():
    level = at_level(FIXED, 8.0)
    starts = starts_of(level, level, 30.0)
    assert len(starts) == 6 + 5**3 - 1
    turned = starts["rotation 0,0,30"].rotation[0]
    wanted = rotation_of(torch.deg2rad(torch.tensor([[0.0, 0.0, 30.0]], dtype=torch.float64)))[0]
    torch.testing.assert_close(turned, wanted)
    for start in starts.values():
        assert torch.linalg.det(start.rotation[0]) == pytest.approx(1)


def test_search_finds_a_turn_that_the_axes_of_a_ball_do_not_show():
    def ball(points: Tensor) -> Tensor:
        # spread alike along all axes: marks at equal distances on a sphere
        value = 100 * torch.exp(-0.5 * ((points.norm(dim=-1) / 26) ** 4))
        for axis in range(3):
            for sign, height in ((1, 30 + 15 * axis), (-1, 30 + 15 * axis)):
                center = torch.zeros(3, dtype=torch.float64)
                center[axis] = sign * 18.0
                value += height * torch.exp(-0.5 * ((points - center).norm(dim=-1) / 5) ** 2)
        return value

    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = rotation_of(torch.tensor([[0.5, -0.4, 0.45]], dtype=torch.float64))[0]
    fixed = scan((40, 40, 40), (2.0, 2.0, 2.0), look=ball)
    moving = scan((40, 40, 40), (2.0, 2.0, 2.0), torch.linalg.inv(turn), ball)
    settings = AffineSettings(transform="rigid", search_degrees=45)
    found = register_affine([fixed], [moving], settings)
    assert distance_mm(found.matrices[0], turn) < 0.5


@pytest.mark.parametrize("transform", DEGREES_OF_FREEDOM)
def test_the_derivative_of_the_parameters_is_that_of_a_small_step(transform):
    start = AffineParameters.rigid(
        rotation_of(torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)),
        torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64),
    ).stepped(torch.full((1, 12), 0.1, dtype=torch.float64), "affine")
    derivative = start.derivative(transform)
    for index in range(DEGREES_OF_FREEDOM[transform]):
        step = torch.zeros(1, DEGREES_OF_FREEDOM[transform], dtype=torch.float64)
        step[0, index] = 1e-6
        ahead, behind = start.stepped(step, transform), start.stepped(-step, transform)
        linear = ((ahead.linear() - behind.linear()) / 2e-6).flatten()
        shift = ((ahead.translation_mm - behind.translation_mm) / 2e-6)[0]
        torch.testing.assert_close(
            derivative[0, :, index], torch.cat([linear, shift]), atol=1e-8, rtol=1e-6
        )


def test_parameters_are_millimetres_and_radians_about_the_center():
    parameters = AffineParameters.rigid(
        rotation_of(torch.tensor([[0.0, 0.0, torch.pi / 2]], dtype=torch.float64)),
        torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
    )
    matrix = parameters.matrix(CENTER)[0]
    at_center = matrix[:3, :3] @ CENTER[0] + matrix[:3, 3]
    torch.testing.assert_close(at_center, CENTER[0] + parameters.translation_mm[0])
    beside = matrix[:3, :3] @ (CENTER[0] + CENTER.new_tensor([1.0, 0, 0])) + matrix[:3, 3]
    torch.testing.assert_close(beside - at_center, CENTER.new_tensor([0.0, 1.0, 0.0]))


def test_costs_prefer_equal_values_and_leave_out_what_has_no_weight():
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand(1, 6 * 7 * 5, generator=generator)
    other = torch.rand(1, 6 * 7 * 5, generator=generator)
    weights = torch.ones_like(fixed)
    weights[:, :30] = 0
    spoilt = fixed.clone()
    spoilt[:, :30] = other[:, :30]
    for cost in COSTS.values():
        same, unlike = (cost(fixed, values, weights, (6, 7, 5)) for values in (fixed, other))
        assert (same < unlike).all()
        torch.testing.assert_close(cost(fixed, spoilt, weights, (6, 7, 5)), same)


def test_ncc_is_that_of_numpy():
    fixed, warped = torch.rand(2, 50, generator=torch.Generator().manual_seed(1))
    wanted = 1 - torch.corrcoef(torch.stack([fixed, warped]))[0, 1]
    found = ncc_cost(fixed[None], warped[None], torch.ones(1, 50))
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=1e-5)


def test_a_level_keeps_world_positions():
    level = at_level(FIXED, 8.0)
    assert level.affine[:3, :3].diagonal().tolist() == [8.0, 8.0, 8.0]
    voxels = torch.stack(
        torch.meshgrid(*map(torch.arange, level.values.shape), indexing="ij"), dim=-1
    ).double()
    values = phantom(voxels @ level.affine[:3, :3].T + level.affine[:3, 3])
    seen = torch.corrcoef(torch.stack([values.flatten().float(), level.values.flatten()]))[0, 1]
    assert seen > 0.97


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"as many fixed as moving volumes, .* got 1 and 2"):
        register_affine([FIXED], [FIXED, FIXED])
    with pytest.raises(ValueError, match=r"volume must be \[D, H, W\], got \[4, 4\]"):
        PlacedVolume(torch.eye(4), torch.eye(4))
    with pytest.raises(ValueError, match="affine must be invertible"):
        PlacedVolume(FIXED.volume, torch.zeros(4, 4))
    with pytest.raises(ValueError, match="mask must have the volume's shape"):
        PlacedVolume(FIXED.volume, FIXED.affine, torch.ones(2, 2, 2))
    with pytest.raises(ValueError, match="needs the shape"):
        lncc_cost(torch.ones(1, 8), torch.ones(1, 8), torch.ones(1, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transform": "elastic"}, "transform must be one of rigid, .* got 'elastic'"),
        ({"cost": "ssd"}, "cost must be one of ncc"),
        ({"spacings_mm": ()}, "one or more mm above 0"),
        ({"spacings_mm": (4.0, 0.0)}, "one or more mm above 0"),
        ({"iterations": -1}, "iterations must be at least 0"),
        ({"search_degrees": 200}, "from 0 to 180"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AffineSettings(**settings)
