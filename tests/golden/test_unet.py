"""Foundation features: loading weights of either naming, and what is wrong with others."""

from pathlib import Path

import pytest
import torch
from golden.formula_weights import formula_weights
from golden.vectors import Vectors
from safetensors.torch import save_file
from torch import Tensor

from triton_reg import SegmentationUNet, VoxelOpt
from triton_reg.features.unet import expected_shapes, forward
from triton_reg.weights import Weights, load_weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return formula_weights(expected_shapes())


@pytest.mark.parametrize("name", ["voxelopt_unet.npz"])
def test_the_network_gives_the_published_features(name: str, weights: dict[str, Tensor]) -> None:
    vectors = Vectors(name)
    features = forward(vectors.tensor("image", torch.float32), weights)
    assert vectors.error("features", features).max() <= 1e-4
    vectors.close()


def test_both_namings_and_both_formats_load(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    published = {
        ("module." if name.startswith("precls") else "module.backbone.") + name: tensor
        for name, tensor in weights.items()
    }
    published["module.backbone.down_tr64.ops.0.bn1.running_mean"] = torch.zeros(32)
    published["module.organ_embedding"] = torch.zeros(3)
    torch.save({"net": published, "epoch": 3}, tmp_path / "published.pth")
    save_file(weights, tmp_path / "own.safetensors")
    first, second = (
        SegmentationUNet.load(tmp_path / file) for file in ("published.pth", "own.safetensors")
    )
    assert first.weights.digest == second.weights.digest
    assert VoxelOpt(features=first).fingerprint == VoxelOpt(features=second).fingerprint
    volume, mask = torch.rand(1, 1, 13, 16, 18), torch.ones(1, 1, 13, 16, 18)
    assert first(volume, mask).shape == (1, 8, 13, 16, 18)


def test_other_weights_give_another_fingerprint(weights: dict[str, Tensor]) -> None:
    other = weights | {"precls_conv.2.bias": torch.ones(8)}
    prints = {
        VoxelOpt(features=SegmentationUNet(weights=Weights.of(one))).fingerprint
        for one in (weights, other)
    }
    assert len(prints) == 2


def test_wrong_weights_are_listed(weights: dict[str, Tensor]) -> None:
    spoiled = weights | {"precls_conv.2.bias": torch.ones(9), "extra": torch.ones(1)}
    del spoiled["precls_conv.0.bias"]
    with pytest.raises(ValueError, match="precls_conv.0.bias is missing; extra is not wanted; "
                       r"precls_conv.2.bias has shape \[9\] instead of \[8\]"):  # fmt: skip
        SegmentationUNet(weights=Weights.of(spoiled))


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(TypeError, match="must hold tensors by name, found a list"):
        load_weights(tmp_path / "list.pth")
