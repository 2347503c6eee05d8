"""What every method asks of what it is given, batch by batch, and what it makes of the rest."""

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import (
    DIO,
    EvenSearch,
    Intensity,
    Method,
    NetworkFeatures,
    PDDNet,
    Pretrained,
    Prompts,
    SoftVoxelOpt,
    VoxelOpt,
    register_pair,
)

QUICK = DIO(iterations=(3, 2, 1))
METHODS = {
    "VoxelOpt": VoxelOpt(),
    "SoftVoxelOpt": SoftVoxelOpt(voxelopt=VoxelOpt(features=Intensity(), levels=2)),
    "PDDNet": PDDNet(stages=(EvenSearch(spacing=6, width=5, extent=4),)),
    "DIO": QUICK,
}


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


def volumes() -> Tensor:
    return torch.cat([100 * smooth_volume((16, 18, 20), seed) for seed in range(2)])


def pairs_of(*rows: tuple[int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (torch.zeros(0, 2, dtype=torch.int32), ValueError, r"be \[B, 2\] with .*, got \[0, 2\]"),
        (torch.zeros(2, dtype=torch.int32), ValueError, r"be \[B, 2\] .*, got \[2\]"),
        (torch.zeros(1, 3, dtype=torch.int32), ValueError, r"be \[B, 2\] .*, got \[1, 3\]"),
        (torch.tensor([[0.0, 1.5]]), TypeError, "be int32 or int64, got torch.float32"),
        (
            pairs_of((0, -1)),
            ValueError,
            "hold rows from 0 to 1 of the moving subjects, got -1 to -1",
        ),
        (
            pairs_of((0, 1), (2, 0)),
            ValueError,
            "hold rows from 0 to 1 of the fixed subjects, got 0 to 2",
        ),
    ],
    ids=["none", "flat", "three", "float", "negative", "too-large"],
)
def test_pairs_are_rows_of_the_subjects(
    method: Method, pairs: Tensor, error: type[Exception], message: str
) -> None:
    both = volumes()
    features = method.prepare(both, torch.ones_like(both))
    with pytest.raises(error, match=f"{type(method).__name__}: pairs must {message}"):
        method.register(features, features, pairs)


def test_pairs_of_int64_are_those_of_int32(method: Method) -> None:
    both = volumes()
    features, pairs = method.prepare(both, torch.ones_like(both)), pairs_of((0, 1))
    short, long = (method.register(features, features, one) for one in (pairs, pairs.long()))
    assert torch.equal(short.displacement.vectors, long.displacement.vectors)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.int16, torch.uint8], ids=str
)
def test_volumes_of_other_dtypes_are_registered_in_float32(
    method: Method, dtype: torch.dtype
) -> None:
    given = volumes().round().abs().to(dtype)
    found, expected = (
        method.register(*[method.prepare(one, torch.ones_like(one))] * 2, pairs_of((0, 1)))
        for one in (given, given.float())
    )
    assert found.displacement.vectors.dtype == torch.float32
    assert torch.equal(found.displacement.vectors, expected.displacement.vectors)


@pytest.mark.parametrize(
    ("shape", "inside", "message"),
    [
        ((1, 2, 16, 18, 20), None, r"volume must be \[N, 1, D, H, W\], got \[1, 2, 16, 18, 20\]"),
        ((1, 16, 18, 20), None, r"volume must be \[N, 1, D, H, W\], got \[1, 16, 18, 20\]"),
        (
            (2, 1, 16, 18, 20), (1, 1, 16, 18, 20),
            r"mask must have the volume's shape \[2, 1, .*\], got \[1, 1, 16, 18, 20\]",
        ),
        ((1, 1, 16, 18, 20), (1, 1, 16, 18, 18), "mask must have the volume's shape"),
    ],
    ids=["channels", "flat", "other-batch", "other-size"],
)  # fmt: skip
def test_a_volume_and_its_mask_have_one_shape(
    method: Method, shape: tuple[int, ...], inside: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{type(method).__name__}: {message}"):
        method.prepare(torch.rand(shape), torch.ones(inside or shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_volume_is_finite(method: Method, value: float) -> None:
    both = volumes()
    both[1, 0, 3, 4, 5:7] = value
    needed = "volume must be finite inside the mask and nowhere NaN, got 2 voxels that are not"
    with pytest.raises(ValueError, match=f"{type(method).__name__}: {needed}"):
        method.prepare(both, torch.ones_like(both))


def test_nan_outside_the_mask_is_refused_and_infinity_is_cut_off(method: Method) -> None:
    both = volumes()
    mask = torch.ones_like(both)
    mask[:, :, :3] = 0
    spoiled = both.masked_fill(mask == 0, torch.inf)
    found = method.prepare(spoiled, mask)
    expected = method.prepare(both.masked_fill(mask == 0, 1e9), mask)
    assert all(torch.equal(*one) for one in zip(found, expected, strict=True))
    spoiled[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="got 1 voxels that are not"):
        method.prepare(spoiled, mask)


REGISTERED = {
    "affine": DIO(transform="affine", iterations=(3, 2, 1)),
    "affine-first": DIO(first="affine", iterations=(3, 2, 1)),
    "svf": DIO(transform="svf", iterations=(3, 2, 1)),
    "bspline": DIO(transform="bspline", iterations=(3, 2, 1)),
    "network": DIO(features=Pretrained("brain-t1", voxel_mm=2), iterations=(3, 3, 3)),
    "module": VoxelOpt(features=NetworkFeatures(network=torch.nn.Conv3d(1, 2, 3, padding=1))),
    "soft": SoftVoxelOpt(voxelopt=VoxelOpt(levels=2)),
}


@pytest.mark.parametrize("method", REGISTERED.values(), ids=REGISTERED.keys())
def test_an_autocast_of_the_caller_changes_nothing(method: Method) -> None:
    fixed, moving = volumes()[:, 0]
    expected = register_pair(method, fixed, moving).displacement.vectors
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = register_pair(method, fixed, moving).displacement.vectors
    assert torch.equal(found, expected)


def test_a_pair_of_arrays_is_refused() -> None:
    fixed, moving = volumes()[:, 0]
    for name, given in (("fixed", (fixed.numpy(), moving)), ("moving", (fixed, moving.numpy()))):
        needed = f"{name}_volume must be a torch tensor, .*from_numpy.*, got numpy.ndarray"
        with pytest.raises(TypeError, match=needed):
            register_pair(VoxelOpt(), *given)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", REGISTERED.values(), ids=REGISTERED.keys())
def test_a_default_device_of_the_process_changes_nothing(method: Method) -> None:
    fixed, moving = volumes()[:, 0]
    expected = register_pair(method, fixed, moving).displacement.vectors
    with torch.device("meta"):
        found = register_pair(method, fixed, moving).displacement.vectors
    assert torch.equal(found, expected)


def test_a_default_device_changes_no_prompts_and_no_network() -> None:
    both, points = volumes(), torch.tensor([[[8.0, 9.0, 7.0]]])
    told = Prompts(fixed_keypoints=points, moving_keypoints=points + 1)
    pairs = pairs_of((0, 1))
    features = QUICK.prepare(both, torch.ones_like(both))
    expected = QUICK.register(features, features, pairs, told).displacement.vectors
    with torch.device("meta"):
        found = QUICK.register(features, features, pairs, told).displacement.vectors
        network = Pretrained("brain-t1")
    assert torch.equal(found, expected)
    expected = Pretrained("brain-t1")(both, torch.ones_like(both))
    assert torch.equal(network(both, torch.ones_like(both)), expected)
