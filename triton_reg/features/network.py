"""Features of a network that a user brings, as a module or as a TorchScript file."""

import copy
import hashlib
import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from triton_reg.features.intensity import Window, windowed
from triton_reg.features.repeatable import repeatable
from triton_reg.weights import Weights


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NetworkFeatures:
    """Whatever a network makes of a windowed volume.

    The network gets one volume ``[1, 1, D, H, W]`` in [0, 1] at a time, so that features never
    depend on batch mates, and returns ``[1, C, D, H, W]``. VoxelOpt compares features by their mean
    absolute difference with an entropy temperature of 0.1: channels that lie in [0, 1] suit it.

    A copy of the network is taken, in evaluation mode and without gradients, so that what `repr`
    shows, and with it a method's fingerprint, stays true whatever happens to the original. With
    ``trainable`` it is the network itself, in its own mode, with gradients; `repr` shows it as it
    is at that moment.

    `repr` tells networks apart by their weights, buffers, structure and plain attributes, and by
    nothing else: of two classes that differ in their code alone, change the name of one.

    Attributes:
        network: ``[1, 1, D, H, W]`` -> ``[1, C, D, H, W]``.
        window: see :class:`triton_reg.features.intensity.Intensity`.
        trainable: whether features have gradients with respect to the network's weights.
    """

    network: nn.Module
    window: Window = (1.0, 99.0)
    trainable: bool = False
    _digest: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            found = type(self.network).__name__
            raise TypeError(f"NetworkFeatures: network must be a torch.nn.Module, got {found}")
        if not self.trainable:
            with torch.no_grad():
                object.__setattr__(self, "network", copy.deepcopy(self.network).eval())
            object.__setattr__(self, "_digest", network_digest(self.network))

    def __repr__(self) -> str:
        digest = self._digest or network_digest(self.network)
        return f"NetworkFeatures({digest}, window={self.window})"

    @classmethod
    def load_torchscript(cls, path: Path, window: Window = (1.0, 99.0)) -> "NetworkFeatures":
        """From a file of ``torch.jit.save``.

        Such a file is a program: it runs with the rights of this process, already while it is
        loaded. Load only what comes from someone you trust.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is not TorchScript.
        """
        content = path.read_bytes()  # once, so that what is run is what the digest is of
        try:
            with warnings.catch_warnings():
                # torch advises to write other files; those that were written still need reading
                warnings.simplefilter("ignore", DeprecationWarning)
                network = torch.jit.load(io.BytesIO(content), map_location="cpu")
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise ValueError(f"{path} is no TorchScript file: {first}") from None
        features = cls(network=network, window=window)
        object.__setattr__(features, "_digest", hashlib.sha256(content).hexdigest())
        return features

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, C, D, H, W]`` of a volume in source units; zero outside the mask.

        Raises:
            TypeError: if the network returns no floating tensor.
            ValueError: if what it returns has another shape than features, or is not finite.
        """
        if not self.trainable:  # it is our own copy
            self.network.to(volume.device)
        inside = windowed(volume, mask, self.window)
        known = next(self.network.parameters(), None)
        inside = inside if known is None else inside.to(known.dtype)
        with (
            torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()),
            repeatable(volume.device),
        ):
            features = torch.cat([_checked(self.network(one), one) for one in inside.split(1)])
        return features * (mask > 0)


def network_digest(network: nn.Module) -> str:
    """A sha256 of a network's weights, buffers, structure and plain attributes."""
    content = hashlib.sha256(Weights.of(network.state_dict()).digest.encode())
    content.update(str(network).encode())
    for name, part in network.named_modules():
        own = sorted(vars(part).items())
        plain = {key: value for key, value in own if isinstance(value, bool | int | float | str)}
        plain.pop("training", None)  # the mode is ours to choose
        content.update(f"{name} {type(part).__qualname__} {plain}".encode())
        if isinstance(part, torch.jit.ScriptModule):
            content.update(part.code.encode())
    return content.hexdigest()


def _checked(features: object, volume: Tensor) -> Tensor:
    """The features of one volume, if that is what they are."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        found = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"NetworkFeatures: the network must return a floating tensor, got {found}")
    size = list(volume.shape[2:])
    if features.dim() != 5 or len(features) != 1 or list(features.shape[2:]) != size:
        raise ValueError(
            f"NetworkFeatures: the network must turn a volume {list(volume.shape)} into features "
            f"[1, C, {', '.join(map(str, size))}], got {list(features.shape)}"
        )
    if not features.isfinite().all():
        raise ValueError("NetworkFeatures: the network returned NaN or infinite features")
    return features
