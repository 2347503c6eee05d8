"""Which feature network, and how large."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal, get_args

from torch import nn

from triton_reg.features.coded import CodedFeatures
from triton_reg.features.lku import LKU, LKUEncoder
from triton_reg.features.lku_mini import LKUMini
from triton_reg.features.unet_levels import UNet, UNetEncoder

Kind = Literal["unet", "unet_encoder", "lku", "lku_encoder", "lku_encoder2", "lku_mini"]
_COARSEST = {"lku_mini": 4}  # 8 for the others
_UNIT = {"unet": 16, "lku": 16, "lku_mini": 4}  # the coarsest level for the others


@dataclass(frozen=True, kw_only=True, repr=False)
class Architecture:
    """A feature network of deep implicit optimisation (DIO), without its weights.

    Jena, Chaudhari and Gee, "Deep implicit optimization enables robust learnable features for
    deformable image registration", Medical Image Analysis 2025.

    Attributes:
        kind: ``"unet"`` is :class:`triton_reg.features.unet_levels.UNet`, ``"lku"``
            :class:`triton_reg.features.lku.LKU`; the encoders have a network for each level
            (``"lku_encoder2"`` is version 2); ``"lku_mini"`` takes MIND-SSC instead of the volume.
        levels: downsampling factors of the features, coarse to fine: powers of 2, at most 8, or 4
            for ``"lku_mini"``.
        channels: of the features.
        width: feature maps at full resolution; the published numbers are 16, and 8 for
            ``"lku_mini"``.
        structures: so many have a code, of which the features are means, see
            :class:`triton_reg.features.coded.CodedFeatures`; 0 for features of any kind.
    """

    kind: Kind
    levels: tuple[int, ...] = (4, 2, 1)
    channels: int = 16
    width: int = 16
    structures: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            raise ValueError(f"Architecture: kind must be one of {kinds}, got {self.kind!r}")
        coarsest = _COARSEST.get(self.kind, 8)
        known = all(level in (8, 4, 2, 1) and level <= coarsest for level in self.levels)
        if not self.levels or not known or any(one <= two for one, two in pairwise(self.levels)):
            raise ValueError(
                f"Architecture: levels of {self.kind} must be powers of 2 from {coarsest} down, "
                f"coarse to fine, got {self.levels}"
            )
        if self.channels < 1 or self.width < 2:
            raise ValueError(
                f"Architecture: needs channels of at least 1 and a width of at least 2, got "
                f"{self.channels} and {self.width}"
            )
        if self.structures < 0:
            raise ValueError(f"Architecture: structures must be 0 or more, got {self.structures}")

    def __repr__(self) -> str:
        """All settings, as fingerprints take them; those of methods without codes stay theirs."""
        names = [one.name for one in fields(self) if one.name != "structures" or self.structures]
        return f"Architecture({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def unit(self) -> int:
        """What the sizes of a volume must be divisible by."""
        return _UNIT.get(self.kind, max(self.levels))

    def build(self, seed: int = 0) -> nn.Module:
        """The network with initial weights; the global random state stays as it is.

        It turns ``[N, 1, D, H, W]`` (12 channels for ``"lku_mini"``), with sizes divisible by
        :attr:`unit`, into one ``[N, channels, D / level, H / level, W / level]`` a level.
        """
        network = self._build_raw(seed)
        if not self.structures:
            return network
        return CodedFeatures(network, self.channels, self.structures, seed)

    def _build_raw(self, seed: int) -> nn.Module:
        levels, channels, width = self.levels, self.channels, self.width
        match self.kind:
            case "unet":
                return UNet(levels, channels, width, seed)
            case "unet_encoder":
                return UNetEncoder(levels, channels, width, seed=seed)
            case "lku":
                return LKU(levels, channels, width, seed)
            case "lku_mini":
                return LKUMini(levels, channels, width, seed=seed)
            case "lku_encoder":
                return LKUEncoder(levels, channels, width, version=1, seed=seed)
            case "lku_encoder2":
                return LKUEncoder(levels, channels, width, version=2, seed=seed)
