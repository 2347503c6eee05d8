"""Foundation features of VoxelOpt: the 3D U-Net of a segmentation model, applied to one volume."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.features.intensity import Window, windowed
from triton_reg.features.repeatable import repeatable
from triton_reg.ops.blocks import continued
from triton_reg.weights import Weights, load_weights

_CHANNELS = 8
_GROUPS = 16  # of the head's normalisation
_HALVINGS = 3
_EPS = 1e-5
# input and output channels of both convolutions of each stage; the names are the checkpoint's
_ENCODER = {
    "down_tr64": (1, 32, 64),
    "down_tr128": (64, 64, 128),
    "down_tr256": (128, 128, 256),
    "down_tr512": (256, 256, 512),
}
_DECODER = {"up_tr256": (512, 768, 256), "up_tr128": (256, 384, 128), "up_tr64": (128, 192, 64)}


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, in the order of the checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for stage, (first, second, third) in _ENCODER.items():
        shapes |= _block_shapes(f"{stage}.ops.0", first, second)
        shapes |= _block_shapes(f"{stage}.ops.1", second, third)
    for stage, (below, joined, out) in _DECODER.items():
        shapes[f"{stage}.up_conv.weight"] = (below, below, 2, 2, 2)
        shapes[f"{stage}.up_conv.bias"] = (below,)
        shapes |= _block_shapes(f"{stage}.ops.0", joined, out)
        shapes |= _block_shapes(f"{stage}.ops.1", out, out)
    return shapes | {
        "precls_conv.0.weight": (64,),
        "precls_conv.0.bias": (64,),
        "precls_conv.2.weight": (_CHANNELS, 64, 1, 1, 1),
        "precls_conv.2.bias": (_CHANNELS,),
    }


@dataclass(frozen=True, kw_only=True)
class SegmentationUNet:
    """Eight pre-softmax channels of a U-Net that was trained to segment.

    The backbone of the CLIP-driven Universal Model (Liu et al., ICCV 2023) as VoxelOpt uses it.
    Normalisation takes each volume's own statistics, so features never depend on batch mates.
    Volumes whose sizes are not divisible by 8 are padded inside by their edge voxels.

    Attributes:
        weights: the network's, see :meth:`load`.
        window: see :class:`triton_reg.features.intensity.Intensity`.
    """

    weights: Weights
    window: Window = (-500.0, 800.0)

    def __post_init__(self) -> None:
        self.weights.checked(expected_shapes())

    @classmethod
    def load(cls, path: Path, window: Window = (-500.0, 800.0)) -> "SegmentationUNet":
        """From a checkpoint whose names are the network's own or those of the published model.

        Raises:
            ValueError: listing the names that are missing or of another shape.
        """
        return cls(weights=Weights.of(_own_names(load_weights(path))), window=window)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, 8, D, H, W]`` of a volume in source units; zero outside the mask."""
        unit = 2**_HALVINGS
        padded = continued(windowed(volume, mask, self.window), (unit, unit, unit))
        depth, height, width = volume.shape[2:]
        with repeatable(volume.device):
            features = forward(padded, self.weights.tensors)
        return features[..., :depth, :height, :width] * (mask > 0)


def forward(volume: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The network itself: ``[N, 1, D, H, W]``, sizes divisible by 8 -> ``[N, 8, D, H, W]``."""
    weights = {name: tensor.to(volume) for name, tensor in weights.items()}
    skips = []
    features = volume
    for level, stage in enumerate(_ENCODER):
        if level:
            features = F.max_pool3d(features, 2)
        features = _blocks(features, weights, stage)
        skips.append(features)
    for stage, skip in zip(_DECODER, skips[-2::-1], strict=True):
        up = weights[f"{stage}.up_conv.weight"], weights[f"{stage}.up_conv.bias"]
        features = torch.cat([F.conv_transpose3d(features, *up, stride=2), skip], dim=1)
        features = _blocks(features, weights, stage)
    scale, shift = weights["precls_conv.0.weight"], weights["precls_conv.0.bias"]
    features = F.group_norm(features, _GROUPS, scale, shift, _EPS).relu()
    return F.conv3d(features, weights["precls_conv.2.weight"], weights["precls_conv.2.bias"])


def _blocks(features: Tensor, weights: Mapping[str, Tensor], stage: str) -> Tensor:
    """Twice: convolution, normalisation by the volume's own statistics, ReLU."""
    for index in range(2):
        conv, norm = f"{stage}.ops.{index}.conv1", f"{stage}.ops.{index}.bn1"
        features = F.conv3d(features, weights[f"{conv}.weight"], weights[f"{conv}.bias"], padding=1)
        scale, shift = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
        features = F.instance_norm(features, weight=scale, bias=shift, eps=_EPS).relu()
    return features


def _block_shapes(name: str, channels_in: int, channels_out: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.conv1.weight": (channels_out, channels_in, 3, 3, 3),
        f"{name}.conv1.bias": (channels_out,),
        f"{name}.bn1.weight": (channels_out,),
        f"{name}.bn1.bias": (channels_out,),
    }


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own names; a published checkpoint has more tensors, and prefixes."""
    wanted = expected_shapes()
    named = {}
    for name, tensor in tensors.items():
        own = name.removeprefix("module.").removeprefix("backbone.")
        if own in wanted or own == name:
            named[own] = tensor
    # running statistics are never used: each volume is normalised by its own
    unused = ("running_mean", "running_var", "num_batches_tracked")
    return {name: tensor for name, tensor in named.items() if not name.endswith(unused)}
