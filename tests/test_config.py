"""Settings as people write them, and the methods that they build."""

from dataclasses import fields
from pathlib import Path

import pytest

from cohort.config.method import MethodConfig, method_config
from cohort.config.voxelopt import VoxelOptSettings
from cohort.errors import UsageError
from triton_reg import Intensity, LevelSettings, LocalContrast, MindSSC, VoxelOpt


def built(*assignments: str, file: Path | None = None) -> VoxelOpt:
    method = method_config("voxelopt", file, list(assignments)).build()
    assert isinstance(method, VoxelOpt)
    return method


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("default", VoxelOpt()), ("parity", VoxelOpt.parity()), ("paper", VoxelOpt.paper())],
)
def test_a_preset_is_the_method_of_that_name(preset: str, expected: VoxelOpt) -> None:
    assert built(f"preset={preset}") == expected


def test_without_settings_the_method_is_as_it_comes() -> None:
    assert MethodConfig().build() == VoxelOpt()


def test_a_preset_keeps_what_is_not_set() -> None:
    method = built("preset=paper", "radius=2", "downsample=2")
    assert method.level.radius == 2
    assert method.downsample == 2
    assert method.level.couplings == VoxelOpt.paper().level.couplings
    assert method.features == VoxelOpt.paper().features


@pytest.mark.parametrize(
    ("assignment", "read", "expected"),
    [
        *((f"window={text}", lambda m: m.features.window, (1, 99))
          for text in ("(1, 99)", "1,99", "[1, 99]", " 1.0, 99 ", "(1,99,)")),
        ("window=-500,800", lambda m: m.features.window, (-500, 800)),
        ("couplings=0.1,1.0", lambda m: m.level.couplings, (0.1, 1.0)),
        ("couplings=1e-3", lambda m: m.level.couplings, (0.001,)),
        ("solves=2", lambda m: m.solves, (2,)),
        ("solves=1,2,3", lambda m: m.solves, (1, 2, 3)),
        ("smoothing=isotropic", lambda m: m.level.smoothing, "isotropic"),
        ("filter_cost=false", lambda m: m.level.filter_cost, False),
        ("sigma_range=0.2,0.8", lambda m: m.level.sigma_range, (0.2, 0.8)),
        ("features=intensity", lambda m: m.features, Intensity()),
    ],
)  # fmt: skip
def test_an_assignment_is_read_as_people_write_it(assignment, read, expected) -> None:
    assert read(built(assignment)) == expected


def test_every_setting_of_the_method_can_be_set() -> None:
    ours = set(VoxelOptSettings.model_fields)
    own = {field.name for field in fields(VoxelOpt)} - {"level"}
    level = {field.name for field in fields(LevelSettings)}
    mind = {"window"} | {f"mind_{field.name}" for field in fields(MindSSC)} - {"mind_window"}
    learned = {"weights", "pretrained", "feature_scale", "local_contrast", "voxel_mm"}
    assert ours == {"preset"} | learned | own | level | mind


def test_every_setting_changes_the_fingerprint() -> None:
    changes = {
        "preset": "paper", "features": "intensity", "window": "2,98", "mind_radius": "2",
        "mind_dilation": "1", "downsample": "2", "levels": "2", "solves": "3", "squarings": "3",
        "precision": "exact",
        "radius": "2", "smoothing": "released", "sigma_range": "0.2,0.9", "alpha": "2.5",
        "tap_radius": "2", "passes": "2", "filter_cost": "false", "entropy_radius": "2",
        "couplings": "0.5", "masked": "true",
    }  # fmt: skip
    # those of features from files, whose own tests have their fingerprints
    elsewhere = {"weights", "pretrained", "feature_scale", "local_contrast", "voxel_mm"}
    assert changes.keys() | elsewhere == VoxelOptSettings.model_fields.keys()
    prints = {
        built(*["features=mind"] * name.startswith("mind"), f"{name}={value}").fingerprint
        for name, value in changes.items()
    }
    assert len(prints | {VoxelOpt().fingerprint}) == len(changes) + 1


def test_settings_survive_a_round_trip_through_json() -> None:
    config = method_config("voxelopt", None, ["preset=paper", "window=2,98", "couplings=0.1,1"])
    again = MethodConfig.model_validate_json(config.model_dump_json(exclude_none=True))
    assert again == config
    assert again.build() == config.build()


def test_assignments_win_over_a_file_and_a_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "method.yaml"
    file.write_text("preset: parity\nwindow: [1, 99]\nradius: 2\n")
    method = built("radius=3", file=file)
    assert method.level.radius == 3
    assert method.features == MindSSC(window=(1, 99))
    assert method.downsample == VoxelOpt.parity().downsample


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert built(file=tmp_path / "empty.yaml") == VoxelOpt()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "windw=1,99",
            r"unknown setting 'windw'\. Settings of voxelopt: preset, features, weights",
        ),
        ("features=deep", r"features: Input should be 'mind', 'local', .* got 'deep'"),
        ("radius=7", r"radius: Input should be 1, 2 or 3, got 7"),
        ("window=99,1", r"window: the first must be below the second, got \[99, 1\]"),
        ("window=5", r"window: .*tuple.*got 5"),
        ("sigma_range=0,1", r"sigma_range\.0: .*greater than 0, got 0"),
        ("solves=0", r"solves\.0: .*greater than or equal to 1, got 0"),
        ("solves=[]", r"solves: .*at least 1"),
        ("alpha=.inf", r"alpha: .*finite number, got inf"),
        ("window=1,.nan", r"window\.1: .*finite number"),
        ("window", r"--set needs KEY=VALUE, got 'window'"),
        ("=3", r"--set needs KEY=VALUE, got '=3'"),
        ("window=[1, 99", r"the value cannot be read"),
    ],
)
def test_a_wrong_setting_says_what_is_possible(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        method_config("voxelopt", None, [assignment])
    assert caught.value.code == "E_SETTING"


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown method 'elastix'; known: voxelopt") as caught:
        method_config("elastix", None, [])
    assert caught.value.code == "E_METHOD"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- window\n", r"must hold KEY: VALUE lines, found a list"),
        (b"window: [1, 99\n", r"cannot be read as YAML"),
        (b"\xff\xfe\x00", r"cannot be read as YAML"),
        (None, r"cannot be read as YAML: .*No such file"),
    ],
    ids=["list", "open bracket", "not text", "absent"],
)
def test_a_file_that_is_no_settings_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "method.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        method_config("voxelopt", file, [])
    assert caught.value.code == "E_CONFIG"
    assert str(file) in caught.value.message


def test_extractors_are_chosen_by_name() -> None:
    assert built("features=local", "window=2,98").features == LocalContrast(window=(2, 98))
    assert built("features=intensity").features == Intensity()
    mind = built("features=mind", "mind_radius=2", "mind_dilation=3").features
    assert mind == MindSSC(radius=2, dilation=3)
    assert built("preset=parity", "window=1,99").features == MindSSC()


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["features=unet"], "features=unet needs weights=FILE"),
        (["features=torchscript"], "features=torchscript needs weights=FILE"),
        (["features=torchscript", "weights=net.pt"], r"E_TRUST: .* the program in net\.pt"),
        (
            ["weights=some.pth"],
            "weights belongs to features=learned or unet or torchscript, not local",
        ),
        (["mind_radius=2"], "mind_radius belongs to features=mind, not local"),
        (["features=unet", "weights=nowhere.pth"], r"nowhere\.pth is no checkpoint of the U-Net"),
    ],
)
def test_settings_of_an_extractor_need_that_extractor(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(*assignments)
