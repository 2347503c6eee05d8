"""Features that are means of structures' codes."""

from pathlib import Path

import pytest
import torch

from triton_reg.features import coded
from triton_reg.features.architecture import Architecture
from triton_reg.features.coded import CodedFeatures
from triton_reg.features.learned import LearnedFeatures
from triton_reg.features.pretrained import load_features, save_features
from triton_reg.weights import Weights

NETWORK = Architecture(kind="unet_encoder", levels=(2, 1), channels=4, width=2, structures=3)


def built(architecture: Architecture = NETWORK) -> CodedFeatures:
    network = architecture.build()
    assert isinstance(network, CodedFeatures)
    return network


def test_what_lies_on_a_code_has_it_as_its_features_and_the_background_none() -> None:
    network = built()
    raw = torch.stack([3 * code for code in network.codes.detach()]).T[None, :, :, None, None]
    (found,) = network.coded([raw])
    assert torch.allclose(found[0, :, :, 0, 0].T, network.codes, atol=1e-2)
    (nothing,) = network.coded([-raw.sum(2, keepdim=True)])
    assert nothing.abs().max() < 1e-6


def test_features_between_two_codes_are_their_mean() -> None:
    network = built()
    first, second, _ = network.codes.detach()
    (found,) = network.coded([(2 * (first + second)).view(1, 4, 1, 1, 1)])
    assert torch.allclose(found.flatten(), (first + second) / 2, atol=1e-2)


def test_likelihoods_fall_with_the_squared_distance() -> None:
    network, raw = built(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    codes = torch.cat([torch.zeros(1, 4), network.codes.detach()])
    apart = (raw[:, None] - codes).square().sum(2)
    expected = torch.softmax(-apart, dim=1)
    assert torch.allclose(network.nearness(raw).softmax(1), expected, atol=1e-6)


def test_more_structures_than_channels_begin_in_random_directions() -> None:
    many = built(Architecture(kind="unet_encoder", channels=4, width=2, structures=9))
    assert many.codes.shape == (9, 4)
    assert torch.allclose(many.codes.norm(dim=1), torch.full((9,), 2.0))
    assert len(many.codes.detach().unique(dim=0)) == 9


def test_any_number_of_voxels_at_once_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, volume = built(), torch.rand(1, 1, 6, 8, 10)
    whole = network(volume)
    assert [tuple(one.shape) for one in whole] == [(1, 4, 3, 4, 5), (1, 4, 6, 8, 10)]
    monkeypatch.setattr(coded, "_VOXELS_AT_ONCE", 7)
    for one, other in zip(whole, network(volume), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_codes_are_kept_with_the_weights(tmp_path: Path) -> None:
    network, volume = built(), torch.rand(1, 1, 6, 8, 10)
    with torch.no_grad():
        network.codes.add_(0.25)
    features = LearnedFeatures(weights=Weights.of(network.state_dict()), architecture=NETWORK)
    save_features(tmp_path / "own.safetensors", features, {})
    again = load_features(tmp_path / "own.safetensors")
    assert again.architecture.structures == 3
    assert again.weights.tensors["codes"].equal(network.codes.detach())
    for one, other in zip(
        features.levels_of(volume, torch.ones_like(volume)),
        again.levels_of(volume, torch.ones_like(volume)),
        strict=True,
    ):
        assert one.equal(other)


def test_methods_without_codes_keep_their_fingerprints() -> None:
    plain = Architecture(kind="unet")
    said = "Architecture(kind='unet', levels=(4, 2, 1), channels=16, width=16)"
    assert repr(plain) == said
    assert repr(Architecture(kind="unet", structures=2)) == f"{said[:-1]}, structures=2)"


def test_a_negative_number_of_structures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"structures must be 0 or more, got -1"):
        Architecture(kind="unet", structures=-1)
