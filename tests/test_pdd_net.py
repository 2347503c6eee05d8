"""PDD-Net's own: searches, stages, prompts, uncertainty, model files."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from helpers import smooth_volume
from safetensors.torch import save_file
from torch import Tensor

from triton_reg import (
    CubeSearch,
    Displacement,
    EvenSearch,
    FitSettings,
    Intensity,
    MatchSettings,
    MindSSC,
    Obelisk,
    PDDNet,
    Prompts,
    PromptWeights,
    register_pair,
)
from triton_reg.displacement import moved_points
from triton_reg.features.obelisk import ObeliskNet
from triton_reg.methods.pdd_model import load_model, save_model
from triton_reg.methods.prompt_terms import moved_back
from triton_reg.ops.dense_match import COVARIANCE_AXES
from triton_reg.weights import Weights

SHAPE = (24, 28, 32)
ONE = torch.zeros(1, 2, dtype=torch.int32)
FINE = PDDNet(stages=(EvenSearch(spacing=4, width=9, extent=6),))
QUICK = PDDNet(stages=(EvenSearch(spacing=6, width=5, extent=6),))


def textured(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return 100 * smooth_volume(shape, seed)[0, 0]


def prepared(method: PDDNet, volume: Tensor):
    return method.prepare(volume[None, None], torch.ones_like(volume)[None, None])


def test_an_even_search_is_as_fine_and_as_far_along_every_axis() -> None:
    search = EvenSearch(spacing=4, width=7, extent=6)
    assert search.points((25, 33, 49)) == (7, 9, 13)
    reach = search.reach((25, 33, 49))
    voxels = [share * (size - 1) / 2 for share, size in zip(reach, (25, 33, 49), strict=True)]
    assert voxels == pytest.approx([6, 6, 6])
    flat = replace(search, voxel=(1.0, 1.0, 2.0))
    assert flat.points((25, 33, 25)) == (7, 9, 13)
    assert flat.reach((25, 33, 25))[2] * 12 == pytest.approx(3)  # in the voxels of that axis


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EvenSearch(spacing=4, width=6, extent=6), "odd width of at least 3.*got 6"),
        (lambda: EvenSearch(spacing=0, width=7, extent=6), "lengths must be positive"),
        (lambda: CubeSearch(count=1, width=7, share=0.3), "at least 2 control points"),
        (lambda: PDDNet(stages=()), "at least one stage"),
        (lambda: PDDNet(feature_step=0), "feature_step must be at least 1, got 0"),
        (lambda: MatchSettings(iterations=9), "iterations must be 0 to 8, got 9"),
        (lambda: MatchSettings(sigma=0.0), "curvature and sigma must be above 0"),
        (lambda: FitSettings(iterations=0), "at least one iteration"),
        (lambda: PromptWeights(radius=0.0), "radius positive"),
    ],
)
def test_settings_out_of_range_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_displacement_stays_on_the_control_points() -> None:
    found = register_pair(PDDNet(), textured(0), textured(1)).displacement
    assert found.vectors.shape[2:] == PDDNet().stages[-1].points(SHAPE)
    full = register_pair(replace(PDDNet(), composition="full"), textured(0), textured(1))
    assert full.displacement.vectors.shape[2:] == SHAPE


def test_composing_on_control_points_is_composing_fields() -> None:
    """Far from the border, beyond which the published form sees zeros."""
    volume = textured(2, (48, 44, 48))
    moving = torch.roll(volume, (2, 0, -1), dims=(0, 1, 2))
    control = register_pair(PDDNet(), volume, moving).displacement.full()
    full = register_pair(replace(PDDNet(), composition="full"), volume, moving).displacement.full()
    inner = [field[0, :, 12:-12, 12:-12, 12:-12].flatten(1) for field in (control, full)]
    assert (inner[0] - inner[1]).abs().mean() <= 0.15
    assert (inner[0].median(1).values - torch.tensor([2.0, 0, -1])).abs().max() <= 0.3


def test_a_second_stage_refines() -> None:
    volume = textured(3, (40, 36, 40))
    moving = torch.roll(volume, (3, -2, 2), dims=(0, 1, 2))
    errors = []
    for stages in (PDDNet().stages[:1], PDDNet().stages):
        found = register_pair(replace(PDDNet(), stages=stages), volume, moving).displacement
        warped = found.warp(moving[None, None])[0, 0]
        errors.append((warped - volume)[8:-8, 8:-8, 8:-8].square().mean())
    assert errors[1] < 0.7 * errors[0]


def test_covariance_says_along_which_axis_a_match_is_unsure() -> None:
    """Stripes along an axis match anywhere along it."""
    volume = (100 * smooth_volume((SHAPE[0], 2, 2), 1)[:, :, :, :1, :1]).expand(1, 1, *SHAPE)
    method = replace(QUICK, features=Intensity(), weights=(300.0, 1.0, 1.0, 1.0))
    found = register_pair(method, volume[0, 0], volume[0, 0])
    covariance = found.extras["covariance"][0].flatten(1).mean(1)
    assert covariance[0] < 0.5 * covariance[1]
    assert covariance[1] == pytest.approx(covariance[2].item(), rel=1e-3)
    assert COVARIANCE_AXES[:3] == ((0, 0), (1, 1), (2, 2))
    assert (found.extras["entropy"] > 0).all()


def test_prompted_labels_draw_structures_onto_each_other() -> None:
    blank = torch.zeros(SHAPE)
    fixed_labels, moving_labels = (torch.zeros(1, 1, *SHAPE, dtype=torch.int32) for _ in "fm")
    fixed_labels[..., 8:14, 10:16, 12:18] = 3
    moving_labels[..., 11:17, 10:16, 12:18] = 3
    told = Prompts(fixed_labels=fixed_labels, moving_labels=moving_labels)
    method = replace(FINE, features=Intensity(), prompt_weights=PromptWeights(labels=10.0))
    one = prepared(method, blank)
    found = method.register(one, one, ONE, told).displacement
    warped = found.warp(moving_labels.float(), interpolation="nearest")
    assert ((fixed_labels > 0) & (moving_labels > 0)).sum() == 3 * 6 * 6
    assert ((fixed_labels > 0) & (warped > 0)).sum() == 6 * 6 * 6
    silent = method.register(one, one, ONE).displacement.full()
    assert silent.abs().max() <= 1e-3


@pytest.mark.parametrize("method", [FINE, PDDNet()], ids=("one stage", "two stages"))
def test_prompted_keypoints_are_reached(method: PDDNet) -> None:
    volume = textured(4)
    points = torch.tensor([[[12.0, 14, 16], [torch.nan, 0, 0]]])
    target = points + torch.tensor([3.0, -2, 1])
    weights = PromptWeights(keypoints=10.0, radius=10.0)
    method = replace(method, prompt_weights=weights)
    one = prepared(method, volume)
    told = Prompts(fixed_keypoints=points, moving_keypoints=target)
    found = method.register(one, one, ONE, told).displacement
    reached = moved_points(points[0, :1], found)
    half_a_label_step = 0.75
    assert (reached - target[0, :1]).abs().max() <= half_a_label_step


def test_prompts_follow_a_warped_volume() -> None:
    vectors = torch.zeros(1, 3, *SHAPE)
    vectors[:, 0] = 2
    known = Displacement(vectors, SHAPE, SHAPE)
    labels = torch.zeros(1, 1, *SHAPE, dtype=torch.int32)
    labels[..., 10:14, 10:14, 10:14] = 1
    points = torch.tensor([[[12.0, 12, 12]]])
    back = moved_back(Prompts(labels, labels, points, points), known)
    assert torch.equal(back.moving_labels, torch.roll(labels, -2, 2))
    assert torch.allclose(back.moving_keypoints, points - torch.tensor([2.0, 0, 0]))
    assert back.fixed_labels is labels


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fixed_labels": torch.zeros(1, 1, 2, 2, 2)}, "needs labels of both"),
        (
            {"fixed_keypoints": torch.zeros(1, 2, 3), "moving_keypoints": torch.zeros(1, 3, 3)},
            r"keypoints must share one shape, got \[1, 2, 3\] and \[1, 3, 3\]",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_refused(given, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts(**given)


def test_the_fingerprint_changes_with_every_setting() -> None:
    method = PDDNet()
    values = {
        "features": MindSSC(),
        "stages": method.stages[:1],
        "weights": (1.0, 1.0, 1.0, 2.0),
        "match": MatchSettings(),
        "fit": FitSettings(),
        "feature_step": 3,
        "composition": "full",
        "prompt_weights": PromptWeights(labels=2.0),
    }
    assert values.keys() == {field.name for field in fields(PDDNet)}
    changed = [replace(method, **{name: value}) for name, value in values.items()]
    assert len({one.fingerprint for one in (method, *changed)}) == len(changed) + 1


def test_a_model_file_gives_the_method_that_was_saved(tmp_path: Path) -> None:
    features = Obelisk(weights=Weights.of(ObeliskNet(4, step=2, seed=3).state_dict()), step=2)
    method = PDDNet(
        features=features,
        stages=(EvenSearch(spacing=5, width=5, extent=5), CubeSearch(count=6, width=3, share=0.1)),
        weights=(2.5, 1.0, -0.5, 1.25),
        match=MatchSettings(iterations=1),
        fit=FitSettings(iterations=3),
    )
    save_model(tmp_path / "model.safetensors", method, {"data": "none"})
    assert load_model(tmp_path / "model.safetensors").fingerprint == method.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_model(tmp_path / "text.safetensors")
    save_file({"offsets": torch.zeros(3)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"must be of format 'triton-reg pdd_net 1', .* none"):
        load_model(tmp_path / "bare.safetensors")
    with pytest.raises(TypeError, match="features must be Obelisk, got LocalContrast"):
        save_model(tmp_path / "model.safetensors", PDDNet(), {})


def test_weights_that_do_not_fit_are_listed() -> None:
    tensors = dict(ObeliskNet(4).state_dict())
    tensors["layer9.weight"] = tensors.pop("layer2.weight")
    tensors["offsets"] = torch.zeros(2, 3, 3)
    wrong = "layer2.weight is missing; layer9.weight is not wanted; offsets has shape"
    with pytest.raises(ValueError, match=wrong):
        Obelisk(weights=Weights.of(tensors))
