"""DIO's feature networks give the published features, with the published names of weights."""

import json

import pytest
import torch
from golden.formula_weights import formula_weights
from golden.vectors import Vectors
from torch import nn

from triton_reg.features.lku import LKU, LKUEncoder
from triton_reg.features.lku_mini import LKUMini
from triton_reg.features.unet_levels import UNet, UNetEncoder

NETWORKS: dict[str, nn.Module] = {
    "unet": UNet(channels=4, width=8),
    "unetencoder": UNetEncoder(channels=4, width=8),
    "unetencoder_m2": UNetEncoder((4, 2), channels=4, width=8, multiplier=2),
    "lku": LKU(channels=4, width=4),
    "lkuencoder": LKUEncoder(channels=4, width=4),
    "lkuencoderv2": LKUEncoder(channels=4, width=4, version=2),
    "lkumini": LKUMini((4, 2), width=4),
}


@pytest.mark.parametrize("name", ["dio_nets.npz"])
def test_the_networks_give_the_published_features(name: str) -> None:
    vectors = Vectors(name)
    listed = json.loads((vectors.folder / "dio_net_params.json").read_text())
    assert listed.keys() == NETWORKS.keys()
    images = {
        1: vectors.tensor("image", torch.float32),
        12: vectors.tensor("image12", torch.float32),
    }
    for kind, network in NETWORKS.items():
        weights = formula_weights({name: shape for _, name, shape in listed[kind]})
        assert [*weights] == [*network.state_dict()], kind
        network.load_state_dict(weights)
        with torch.no_grad():
            outputs = network(images[12 if kind == "lkumini" else 1])
        for level, output in enumerate(outputs):
            key = f"{kind}_out{level}"
            if f"{key}_2ch_sub2" in vectors:
                output, key = output[:, :2, ::2, ::2, ::2], f"{key}_2ch_sub2"
            assert vectors.error(key, output).max() <= 1e-3, key
    vectors.close()
