"""What methods make of volumes, settings and prompts that are unusual, or wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import (
    DIO,
    DescentSettings,
    LevelSettings,
    LocalContrast,
    MatchSettings,
    Method,
    MindSSC,
    NetworkFeatures,
    PDDNet,
    PlacedVolume,
    Pretrained,
    Prompts,
    Regularisers,
    SoftVoxelOpt,
    VoxelOpt,
    register_pair,
)
from triton_reg.displacement import Displacement
from triton_reg.features.architecture import Architecture
from triton_reg.metrics.consistency import inverse_consistency_error_mm
from triton_reg.metrics.overlap import dice
from triton_reg.metrics.similarity import mutual_information, mutual_information_reference
from triton_reg.ops.resize import resize, resize_reference
from triton_reg.training.dio_settings import DIOTrainingSettings

SHAPE = (24, 20, 22)
QUICK = DIO(iterations=(6, 4, 2))
PAIR = torch.zeros(1, 2, dtype=torch.int32)


def textured(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return 100 * smooth_volume(shape, seed)[0, 0]


def prepared(method: Method, volume: Tensor, mask: Tensor | None = None):
    mask = torch.ones_like(volume) if mask is None else mask
    return method.prepare(volume[None, None], mask[None, None])


@pytest.mark.parametrize(
    "method", [VoxelOpt(), SoftVoxelOpt(), PDDNet()], ids=["hard", "soft", "pdd"]
)
def test_subjects_of_other_sizes_are_refused(method: Method) -> None:
    fixed, moving = prepared(method, textured(0)), prepared(method, textured(1, (22, 20, 22)))
    with pytest.raises(ValueError, match="fixed and moving must share their features' shapes"):
        method.register(fixed, moving, PAIR)


@dataclass(frozen=True)
class Halved:
    """Features on a coarser grid than the volume's."""

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        return (volume * mask)[..., ::2]


COARSE = {
    "hard": VoxelOpt(features=Halved()),
    "soft": SoftVoxelOpt(voxelopt=VoxelOpt(features=Halved())),
    "dio": DIO(features=Halved()),
}


@pytest.mark.parametrize("method", COARSE.values(), ids=COARSE.keys())
def test_features_on_another_grid_are_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="features must lie on the volume's grid"):
        prepared(method, textured(0))


@pytest.mark.parametrize("method", [QUICK, PDDNet()], ids=["dio", "pdd"])
def test_prompts_are_those_of_all_pairs(method: Method) -> None:
    points = torch.full((1, 1, 3), 8.0)
    one = Prompts(fixed_keypoints=points, moving_keypoints=points)
    features = prepared(method, textured(0))
    with pytest.raises(ValueError, match="fixed_keypoints must be of 2 pairs, got 1"):
        method.register(features, features, PAIR.expand(2, 2), one)


def test_a_rigid_map_does_not_stretch_where_sizes_differ() -> None:
    ball = 100 * torch.exp(-_radius(SHAPE, (11, 9, 10)).square() / 40)
    wider = torch.nn.functional.pad(ball, (0, 0, 0, 0, 3, 3))
    found = register_pair(DIO(transform="rigid", iterations=(40, 20, 10)), ball, wider).displacement
    assert (found.warp(wider[None, None])[0, 0] - ball).abs().max() < 3
    # 3 voxels along the first axis, everywhere, beside what corners on corners would be
    moved = found.full()[0, 0] + torch.arange(24.0).view(-1, 1, 1) * (29 / 23)
    torch.testing.assert_close(moved.diff(dim=0), torch.ones(23, 20, 22), atol=0.03, rtol=0)


def _radius(shape: tuple[int, int, int], center: tuple[float, float, float]) -> Tensor:
    axes = [torch.arange(float(size)) - middle for size, middle in zip(shape, center, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)


@pytest.mark.parametrize("outside", [500.0, -500.0])
def test_keypoints_far_outside_draw_nothing(outside: float) -> None:
    points = torch.full((1, 2, 3), outside)
    told = Prompts(fixed_keypoints=points, moving_keypoints=points + 4)
    fixed, moving = (prepared(QUICK, textured(seed)) for seed in (0, 1))
    vectors = QUICK.register(fixed, moving, PAIR, told).displacement.vectors
    torch.testing.assert_close(vectors, QUICK.register(fixed, moving, PAIR).displacement.vectors)


def test_float64_volumes_take_prompts_and_networks_of_float32() -> None:
    points = torch.tensor([[[8.0, 9.0, 7.0]]])
    fixed, moving = (prepared(QUICK, textured(seed).double()) for seed in (0, 1))
    told = Prompts(fixed_keypoints=points, moving_keypoints=points + 1)
    assert QUICK.register(fixed, moving, PAIR, told).displacement.vectors.isfinite().all()
    network = NetworkFeatures(network=torch.nn.Conv3d(1, 2, 3, padding=1))
    assert prepared(VoxelOpt(features=network), textured(0).double())[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_masks_are_of_any_dtype(dtype: torch.dtype) -> None:
    mask = (_radius(SHAPE, (12, 10, 11)) < 9).to(dtype)
    method = PDDNet()
    fixed, moving = (prepared(method, textured(seed), mask) for seed in (0, 1))
    found = method.register(fixed, moving, PAIR).displacement
    target, source = (prepared(method, textured(seed), mask.float()) for seed in (0, 1))
    assert torch.equal(found.vectors, method.register(target, source, PAIR).displacement.vectors)
    still = Displacement(torch.zeros(1, 3, *SHAPE), SHAPE, SHAPE)
    error = inverse_consistency_error_mm(still, still, (1.0, 1.0, 1.0), mask[None, None])
    assert error.tolist() == [0.0]


@pytest.mark.parametrize("method", [VoxelOpt(), PDDNet(), QUICK], ids=["voxelopt", "pdd", "dio"])
def test_features_do_not_share_the_volumes_memory(method: Method) -> None:
    volume = textured(0)
    features = prepared(method, volume)
    before = [part.clone() for part in features]
    volume.zero_()
    assert all(torch.equal(part, kept) for part, kept in zip(features, before, strict=True))


@pytest.mark.parametrize("shape", [(3, 20, 22), (20, 1, 22)])
def test_dio_takes_thin_volumes(shape: tuple[int, int, int]) -> None:
    method = replace(QUICK, regularisers=Regularisers(jacobian=1.0, diffusion=0.01, bending=0.01))
    found = register_pair(method, textured(0, shape), textured(1, shape)).displacement
    assert found.vectors.isfinite().all()


def test_pdd_net_takes_one_slice() -> None:
    shape = (20, 1, 22)
    found = register_pair(PDDNet(), textured(0, shape), textured(1, shape)).displacement
    assert found.vectors.isfinite().all()


def test_a_resized_field_has_gradients() -> None:
    field = torch.randn(1, 3, 4, 5, 6)
    ours, theirs = field.clone().requires_grad_(), field.clone().requires_grad_()
    resize(ours, (9, 5, 8)).square().sum().backward()
    resize_reference(theirs, (9, 5, 8)).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_structures_may_be_bytes_or_none() -> None:
    labels = torch.randint(0, 4, SHAPE, dtype=torch.uint8)
    structures = labels.unique()[1:]
    assert dice(labels, labels, structures).tolist() == [1.0, 1.0, 1.0]
    assert dice(labels, labels, structures[:0]).shape == (0,)


@pytest.mark.parametrize("inside", [1, 200], ids=["one voxel", "many"])
@pytest.mark.parametrize("value", [0.0, 7.0, torch.nan, torch.inf])
def test_mutual_information_of_what_does_not_vary(value: float, inside: int) -> None:
    other, constant = textured(0)[None, None], torch.full((1, 1, *SHAPE), value)
    mask = torch.zeros_like(other)
    mask.view(-1)[:inside] = 1
    for measure in (mutual_information, mutual_information_reference):
        for first, second in ((other, constant), (constant, other), (constant, constant)):
            found = measure(first, second, mask).item()
            assert found == 0 if torch.isfinite(torch.tensor(value)) else found != found


def test_initial_weights_leave_every_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(*_: object) -> None:
        pytest.fail("the GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    before = torch.get_rng_state()
    Architecture(kind="unet_encoder", width=4, channels=4).build(7)
    _ = Pretrained("brain-t1").features
    assert torch.equal(torch.get_rng_state(), before)


STILL = Displacement(torch.zeros(1, 3, *SHAPE), SHAPE, SHAPE)
ONE = torch.zeros(1, 1, *SHAPE)
REVERSED: dict[str, Any] = {"window": (9, 1)}


def said(**words: str) -> Any:
    """Words that type checkers would refuse too."""
    return words


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: STILL.warp(ONE, **said(interpolation="cubic")), "linear, nearest, got 'cubic'"),
        (lambda: STILL.warp(ONE, **said(padding="edge")), "zeros, border, got 'edge'"),
        (lambda: LevelSettings(**said(smoothing="gauss")), "LevelSettings: smoothing must be one"),
        (lambda: LevelSettings(radius=0), "radius and tap_radius must be at least 1"),
        (lambda: MatchSettings(**said(smoothing="min")), "MatchSettings: smoothing must be one of"),
        (lambda: PDDNet(**said(composition="Full")), "composition must be one of control, full"),
        (lambda: DescentSettings(**said(units="mm")), "units must be one of voxel, published"),
        (lambda: DescentSettings(**said(optimiser="Adam")), "optimiser must be one of adam, sgd"),
        (lambda: DIO(**said(first="similarity")), "first must be one of .*, got 'similarity'"),
        (lambda: prepared(VoxelOpt(features=MindSSC(**REVERSED)), ONE[0, 0]), "low < high"),
        (lambda: prepared(VoxelOpt(features=LocalContrast(**REVERSED)), ONE[0, 0]), "low < high"),
        (lambda: DIOTrainingSettings(**said(gradient="Phantom")), "gradient must be one of"),
        (lambda: DIOTrainingSettings(**said(precision="bf16")), "precision must be one of"),
        (lambda: DIOTrainingSettings(steps=0), "must be at least 1, got 0, 1 and 1"),
        (lambda: PlacedVolume(textured(0) * torch.nan, torch.eye(4)), "volume must be finite"),
    ],
)
def test_what_means_nothing_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.int16, torch.float16])
def test_pairs_are_of_float32_or_float64(dtype: torch.dtype) -> None:
    volume = textured(0).to(dtype)
    with pytest.raises(TypeError, match="fixed_volume must be float32 or float64, got torch"):
        register_pair(VoxelOpt(), volume, volume)
