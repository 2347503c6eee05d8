"""Methods and features on the GPU that is not there. Run by ``test_cuda_paths.py``."""

from dataclasses import replace

import pytest
import torch
from helpers import smooth_volume
from pretend_cuda import gpu
from torch import Tensor, nn

from triton_reg import (
    DIO,
    CubeSearch,
    EvenSearch,
    FitSettings,
    LevelSettings,
    MatchSettings,
    Method,
    MindSSC,
    NetworkFeatures,
    PDDNet,
    Pretrained,
    Prompts,
    Regularisers,
    VoxelOpt,
    collate,
)

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here

SHAPE = (16, 16, 16)
LEVEL = LevelSettings(couplings=(0.1,), passes=1)
FAST = VoxelOpt(level=LEVEL, levels=2, squarings=1)
SHORT = DIO(iterations=(2, 2), levels=(2, 1))
ONE_STAGE = PDDNet(stages=(EvenSearch(spacing=6, width=5, extent=4),))
TWO_CUBES = (CubeSearch(count=4, width=5, share=0.25), CubeSearch(count=5, width=3, share=0.15))
FIT, MATCH = FitSettings(iterations=2), MatchSettings()


def volume(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return 100 * smooth_volume(shape, seed).to("cuda")


def box() -> Tensor:
    mask = torch.zeros(1, 1, *SHAPE, device="cuda")
    mask[..., 4:12, 2:14, :] = 1
    return mask


def prompts(kinds: str) -> Prompts:
    given = {}
    if "labels" in kinds:
        given["fixed_labels"] = (volume(1) > 50).int()
        given["moving_labels"] = (volume(2) > 50).int()
    if "keypoints" in kinds:
        points = torch.tensor([[[3.0, 4, 5], [7, 8, 9], [9, 4, 6]]], device="cuda")
        given |= {"fixed_keypoints": points, "moving_keypoints": points + 1}
    return Prompts(**given)


def assert_stays_on_the_gpu(
    method: Method, mask: Tensor | None = None, told: Prompts | None = None
) -> None:
    volumes = volume(1), volume(2)
    inside = torch.ones_like(volumes[0]) if mask is None else mask
    with torch.inference_mode():
        both = collate([method.prepare(one, inside) for one in volumes])
        assert all(one.is_cuda for one in both)
        pairs = torch.tensor([[0, 1], [1, 0], [0, 0]], dtype=torch.int32, device="cuda")
        found = method.register(both, both, pairs if told is None else pairs[:1], told)
        vectors = found.displacement.full()
    assert vectors.is_cuda
    assert vectors.shape == (3 if told is None else 1, 3, *SHAPE)
    assert all(one.is_cuda for one in found.extras.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"level": replace(LEVEL, masked=True)},
        {"level": replace(LEVEL, smoothing="isotropic")},
        {"level": replace(LEVEL, tap_radius=2)},
        {"precision": "exact"},
        {"precision": "exact", "level": replace(LEVEL, radius=2, tap_radius=2)},
        {"precision": "exact", "features": MindSSC(), "levels": 1},
    ],
    ids=["fast", "masked", "isotropic", "wide-filter", "exact", "exact-wide", "exact-mind"],
)
def test_voxelopt(changes: dict) -> None:
    assert_stays_on_the_gpu(replace(FAST, **changes), box())


@pytest.mark.parametrize("loss", ["lncc", "mse"])
@pytest.mark.parametrize(
    "transform", ["freeform", "diffeomorphic", "svf", "bspline", "affine", "rigid"]
)
def test_dio(transform: str, loss: str) -> None:
    assert_stays_on_the_gpu(replace(SHORT, transform=transform, loss=loss))


@pytest.mark.parametrize(
    "changes",
    [
        {"first": "affine", "masked": True, "diagnose": True},
        {"regularisers": Regularisers(bending=0.1)},
    ],
    ids=["first-affine", "bending"],
)
@pytest.mark.parametrize("loss", ["lncc", "mse"])
def test_dio_with_all_that_it_can_do(changes: dict, loss: str) -> None:
    assert_stays_on_the_gpu(replace(SHORT, loss=loss, **changes), box())


def test_dio_as_it_is_published() -> None:
    short = {"iterations": SHORT.iterations, "levels": SHORT.levels}
    assert_stays_on_the_gpu(replace(DIO.published(), **short))


@pytest.mark.parametrize("kinds", ["labels", "keypoints", "labels and keypoints"])
@pytest.mark.parametrize("method", [SHORT, ONE_STAGE], ids=["dio", "pdd_net"])
def test_prompts(method: Method, kinds: str) -> None:
    assert_stays_on_the_gpu(method, told=prompts(kinds))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stages": (*ONE_STAGE.stages, EvenSearch(spacing=5, width=3, extent=2))},
        {"fit": FIT},
        {"stages": TWO_CUBES, "composition": "full", "fit": FIT, "match": MATCH},
    ],
    ids=["one-stage", "two-stages", "fit", "cubes"],
)
def test_pdd_net(changes: dict) -> None:
    assert_stays_on_the_gpu(replace(ONE_STAGE, **changes))


@pytest.mark.parametrize("kind", ["dio", "pdd_net", "voxelopt"])
def test_features_that_come_with_the_package(kind: str) -> None:
    learned = Pretrained("brain-t1", voxel_mm=2.0)
    methods: dict[str, Method] = {
        "dio": DIO(features=learned, iterations=(2,) * len(learned.levels)),
        "pdd_net": replace(ONE_STAGE, features=learned),
        "voxelopt": replace(FAST, features=learned, precision="exact"),
    }
    assert_stays_on_the_gpu(methods[kind])


def network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Sigmoid())


def test_a_network_that_somebody_brings() -> None:
    features, one = NetworkFeatures(network=network()), volume(1)
    told = repr(features)
    assert features(one, torch.ones_like(one)).is_cuda
    assert not features(one.cpu(), torch.ones(one.shape)).is_cuda
    assert repr(features) == told
    assert_stays_on_the_gpu(replace(FAST, features=features))


def test_a_network_that_is_trained() -> None:
    learning, one = network().to("cuda"), volume(1)
    features = NetworkFeatures(network=learning, trainable=True)
    features(one, torch.ones_like(one)).sum().backward()
    assert all(one.grad is not None and one.grad.is_cuda for one in learning.parameters())
