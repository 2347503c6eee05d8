"""The contract that every method keeps (one table row a method)."""

from dataclasses import fields, replace

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import (
    DIO,
    Architecture,
    CubeSearch,
    EvenSearch,
    FitSettings,
    Intensity,
    LearnedFeatures,
    LevelSettings,
    LocalContrast,
    MatchSettings,
    Method,
    MindSSC,
    Obelisk,
    PDDNet,
    SoftVoxelOpt,
    VoxelOpt,
    collate,
    register_pair,
)
from triton_reg.features.obelisk import ObeliskNet
from triton_reg.ops.cost_volume import cost_volume_reference
from triton_reg.ops.masked_cost import masked_cost_volume_reference
from triton_reg.ops.resize import grid_shape
from triton_reg.weights import Weights

SHAPE = (32, 36, 40)


def untrained_obelisk() -> Obelisk:
    return Obelisk(weights=Weights.of(ObeliskNet(8, step=2).state_dict()), step=2)


def untrained_network() -> LearnedFeatures:
    small = Architecture(kind="unet_encoder", width=4, channels=4)
    return LearnedFeatures(weights=Weights.of(small.build().state_dict()), architecture=small)


METHODS = {
    "default": VoxelOpt(),
    "intensity": VoxelOpt(features=Intensity()),
    "soft": SoftVoxelOpt(),
    "parity": replace(VoxelOpt.parity(features=MindSSC()), downsample=1),
    "paper": VoxelOpt.paper(features=MindSSC()),
    "masked": VoxelOpt(level=replace(VoxelOpt().level, masked=True)),
    "pdd": PDDNet(),
    "pdd cube": PDDNet(
        features=LocalContrast(),
        stages=(CubeSearch(count=8, width=9, share=0.4),),
        weights=(300.0, 1.0, 1.0, 1.0),
        feature_step=2,
    ),
    "pdd fitted": PDDNet(fit=FitSettings(iterations=20), weights=(300.0, 1.0, 1.0, 1.0)),
    "pdd obelisk": PDDNet(
        features=untrained_obelisk(),
        stages=(
            EvenSearch(spacing=6, width=11, extent=12),
            EvenSearch(spacing=4, width=7, extent=4),
        ),
        weights=(1e8, 1.0, 1.0, 1.0),
        match=MatchSettings(),
    ),
    "dio": DIO(),
    "dio freeform": DIO(features=MindSSC(), transform="freeform"),
    "dio svf": DIO(transform="svf", iterations=(40, 20, 10)),
    "dio bspline": DIO(transform="bspline", iterations=(60, 40, 20)),
    "dio rigid first": DIO(first="rigid", iterations=(40, 30, 20), masked=True),
    "dio learned": DIO(features=untrained_network(), iterations=(40, 20, 10)),
    "masked soft": SoftVoxelOpt(
        voxelopt=VoxelOpt(level=replace(VoxelOpt().level, masked=True), levels=3)
    ),
}


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def method(request: pytest.FixtureRequest) -> Method:
    return request.param


def textured(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return 100 * smooth_volume(shape, seed)[0, 0]


def half_a_label_step(method: Method) -> float:
    """In voxels: VoxelOpt's labels are whole voxels at its finest level."""
    if not isinstance(method, PDDNet):
        return 0.5
    search = method.stages[-1]
    steps = [
        share * (size - 1) / 2 / (search.width // 2)
        for share, size in zip(search.reach(SHAPE), SHAPE, strict=True)
    ]
    return max(steps) / 2


def prepared(method: Method, volume: Tensor):
    return method.prepare(volume[None, None], torch.ones_like(volume)[None, None])


def test_the_result_has_the_shape_and_units_of_a_displacement(method: Method) -> None:
    result = register_pair(method, textured(0), textured(1))
    assert result.displacement.full().shape == (1, 3, *SHAPE)
    assert result.displacement.fixed_shape == result.displacement.moving_shape == SHAPE
    if isinstance(method, DIO):
        levels = len(method.iterations) * (2 if method.first else 1)
        assert {tuple(one.shape) for one in result.extras.values()} == {(1, levels)}
    else:
        assert result.extras["entropy"].shape == (1, *grid_shape(result.displacement.vectors))
    assert result.displacement.vectors.isfinite().all()


def test_a_volume_against_itself_stays(method: Method) -> None:
    volume = textured(2)
    vectors = register_pair(method, volume, volume).displacement.full()
    inner = vectors[..., 6:-6, 6:-6, 6:-6]
    assert inner.abs().quantile(0.99) <= 0.5


def test_a_rolled_volume_is_rolled_back(method: Method) -> None:
    volume = textured(3)
    moving = torch.roll(volume, (2, -1, 3), dims=(0, 1, 2))
    vectors = register_pair(method, volume, moving).displacement.full()
    inner = vectors[0, :, 8:-8, 8:-8, 8:-8].flatten(1)
    error = (inner.median(1).values - torch.tensor([2.0, -1.0, 3.0])).abs().max()
    assert error <= half_a_label_step(method)


@pytest.mark.slow
def test_a_batch_gives_the_bits_of_each_pair_alone(method: Method) -> None:
    subjects = [prepared(method, textured(seed)) for seed in range(3)]
    together = collate(subjects)
    copies = [tensor.clone() for tensor in together]
    pairs = torch.tensor([[0, 1], [2, 0], [1, 2]], dtype=torch.int32)
    batch = method.register(together, together, pairs).displacement.vectors
    for row, (fixed, moving) in enumerate(pairs.tolist()):
        one = torch.zeros(1, 2, dtype=torch.int32)
        alone = method.register(subjects[fixed], subjects[moving], one).displacement.vectors
        assert torch.equal(batch[row : row + 1], alone)
    assert all(torch.equal(a, b) for a, b in zip(together, copies, strict=True))


@pytest.mark.slow
def test_features_survive_half_precision(method: Method) -> None:
    fixed, moving = prepared(method, textured(4)), prepared(method, textured(5))
    halved = [tuple(part.half() for part in subject) for subject in (fixed, moving)]
    pair = torch.zeros(1, 2, dtype=torch.int32)
    full = method.register(fixed, moving, pair).displacement.vectors
    half = method.register(*halved, pair).displacement.vectors
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() <= 0.15  # the bound for half precision in the tests' spec


def test_the_fingerprint_changes_with_every_setting() -> None:
    method = VoxelOpt()
    changed = [
        replace(method, features=MindSSC(radius=2)),
        replace(method, features=MindSSC(window=(2, 98))),
        replace(method, features=Intensity()),
        replace(method, levels=3),
        replace(method, solves=(3,)),
        replace(method, downsample=2),
        replace(method, squarings=5),
        replace(method, precision="exact"),
        *(replace(method, level=level) for level in changed_levels(method.level)),
    ]
    prints = {one.fingerprint for one in (method, *changed)}
    assert len(prints) == len(changed) + 1
    assert VoxelOpt().fingerprint == method.fingerprint


def changed_levels(level: LevelSettings) -> list[LevelSettings]:
    values = {
        "radius": 2, "smoothing": "isotropic", "sigma_range": (0.2, 0.6), "alpha": 2.0,
        "tap_radius": 2, "passes": 2, "filter_cost": False, "entropy_radius": 2,
        "couplings": (0.1, 1.0), "masked": True,
    }  # fmt: skip
    assert values.keys() == {field.name for field in fields(LevelSettings)}
    return [replace(level, **{name: value}) for name, value in values.items()]


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 23, 31), (40, 21, 33)], ids=str)
def test_any_size_from_16_voxels_works(shape: tuple[int, int, int]) -> None:
    result = register_pair(VoxelOpt(), textured(0, shape), textured(1, shape))
    assert result.displacement.vectors.shape == (1, 3, *shape)
    assert result.displacement.vectors.isfinite().all()


def test_a_smaller_volume_is_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match=r"at least 16 voxels .*got \(15, 16, 16\)"):
        register_pair(VoxelOpt(), textured(0, (15, 16, 16)), textured(1, (15, 16, 16)))
    with pytest.raises(ValueError, match=r"downsample=2 halves; got \(16, 15, 16\)"):
        register_pair(VoxelOpt.parity(), textured(0, (32, 30, 32)), textured(1, (32, 30, 32)))
    with pytest.raises(ValueError, match=r"downsample=2 halves; got \(0, 16, 16\)"):
        register_pair(VoxelOpt.parity(), textured(0, (1, 32, 32)), textured(1, (1, 32, 32)))


def test_parity_works_on_the_halved_grid() -> None:
    method = VoxelOpt.parity(features=MindSSC())
    result = register_pair(method, textured(0, (64, 32, 40)), textured(1, (64, 32, 40)))
    assert result.displacement.fixed_shape == (32, 16, 20)


def test_outside_the_mask_nothing_is_compared() -> None:
    volume, mask = textured(6), torch.zeros(1, 1, *SHAPE)
    mask[..., 8:-8, 8:-8, 8:-8] = 1
    spoiled = torch.where(mask[0, 0] > 0, volume, 1e4)
    for extractor in (Intensity(), Intensity(window=(20, 80.5)), Intensity(window=(-500, 800))):
        clean, other = (extractor(one[None, None], mask) for one in (volume, spoiled))
        assert torch.equal(clean, other)


def errors_with_a_lesion(masked: bool, lesion_in: str) -> Tensor:
    """Distances ``[D, H, W]`` to the true shift when one subject has a lesion that is masked."""
    fixed = textured(3)
    volumes = {"fixed": fixed, "moving": torch.roll(fixed, (2, -1, 3), dims=(0, 1, 2))}
    masks = {role: torch.ones(1, 1, *SHAPE) for role in volumes}
    masks[lesion_in][..., 10:22, 12:24, 14:26] = 0
    volumes[lesion_in] = torch.where(masks[lesion_in][0, 0] > 0, volumes[lesion_in], 300.0)
    # extractors of single voxels: others look across the edge of a mask by their own width
    method = VoxelOpt(
        features=Intensity(window=(0.0, 300.0)),
        level=replace(VoxelOpt().level, masked=masked, sigma_range=(0.5, 3.0)),
    )
    features = [
        method.prepare(volumes[role][None, None], masks[role]) for role in ("fixed", "moving")
    ]
    pair = torch.zeros(1, 2, dtype=torch.int32)
    vectors = method.register(features[0], features[1], pair).displacement.vectors[0]
    return (vectors - torch.tensor([2.0, -1.0, 3.0]).view(3, 1, 1, 1)).norm(dim=0)


@pytest.mark.parametrize("lesion_in", ["fixed", "moving"])
def test_what_is_masked_in_either_subject_pulls_at_nothing(lesion_in: str) -> None:
    near = (slice(8, 24), slice(10, 26), slice(12, 28))  # the lesion and what is around it
    with_masks = errors_with_a_lesion(True, lesion_in)[near].mean()
    without = errors_with_a_lesion(False, lesion_in)[near].mean()
    assert with_masks <= 0.5
    assert without >= 2 * with_masks


def test_masks_of_ones_only_centre_the_cost_away_from_the_border() -> None:
    ones = torch.ones(1, 1, 6, 7, 8)
    fixed, moving = (torch.cat([smooth_volume((6, 7, 8), seed), ones], dim=1) for seed in (1, 2))
    cost = cost_volume_reference(fixed[:, :1], moving[:, :1], radius=1)
    inner = (..., *[slice(1, -1)] * 3)
    found = masked_cost_volume_reference(fixed, moving, radius=1)[inner]
    assert torch.allclose(found, (cost - cost.mean(1, keepdim=True))[inner], atol=1e-6)


def test_an_empty_mask_is_no_mask() -> None:
    volume = textured(0)[None, None]
    for window in ((1.0, 99.0), (0.0, 300.0)):
        method = replace(METHODS["masked"], features=Intensity(window=window))
        with pytest.raises(ValueError, match="a mask is empty"):
            method.prepare(volume, torch.zeros_like(volume))


def test_windows_are_percentiles_or_source_units() -> None:
    volume = torch.arange(1000.0).view(1, 1, 10, 10, 10)
    everywhere = torch.ones_like(volume)
    percent = Intensity(window=(10, 90))(volume, everywhere).flatten()
    assert percent[99] == 0
    assert percent[500].item() == pytest.approx((500 - 99.9) / 799.2)
    units = Intensity(window=(-500, 500))(volume, everywhere).flatten()
    assert units[0] == 0.5
    assert units[500] == units[999] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Intensity(window=(5, 5)), "low < high"),
        (lambda: VoxelOpt(downsample=3), "got 3"),
        (lambda: VoxelOpt(levels=0), "got 0"),
        (lambda: VoxelOpt(solves=(1, 0)), r"got \(1, 0\)"),
        (lambda: VoxelOpt(precision="half"), "fast or exact, got 'half'"),  # type: ignore[arg-type]
        (lambda: collate([]), "got none"),
        (lambda: collate([(torch.zeros(1, 2),), (torch.zeros(1, 3),)]), "share their features"),
        (
            lambda: register_pair(VoxelOpt(), torch.zeros(1, 16, 16, 16), torch.zeros(16, 16, 16)),
            r"fixed_volume must be \[D, H, W\]",
        ),
        (
            lambda: register_pair(
                VoxelOpt(), torch.zeros(16, 16, 16), torch.full((16, 16, 16), torch.nan)
            ),
            "moving_volume must be finite",
        ),
    ],
)
def test_messages_say_what_was_got(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
