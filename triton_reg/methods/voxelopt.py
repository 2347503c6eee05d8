"""VoxelOpt: voxel-adaptive message passing for discrete optimisation in deformable registration."""

import hashlib
from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor

from triton_reg.displacement import Displacement, upsample_twice
from triton_reg.features.local import LocalContrast
from triton_reg.features.mind import MindSSC
from triton_reg.method import FeatureExtractor, Features, Result
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.resize import Shape, grid_shape, resize
from triton_reg.ops.solve_level import register_level

# part of the fingerprint: raise it with any change of the arithmetic that changes results
_ARITHMETIC = 3
SMALLEST_SIZE = 16  # voxels per axis: four levels down to two voxels


@dataclass(frozen=True, kw_only=True)
class VoxelOpt:
    """Discrete optimisation of a displacement, coarse to fine, one hard argmin at a time.

    Zhang et al., "VoxelOpt: Voxel-Adaptive Message Passing for Discrete Optimization in Deformable
    Abdominal CT Registration", MICCAI 2025. At each pyramid level a cost volume over a small search
    window is smoothed where its entropy is high; argmins coupled to the smoothed displacement give
    a velocity, which is integrated and composed with what the coarser levels found.

    :meth:`parity` is the released code, :meth:`paper` the text. The defaults differ from the
    released code in four ways: local contrast and intensity as features, three channels that tell
    more than MIND's twelve where both scans are of one kind; a wider filter (sigma up to 1.8
    voxels), which makes the field several times smoother; a second solve at each level, which
    makes up for what that loses of large displacements; and the full grid. Across modalities use
    ``features=MindSSC()``.

    Attributes:
        features: what is compared; any extractor.
        level: how one level is solved.
        levels: pyramid levels at most; small volumes use fewer, so that none is below two voxels.
        solves: how often each level is solved, finest first, each time from what the last found;
            the last number holds for all coarser levels.
        downsample: factor by which features are halved before matching (1 or 2); with 2 the
            displacement, labels and metrics live on the halved grid.
        squarings: steps of scaling and squaring.
    """

    features: FeatureExtractor = field(default_factory=LocalContrast)
    level: LevelSettings = field(default_factory=lambda: LevelSettings(sigma_range=(0.2, 1.8)))
    levels: int = 5
    solves: tuple[int, ...] = (2,)
    downsample: int = 1
    squarings: int = 7

    def __post_init__(self) -> None:
        if self.downsample not in (1, 2):
            raise ValueError(f"VoxelOpt: downsample must be 1 or 2, got {self.downsample}")
        if self.levels < 1:
            raise ValueError(f"VoxelOpt: levels must be at least 1, got {self.levels}")
        if not self.solves or min(self.solves) < 1:
            raise ValueError(f"VoxelOpt: each level is solved at least once, got {self.solves}")

    @classmethod
    def parity(cls, features: FeatureExtractor | None = None, **level: object) -> "VoxelOpt":
        """The released code: half resolution, sigma from 0.1 to 0.5 voxels, window -500 to 800 HU.

        Args:
            features: another extractor than MIND-SSC.
            level: changes to :class:`LevelSettings`.
        """
        settings = replace(LevelSettings(), **level)  # type: ignore[arg-type]
        features = features or MindSSC(window=(-500.0, 800.0))
        return cls(features=features, level=settings, solves=(1,), downsample=2)

    @classmethod
    def paper(cls, features: FeatureExtractor | None = None, **level: object) -> "VoxelOpt":
        """Equations 4 to 6 and the schedule of the paper, on the full grid, window -800 to 500 HU.

        Args:
            features: another extractor than MIND-SSC.
            level: changes to the paper's :class:`LevelSettings`.
        """
        thetas = (150.0, 50.0, 15.0, 5.0, 1.5, 0.5)
        settings = LevelSettings(
            smoothing="adaptive-paper",
            tap_radius=3,
            entropy_radius=1,
            couplings=tuple(1 / (2 * theta) for theta in thetas),
        )
        settings = replace(settings, **level)  # type: ignore[arg-type]
        features = features or MindSSC(window=(-800.0, 500.0))
        return cls(features=features, level=settings, solves=(1,))

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and of the version of the arithmetic."""
        said = f"voxelopt {_ARITHMETIC} {self!r}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Feature pyramids of ``N`` subjects, finest level first.

        Args:
            volume: ``[N, 1, D, H, W]`` in source units.
            mask: of the same shape; features are zero where it is zero.

        Returns:
            One ``[N, C, d, h, w]`` a level; level 0 has the (halved) volume's own size, the coarser
            ones are those of the volume padded to a size that can be halved.

        Raises:
            ValueError: if the (halved) volume is smaller than 16 voxels on an axis.
        """
        finest = self.features(volume, mask)
        if self.downsample == 2:
            finest = resize(finest, _halved(finest))
        levels = self._levels_of(grid_shape(finest))
        pyramid = [finest]
        level = _padded(finest, levels)
        for _ in range(levels - 1):
            level = resize(level, _halved(level))
            pyramid.append(level)
        return tuple(pyramid)

    def register(self, fixed: Features, moving: Features, pairs: Tensor) -> Result:
        """Register pairs of prepared subjects.

        Args:
            fixed, moving: what :meth:`prepare` returned.
            pairs: ``[B, 2]`` row numbers into fixed and moving.

        Returns:
            The displacement on the (halved) working grid, and in ``extras`` the ``entropy``
            ``[B, D, H, W]`` of the finest level in nats.

        Raises:
            ValueError: if fixed and moving features differ in shape.
        """
        displacement = entropy = None
        for level in reversed(range(len(fixed))):
            target, source = self._level(fixed, moving, pairs, level)
            if displacement is not None:
                displacement = upsample_twice(displacement, grid_shape(target))
            for _ in range(self.solves[min(level, len(self.solves) - 1)]):
                displacement, entropy = register_level(
                    target, source, displacement, self.level, self.squarings
                )
        assert displacement is not None
        assert entropy is not None
        shape = grid_shape(fixed[0])
        return Result(
            Displacement(_cropped(displacement, shape), shape, shape),
            {"entropy": _cropped(entropy, shape)},
        )

    def _level(
        self, fixed: Features, moving: Features, pairs: Tensor, level: int
    ) -> tuple[Tensor, Tensor]:
        """Fixed and moving features of the pairs at one level, in at least float32."""
        chosen = []
        for features, rows in zip((fixed, moving), pairs.unbind(1), strict=True):
            one = features[level].index_select(0, rows)
            one = one.float() if one.element_size() < 4 else one
            chosen.append(_padded(one, len(fixed)) if level == 0 else one)
        return chosen[0], chosen[1]

    def _levels_of(self, shape: Shape) -> int:
        if min(shape) < SMALLEST_SIZE:
            raise ValueError(
                f"VoxelOpt: each size must be at least {SMALLEST_SIZE} voxels"
                f"{' after halving' if self.downsample == 2 else ''}, got {shape}"
            )
        return min(self.levels, min(shape).bit_length() - 1)


def _halved(field: Tensor) -> Shape:
    depth, height, width = grid_shape(field)
    return depth // 2, height // 2, width // 2


def _padded(field: Tensor, levels: int) -> Tensor:
    """Repeat the last voxels until every size can be halved ``levels - 1`` times."""
    unit = 2 ** (levels - 1)
    missing = [-size % unit for size in field.shape[2:]]
    if not any(missing):
        return field
    return F.pad(field, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def _cropped(field: Tensor, shape: Shape) -> Tensor:
    """Undo :func:`_padded` on a field whose last three axes are the volume's."""
    depth, height, width = shape
    return field[..., :depth, :height, :width].contiguous()
