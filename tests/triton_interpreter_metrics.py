"""The Triton kernels of the measures against their plain-torch definitions, in the interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

from collections.abc import Callable

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor
from triton_oracle import batch, poisoned_memory, surrounded, vectors

from triton_reg import Displacement
from triton_reg.metrics import deformation, jacobian, label_surfaces, overlap, similarity, surface
from triton_reg.metrics.label_surfaces import Surfaces
from triton_reg.ops._triton import deformation as deformation_kernels
from triton_reg.ops._triton import jacobian as jacobian_kernels
from triton_reg.ops._triton import overlap as overlap_kernels
from triton_reg.ops._triton import similarity as similarity_kernels
from triton_reg.ops._triton import surface as surface_kernels
from triton_reg.ops._triton import surface_distances as distance_kernels
from triton_reg.ops.distance_transform import Spacing
from triton_reg.ops.resize import Shape

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

SHAPES = [(5, 5, 5), (7, 9, 6)]
SPACINGS = [(2.0, 2.0, 2.0), (1.5, 0.7, 3.0)]


def random_labels(shape: Shape, most: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(most, (1, 1, *shape), generator=generator).to(dtype)


def folded(shape: Shape) -> Tensor:
    """A smooth displacement, and one that folds."""
    noise = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(4))
    return surrounded(torch.cat([vectors(shape, 0.5, 1, 0), 2 * noise]))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sweeps for the labels, and several blocks for a program."""
    monkeypatch.setattr(overlap_kernels, "_WINDOW", 32)
    monkeypatch.setattr(overlap_kernels, "_BLOCK", 64)
    monkeypatch.setattr(overlap_kernels, "_PROGRAMS", 2)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("moving_shape", [(5, 6, 7), (4, 1, 9)])
def test_warped_overlap_is_the_definition(moving_shape: Shape, dtype: torch.dtype) -> None:
    fixed, moving = (
        random_labels((5, 6, 7), 40, dtype, 0),
        random_labels(moving_shape, 90, dtype, 1),
    )
    displacement = Displacement(vectors((5, 6, 7), 3.0, 1, 2), (5, 6, 7), moving_shape)
    found = overlap._label_counts_cuda(fixed, moving, 100, displacement.vectors[0])
    expected = overlap.warped_label_counts_reference(fixed, moving, displacement, 100)
    assert found[:2].sum(1).tolist() == [fixed.numel()] * 2
    assert torch.equal(found, expected)
    # values that lie beyond are left out, so that the caller sees them missing
    fewer = overlap._label_counts_cuda(fixed, moving, 37, displacement.vectors[0])
    assert torch.equal(fewer, expected[:, :37])


@pytest.mark.usefixtures("small_windows")
def test_overlap_is_the_definition() -> None:
    maps = [random_labels((4, 9, 5), 70, torch.int32, seed) for seed in (0, 1)]
    maps[0][0, 0, 0] = maps[1][0, 0, 0]
    found = overlap._label_counts_cuda(maps[0], maps[1], 99)
    assert torch.equal(found, overlap.label_counts_reference(maps[0], maps[1], 99))
    assert found[2].sum() >= 45


@pytest.mark.usefixtures("small_windows")
def test_what_leads_nowhere_has_no_label() -> None:
    labels = torch.full((1, 1, 3, 4, 5), 7, dtype=torch.int32)
    shifts = torch.zeros(3, 3, 4, 5)
    shifts[0, 0, 0, 0], shifts[1, 0, 0, 1], shifts[2, 0, 0, 2] = torch.nan, torch.inf, -1e9
    found = overlap._label_counts_cuda(labels, labels, 8, shifts)
    assert found[:, 0].tolist() == [0, 3, 0]
    assert found[:, 7].tolist() == [60, 57, 57]


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_measures_are_the_definition(
    shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jacobian_kernels, "_BLOCK", 16)
    given = folded(shape)
    found = jacobian._jacobian_measures_cuda(given)
    assert torch.equal(found.folding, jacobian.jacobian_measures_reference(given).folding)
    expected = jacobian.jacobian_measures_reference(given.double())
    torch.testing.assert_close(found.sdlogj, expected.sdlogj, rtol=1e-5, atol=1e-6)
    assert found.folding[1] > 0
    again = jacobian._jacobian_measures_cuda(given[1:])
    assert torch.equal(torch.stack(again), torch.stack(found)[:, 1:])


def test_jacobian_measures_of_nothing_and_of_nan() -> None:
    given = torch.zeros(2, 3, 6, 5, 7)
    given[1, 1, 3, 2, 3] = torch.nan
    found = jacobian._jacobian_measures_cuda(given)
    assert found.folding.tolist() == [0, 0]
    assert found.sdlogj[0] == 0
    assert found.sdlogj[1].isnan()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_deformation_measures_are_the_definition(
    shape: Shape, spacing: Spacing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jacobian_kernels, "_BLOCK", 64)
    monkeypatch.setattr(deformation_kernels, "_BLOCK", 64)
    given = folded(shape)
    found = deformation._deformation_measures_cuda(given, spacing)
    expected = deformation.deformation_measures_reference(given.double(), spacing)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
    assert found.ndv[1] > 0.01
    again = deformation._deformation_measures_cuda(given[1:], spacing)
    assert torch.equal(torch.stack(again), torch.stack(found)[:, 1:])


def test_deformation_measures_of_nan_are_nan() -> None:
    given = torch.zeros(1, 3, 5, 6, 5)
    given[0, :, 2, 2, 2] = torch.nan
    found = deformation._deformation_measures_cuda(given, (1.0, 1.0, 1.0))
    for name in ("sdlogj_l2r", "bending_energy", "displacement_p50_mm", "displacement_max_mm"):
        assert getattr(found, name).isnan().all(), name


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_is_the_definition(
    shape: Shape, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity_kernels, "_BLOCK", 64)
    fixed, warped = (100 * batch(shape, 1, 3, seed) + offset for seed in (0, 5))
    mask = (batch(shape, 1, 3, 9) > 0.5).float()
    mask[0, 0, 0], warped[1], mask[2] = 0, 12.5, 0
    sums = similarity._correlation_sums_cuda(*(one.flatten(1) for one in (fixed, warped, mask)))
    found = similarity._of_sums(sums)
    expected = similarity.ncc_and_mse_reference(fixed.double(), warped.double(), mask)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert found[0][0].abs() > 0.05
    assert found[0][1:].tolist() == [0, 0]
    assert found[1][2] == 0


def parcels(seed: int, shape: Shape = (9, 8, 7)) -> Tensor:
    """Wavy structures that touch each other and the border; label 40 is single voxels."""
    values = (smooth_volume(shape, seed)[0, 0] * 6).long().clamp(0, 6)
    values[::5, 3, 2 + seed] = 40
    return values


@pytest.fixture
def large_surface_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays for each operation, not each lane."""
    monkeypatch.setattr(surface_kernels, "_BLOCK", 512)
    monkeypatch.setattr(distance_kernels, "_RUN", 128)


@pytest.mark.usefixtures("large_surface_blocks")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_corners_are_the_definition(dtype: torch.dtype) -> None:
    labels, structures = parcels(1).to(dtype), torch.tensor([5, 2, 40, 3, 99])
    numbers = label_surfaces._numbers(structures, 99)
    found = label_surfaces._label_surfaces_cuda(labels, numbers, structures)
    assert_same(found, label_surfaces.label_surfaces_reference(labels, structures))


def test_a_map_without_the_structures_has_no_corners() -> None:
    labels, structures = torch.ones(3, 2, 4, dtype=torch.int32), torch.tensor([2, 5])
    numbers = label_surfaces._numbers(structures, 99)
    found = label_surfaces._label_surfaces_cuda(labels, numbers, structures)
    assert_same(found, label_surfaces.label_surfaces_reference(labels, structures))
    assert len(found.corners) == 0


def assert_same(found: Surfaces, expected: Surfaces) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def surfaces(labels: Tensor, structures: Tensor) -> Surfaces:
    return label_surfaces.label_surfaces(labels, structures)


def box(*bounds: tuple[int, int]) -> Tensor:
    labels = torch.zeros(12, 12, 12, dtype=torch.int32)
    labels[tuple(slice(*one) for one in bounds)] = 3
    return labels


@pytest.mark.usefixtures("large_surface_blocks")
@pytest.mark.parametrize("blocks", [(64, 32), (16, 128)], ids=str)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "maps",
    [
        lambda: (parcels(0), parcels(1)),
        lambda: (parcels(2), parcels(2)),
        lambda: (box((2, 3), (2, 3), (2, 3)), box((9, 10), (3, 4), (11, 12))),
        lambda: (box((9, 12), (4, 5), (0, 2)), box((0, 12), (7, 8), (2, 5))),
        lambda: (box((0, 2), (0, 2), (0, 2)), torch.zeros(12, 12, 12, dtype=torch.int32)),
    ],
    ids=["parcels", "the same", "single voxels", "plates", "absent from one"],
)
def test_surface_measures_are_the_definition(
    maps: Callable[[], tuple[Tensor, Tensor]],
    spacing: Spacing,
    blocks: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distance_kernels, "_BLOCK", blocks[0])
    monkeypatch.setattr(distance_kernels, "_CHUNK", blocks[1])
    structures = torch.tensor([40, 3, 1, 99])
    fixed, warped = (surfaces(labels, structures) for labels in maps())
    found = surface._measures(fixed, warped, spacing, 1.0, surface._sums_cuda)
    expected = surface.surface_measures_reference(fixed, warped, spacing, 1.0)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True, msg=name)
    is_absent = fixed.starts.diff().bool() & warped.starts.diff().bool()
    assert torch.equal(found.hd_mm.isnan(), ~is_absent)


@pytest.mark.parametrize("is_flipped", [False, True], ids=["before", "behind"])
def test_a_near_corner_beyond_a_far_plate_is_found(
    is_flipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search leaves off where no corner can be nearer, not where the next ones are far."""
    monkeypatch.setattr(distance_kernels, "_BLOCK", 16)
    monkeypatch.setattr(distance_kernels, "_CHUNK", 8)
    # 64 corners, then those of one voxel in a block of their own
    fixed, warped = box((0, 1), (0, 7), (0, 3)), box((9, 12), (8, 12), (8, 12))
    fixed[11, 0, 0] = 3
    warped[3, :3, :3] = 3
    structures = torch.tensor([3])
    maps = [labels.flip(0) if is_flipped else labels for labels in (fixed, warped)]
    one, other = (surfaces(labels, structures) for labels in maps)
    found = surface._sums_cuda(one, other, (1.0, 1.0, 1.0), 1.0)
    expected = surface._sums_reference(one, other, (1.0, 1.0, 1.0), 1.0)
    torch.testing.assert_close(found, expected)


def test_no_structures_have_no_distances() -> None:
    nothing = surfaces(torch.zeros(3, 3, 3, dtype=torch.int32), torch.tensor([], dtype=torch.int64))
    assert surface._sums_cuda(nothing, nothing, (1.0, 1.0, 1.0), 1.0).shape == (0, 5)
