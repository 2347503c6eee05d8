"""DIO's networks as features: sizes, batches, masks, files, and features by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import (
    Architecture,
    LearnedFeatures,
    LocalContrast,
    Pretrained,
    VoxelOpt,
    register_pair,
)
from triton_reg.features import pretrained
from triton_reg.features.architecture import Kind
from triton_reg.features.lku_mini import LKUMini
from triton_reg.features.pretrained import card_of, load_features, save_features
from triton_reg.features.unet_levels import UNet
from triton_reg.ops.blocks import block_means, reblocked
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.weights import Weights, read_kept, write_kept

SHAPE = (17, 20, 33)
KINDS: list[Kind] = ["unet", "unet_encoder", "lku", "lku_encoder", "lku_encoder2", "lku_mini"]
SMALL = Architecture(kind="unet_encoder", levels=(2, 1), channels=3, width=2)


def features_of(architecture: Architecture, seed: int = 0) -> LearnedFeatures:
    weights = Weights.of(architecture.build(seed).state_dict())
    return LearnedFeatures(weights=weights, architecture=architecture)


def volumes(n: int = 2) -> Tensor:
    return torch.cat([100 * (seed + 1) * smooth_volume(SHAPE, seed) for seed in range(n)])


def weight_count(architecture: Architecture) -> int:
    return sum(one.numel() for one in architecture.build().parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [(4, 2, 1), (4, 2), (2,)])
def test_levels_come_coarse_to_fine_in_the_sizes_of_the_volume(
    kind: Kind, levels: tuple[int, ...]
) -> None:
    features = features_of(Architecture(kind=kind, levels=levels, channels=5, width=4))
    outputs = features.levels_of(volumes(1).double(), torch.ones(1, 1, *SHAPE))
    assert [list(one.shape) for one in outputs] == [
        [1, 5, *(-(-size // level) for size in SHAPE)] for level in levels
    ]
    for one in outputs:
        assert one.dtype == torch.float32
        assert one.is_contiguous(memory_format=torch.channels_last_3d)
        assert one.isfinite().all()
        assert not one.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_has_the_same_features_alone_and_in_a_batch(kind: Kind) -> None:
    features = features_of(Architecture(kind=kind, levels=(4, 1), channels=4, width=4))
    mask = torch.ones(2, 1, *SHAPE)
    together = features.levels_of(volumes(), mask)
    alone = [features.levels_of(one, mask[:1]) for one in volumes().split(1)]
    for level, one in enumerate(together):
        assert torch.equal(one, torch.cat([subject[level] for subject in alone]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_normalises_each_volume_of_a_batch_by_itself(kind: Kind) -> None:
    network = Architecture(kind=kind, levels=(2, 1), channels=4, width=4).build()
    channels = 12 if kind == "lku_mini" else 1
    batch = torch.cat([smooth_volume((16, 16, 32), seed, channels) * seed for seed in (1, 9)])
    with torch.no_grad():
        together, alone = network(batch), network(batch[:1])
    for one, own in zip(together, alone, strict=True):
        assert (one[:1] - own).abs().max() <= 1e-5 * own.abs().max()


@pytest.mark.parametrize("kind", ["unet", "lku", "lku_mini"])
def test_fewer_levels_leave_the_others_as_they_are(kind: Kind) -> None:
    every = Architecture(kind=kind, levels=(4, 2, 1), channels=4, width=4)
    fewer = replace(every, levels=(4, 2))
    mask = torch.ones(1, 1, *SHAPE)
    wanted = features_of(every).levels_of(volumes(1), mask)
    # the names of the weights are those of all levels, so the same file serves both
    assert features_of(every).weights.digest == features_of(fewer).weights.digest
    for one, other in zip(features_of(fewer).levels_of(volumes(1), mask), wanted, strict=False):
        assert torch.equal(one, other)


def test_the_decoder_stops_at_the_finest_level() -> None:
    network = UNet(levels=(8, 4), width=4)
    for output in network(smooth_volume((16, 16, 32), 0)):
        output.sum().backward(retain_graph=True)
    used = {name for name, one in network.named_parameters() if one.grad is not None}
    assert any(name.startswith("decoders.1.") for name in used)
    assert not any(name.startswith(("decoders.2.", "decoders.3.")) for name in used)
    assert {name.split(".")[1] for name in used if name.startswith("final_convs")} == {"1", "2"}


def test_a_padded_volume_gives_what_its_padded_copy_does() -> None:
    features = features_of(Architecture(kind="unet", levels=(4, 1), channels=4, width=4))
    volume = volumes(1)
    last = [torch.arange(-(-size // 16) * 16).clamp(max=size - 1) for size in SHAPE]
    padded = volume[:, :, last[0]][:, :, :, last[1]][..., last[2]]
    features = replace(features, window=(-10.0, 300.0))  # the same for both, not percentiles
    coarse, fine = features.levels_of(volume, torch.ones_like(volume))
    wanted = features.levels_of(padded, torch.ones_like(padded))
    assert torch.equal(coarse, wanted[0][..., :5, :5, :9])
    assert torch.equal(fine, wanted[1][..., : SHAPE[0], : SHAPE[1], : SHAPE[2]])


@pytest.mark.parametrize(
    ("voxel_mm", "coarsening"),
    [
        ((1.0, 1.4, 1.5), (4, 4, 2)),
        ((2.0, 3.0, 4.0), (2, 1, 1)),
        ((9.0, 0.5, 2.0), (1, 8, 2)),  # an axis that is coarse enough stays
    ],
)
def test_volumes_are_seen_as_coarse_as_those_that_were_learned_from(
    voxel_mm: tuple[float, float, float], coarsening: tuple[int, int, int]
) -> None:
    features = replace(features_of(SMALL), spacing_mm=(4.0, 4.0, 4.0))
    assert features.for_spacing(voxel_mm).coarsening == coarsening
    assert features_of(SMALL).for_spacing(voxel_mm).coarsening == (1, 1, 1)  # nobody knows
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="voxel_mm must be three numbers above 0"):
            features.for_spacing((1.0, wrong, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [(4, 2, 1), (4, 1), (2,)])
def test_coarser_seen_features_are_those_of_the_means_put_on_the_volumes_levels(
    kind: Kind, levels: tuple[int, ...]
) -> None:
    features = features_of(Architecture(kind=kind, levels=levels, channels=3, width=4))
    shape = (32, 32, 64)  # so that nothing is continued
    volume = torch.cat([smooth_volume(shape, seed) for seed in range(2)])
    mask = torch.ones(2, 1, *shape)
    mask[1, :, :5] = 0
    means = torch.nn.functional.avg_pool3d(volume, 2)
    own = features.levels_of(means, torch.nn.functional.max_pool3d(mask, 2))
    found = replace(features, coarsening=(2, 2, 2)).levels_of(volume, mask)
    coarser = {(4, 2, 1): own[1:], (4, 1): [block_means(own[-1], 2)], (2,): []}
    for one, wanted in zip(found, coarser[levels], strict=False):
        assert torch.allclose(one[:1], wanted[:1], atol=1e-6)
    # the finest lies between the centres of the blocks that the network has seen
    up = torch.nn.functional.interpolate(own[-1], scale_factor=2.0, mode="trilinear")
    assert torch.allclose(found[-1][:1], up[:1], atol=1e-6)
    alone = replace(features, coarsening=(2, 2, 2)).levels_of(volume[1:], mask[1:])
    for level, both, one in zip(levels, found, alone, strict=True):
        assert torch.equal(both[1:], one)
        covered = torch.nn.functional.max_pool3d(mask[1:], level) > 0
        assert torch.equal((one != 0).any(1, keepdim=True), covered)


def test_any_coarsening_serves_any_size() -> None:
    features = features_of(Architecture(kind="lku_mini", channels=3, width=4))
    for shape in ((9, 17, 20), (5, 40, 33), (2, 16, 18)):
        volume = smooth_volume(shape, 0)
        found = replace(features, coarsening=(8, 1, 2)).levels_of(volume, torch.ones_like(volume))
        assert [list(one.shape[2:]) for one in found] == [
            [-(-size // level) for size in shape] for level in (4, 2, 1)
        ]
        assert all(one.isfinite().all() for one in found)


def test_a_linear_ramp_of_features_stays_where_it_is_on_other_blocks() -> None:
    ramp = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 4, 4)
    fine = reblocked(ramp, (4, 1, 2), 1)
    assert fine.shape == (1, 1, 32, 4, 8)
    centres = (torch.arange(32.0) - 1.5) / 4  # of fine voxels, in blocks
    assert torch.allclose(fine[0, 0, 2:-2, 0, 0], centres[2:-2], atol=1e-5)
    coarse = reblocked(ramp, (2, 8, 4), 4)
    assert coarse.shape == (1, 1, 4, 8, 4)
    assert torch.equal(coarse[0, 0, :, 0, 0], torch.arange(4.0) * 2 + 0.5)


def test_local_contrast_stands_beside_what_was_learned() -> None:
    features, volume = features_of(SMALL), volumes(1)
    mask = torch.ones_like(volume)
    mask[..., :6] = 0
    beside = replace(features, local_contrast=2.0)
    contrast = LocalContrast()(volume, mask)
    wanted = [2**0.5 * block_means(contrast, 2), 2 * contrast]
    pairs = zip(features.levels_of(volume, mask), beside.levels_of(volume, mask), strict=True)
    for (own, both), near in zip(pairs, wanted, strict=True):
        assert both.is_contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(both[:, :3], own)
        assert torch.allclose(both[:, 3:], near)
    assert VoxelOpt(features=beside).fingerprint != VoxelOpt(features=features).fingerprint
    assert torch.equal(beside(volume, mask), beside.levels_of(volume, mask)[-1])


def test_files_say_what_the_network_has_learned_from(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    features = replace(features_of(SMALL), spacing_mm=(4.0, 4.0, 4.0), local_contrast=3.0)
    save_features(path, features.for_spacing((2.0, 2.0, 2.0)), {})
    kept = load_features(path)
    assert repr(kept) == repr(features)  # how coarse volumes are is not its affair
    assert kept.spacing_mm == (4.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coarsening": (2, 3, 1)}, r"coarsening must be powers of 2, got \(2, 3, 1\)"),
        ({"coarsening": (0, 1, 1)}, "coarsening must be powers of 2"),
        ({"local_contrast": -1.0}, "local_contrast must be 0 or more, got -1"),
        ({"spacing_mm": (4.0, 0.0, 4.0)}, "spacing_mm must be three numbers above 0"),
    ],
)
def test_bad_settings_of_learned_features_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(features_of(SMALL), **settings)


def test_features_are_zero_where_no_voxel_is_inside_the_mask() -> None:
    features = features_of(SMALL)
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., 5:8, 4:, 2:] = 1
    coarse, fine = features.levels_of(volumes(1), mask)
    assert torch.equal((fine != 0).any(1, keepdim=True), mask > 0)
    touched = torch.zeros(1, 1, 9, 10, 17, dtype=torch.bool)
    touched[..., 2:4, 2:, 1:] = True  # voxels 5 to 7 lie below 2 and 3
    assert torch.equal((coarse != 0).any(1, keepdim=True), touched)


def test_a_call_gives_the_finest_level_scaled() -> None:
    features = replace(features_of(SMALL), scale=0.25)
    mask = torch.ones(1, 1, *SHAPE)
    assert torch.equal(features(volumes(1), mask), 0.25 * features.levels_of(volumes(1), mask)[-1])
    coarse = features_of(replace(SMALL, levels=(4, 2)))
    with pytest.raises(ValueError, match=r"with level 1, got levels \(4, 2\)"):
        coarse(volumes(1), mask)


def test_voxelopt_registers_with_them() -> None:
    fixed, moving = volumes()[:, 0]
    method = VoxelOpt(features=features_of(SMALL), levels=2)
    vectors = register_pair(method, fixed, moving).displacement.vectors
    assert vectors.abs().max() > 0


def test_untrained_lku_mini_gives_mind_at_each_resolution() -> None:
    volume = smooth_volume((8, 8, 12), 0)
    descriptors = mind_ssc(volume, 1, 2)
    coarse, fine = LKUMini((2, 1))(descriptors)
    assert torch.equal(fine, descriptors)
    halved = torch.nn.functional.avg_pool3d(descriptors, 2)
    assert (coarse - halved).abs().max() <= 1e-6
    architecture = Architecture(kind="lku_mini", levels=(1,), channels=12, width=4)
    features = replace(features_of(architecture), window=(0.0, 100.5))
    wanted = mind_ssc((volume * 90 / 100.5), 1, 2)
    got = features(volume * 90, torch.ones_like(volume))
    assert (got - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        (Architecture(kind="unet"), 0.52),
        (Architecture(kind="unet_encoder"), 0.18),
        (Architecture(kind="lku"), 8.97),
    ],
    ids=lambda one: getattr(one, "kind", None),
)
def test_default_sizes_are_the_published_ones(architecture: Architecture, millions: float) -> None:
    assert round(weight_count(architecture) / 1e6, 2) == millions


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_initial_weights_and_leaves_the_random_state(kind: Kind) -> None:
    architecture = Architecture(kind=kind, channels=4, width=2)
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    digests = [Weights.of(architecture.build(seed).state_dict()).digest for seed in (3, 3, 4)]
    assert torch.equal(torch.rand(1), wanted)
    assert digests[0] == digests[1] != digests[2]


def test_features_come_back_from_their_file(tmp_path: Path) -> None:
    features = replace(features_of(SMALL), window=(0.0, 500.0), scale=0.1)
    path = tmp_path / "features.safetensors"
    save_features(path, features, {"scans": 20, "loss": "Dice"})
    again = load_features(path)
    assert repr(again) == repr(features)
    assert again.architecture == features.architecture
    assert card_of(path) == {"scans": 20, "loss": "Dice"}
    mask = torch.ones(1, 1, *SHAPE)
    assert torch.equal(again(volumes(1), mask), features(volumes(1), mask))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_another_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "features.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"features\.safetensors is no safetensors file"):
        load_features(path)
    save_file({"one": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="of format 'triton-reg features 1', its metadata says no"):
        card_of(path)


def test_wrong_weights_are_listed() -> None:
    state = SMALL.build().state_dict() | {
        "extra": torch.ones(1),
        "encoder_0.1.conv.bias": torch.ones(2),
    }
    del state["encoder_1.2.conv.bias"]
    faults = (
        r"encoder_1\.2\.conv\.bias is missing; extra is not wanted; "
        r"encoder_0\.1\.conv\.bias has shape \[2\] instead of \[3\]"
    )
    with pytest.raises(ValueError, match=faults):
        LearnedFeatures(weights=Weights.of(state), architecture=SMALL)


def test_weights_and_settings_change_the_fingerprint() -> None:
    first = features_of(SMALL)
    others = [
        first,
        features_of(SMALL, seed=1),
        replace(first, window=(0.0, 99.0)),
        replace(first, scale=2.0),
        replace(first, coarsening=(2, 1, 1)),
        replace(first, local_contrast=1.0),
        features_of(replace(SMALL, width=4)),
    ]
    assert len({VoxelOpt(features=one).fingerprint for one in others}) == len(others)
    assert VoxelOpt(features=features_of(SMALL)).fingerprint == VoxelOpt(features=first).fingerprint


def test_features_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="no features 'brain'; there are: none"):
        Pretrained("brain")
    features = replace(features_of(SMALL), spacing_mm=(4.0, 4.0, 4.0))
    for name in ("knee", "brain"):
        save_features(tmp_path / f"{name}.safetensors", features, {})
    brain, mask = Pretrained("brain"), torch.ones(1, 1, *SHAPE)
    assert features.weights.digest in repr(brain)
    assert brain == Pretrained("brain")
    assert brain.architecture == SMALL
    assert torch.equal(brain(volumes(1), mask), features(volumes(1), mask))
    wanted = features.levels_of(volumes(1), mask)
    for one, other in zip(brain.levels_of(volumes(1), mask), wanted, strict=True):
        assert torch.equal(one, other)
    finer = Pretrained("brain", voxel_mm=2.0)
    assert repr(finer.features) == repr(features.for_spacing((2.0, 2.0, 2.0)))
    assert finer != brain
    assert VoxelOpt(features=finer).fingerprint != VoxelOpt(features=brain).fingerprint
    for name in ("heart", "../brain"):
        with pytest.raises(ValueError, match=f"no features '{name}'; there are: brain, knee"):
            Pretrained(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "resnet"}, "kind must be one of unet, .*, lku_mini, got 'resnet'"),
        ({"kind": "unet", "levels": (1, 2)}, r"coarse to fine, got \(1, 2\)"),
        ({"kind": "unet", "levels": ()}, r"levels of unet must be powers of 2 from 8 down.*\(\)"),
        ({"kind": "lku_mini", "levels": (8, 1)}, r"lku_mini must be powers of 2 from 4 down"),
        ({"kind": "lku", "levels": (3,)}, r"from 8 down, coarse to fine, got \(3,\)"),
        ({"kind": "lku", "width": 1}, "a width of at least 2, got 16 and 1"),
    ],
)
def test_bad_architectures_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**settings)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_refuse_volumes_that_do_not_halve(kind: Kind) -> None:
    architecture = Architecture(kind=kind, levels=(4,), channels=2, width=2)
    channels = 12 if kind == "lku_mini" else 1
    with pytest.raises(ValueError, match=rf"\[N, {channels}, D, H, W\] with sizes divisible by"):
        architecture.build()(torch.ones(1, channels, 32, 33, 32))


def test_normalisation_of_a_single_voxel_is_refused() -> None:
    network = Architecture(kind="lku", channels=2, width=2).build()
    with pytest.raises(ValueError, match="LKU: volume must have more than 16 voxels on at least"):
        network(torch.ones(1, 1, 16, 16, 16))


def test_the_features_that_come_with_the_package_say_where_they_are_from() -> None:
    brain = Pretrained("brain-t1")
    assert brain.levels == (4, 2, 1)
    assert brain.features.spacing_mm == (4, 4, 4)
    assert Pretrained("brain-t1", voxel_mm=1).features.coarsening == (4, 4, 4)
    card = card_of(Path(pretrained.__file__).parents[1] / "pretrained" / "brain-t1.safetensors")
    assert "automatic" in card["labels"]
    dice = {name: one["dice"] for name, one in card["scores"].items() if "," in name}
    assert dice["DIO, learned"] > dice["DIO, MIND"] + 0.03
    assert dice["DIO, learned"] > dice["DIO, local correlation"]
    assert dice["VoxelOpt, learned"] > dice["VoxelOpt, local contrast"]
    features = brain(torch.rand(1, 1, 16, 20, 24), torch.ones(1, 1, 16, 20, 24))
    assert features.shape == (1, 20, 16, 20, 24)
    assert features.isfinite().all()


def test_damaged_weights_are_told_and_not_taken_for_no_contrast() -> None:
    tensors = {
        name: torch.full_like(one, torch.nan) for name, one in SMALL.build().state_dict().items()
    }
    features = LearnedFeatures(weights=Weights.of(tensors), architecture=SMALL)
    with pytest.raises(ValueError, match="a feature is not finite; are the weights damaged"):
        features.levels_of(volumes(1), torch.ones(1, 1, *SHAPE))


@pytest.mark.parametrize(
    "change",
    [lambda one: one.pop("scale"), lambda one: one["architecture"].update(kinds=1),
     lambda one: one.update(architecture=3)],
    ids=["missing", "unknown", "other_form"],
)  # fmt: skip
def test_a_file_whose_settings_are_damaged_is_refused(change, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_features(path, features_of(SMALL), {})
    tensors, settings, _ = read_kept(path, "triton-reg features 1")
    change(settings)
    write_kept(path, tensors, "triton-reg features 1", settings, {})
    with pytest.raises(ValueError, match=r"own\.safetensors: its settings are damaged"):
        load_features(path)


def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("triton_reg.weights.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_features(tmp_path / "own.safetensors", features_of(SMALL), {})
    assert not list(tmp_path.iterdir())
