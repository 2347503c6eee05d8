"""VoxelOpt: voxel-adaptive message passing for discrete optimisation in deformable registration."""

import hashlib
from dataclasses import dataclass, field, replace

from torch import Tensor

from triton_reg.displacement import Displacement, upsample_twice
from triton_reg.features.local import LocalContrast
from triton_reg.features.mind import MindSSC
from triton_reg.method import FeatureExtractor, Features, Prompts, Result
from triton_reg.methods.checks import (
    check_on_grid,
    check_pairs,
    check_same_grid,
    checked_volume,
    refuse_prompts,
)
from triton_reg.methods.pyramid import (
    cropped,
    features_of,
    halved,
    level_count,
    masked_pyramid,
    padded,
)
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.pyramid_settings import Precision, PyramidSettings
from triton_reg.ops.register_pyramid import (
    is_on_gpu,
    is_stored,
    register_pyramid,
    stored_pyramid,
)
from triton_reg.ops.resize import grid_shape, resize
from triton_reg.ops.solve_level import register_level

# part of the fingerprint: raise it with any change of the arithmetic that changes results
_ARITHMETIC = 3


@dataclass(frozen=True, kw_only=True)
class VoxelOpt:
    """Discrete optimisation of a displacement, coarse to fine, one hard argmin at a time.

    Zhang et al., "VoxelOpt: Voxel-Adaptive Message Passing for Discrete Optimization in Deformable
    Abdominal CT Registration", MICCAI 2025. At each pyramid level a cost volume over a small search
    window is smoothed where its entropy is high; argmins coupled to the smoothed displacement give
    a velocity, which is integrated and composed with what the coarser levels found.

    :meth:`parity` is the released code, :meth:`paper` the text. The defaults differ from the
    released code in four ways: local contrast and intensity as features, four channels that tell
    more than MIND's twelve where both scans are of one kind; a wider filter (sigma from 0.5 to 3
    voxels), which makes the field several times smoother; two coupled argmins instead of six,
    which makes up for the overlap that a smoother field loses; and the full grid. Across
    modalities use ``features=MindSSC()``.

    Attributes:
        features: what is compared; any extractor.
        level: how one level is solved.
        levels: pyramid levels at most; small volumes use fewer, so that none is below two voxels.
        solves: how often each level is solved, finest first, each time from what the last found;
            the last number holds for all coarser levels.
        downsample: factor by which features are halved before matching (1 or 2); with 2 the
            displacement, labels and metrics live on the halved grid.
        squarings: steps of scaling and squaring.
        precision: on a GPU, ``"fast"`` stores features, filter weights and cost volume of the two
            finest levels in fp16 and calculates in float32; ``"exact"`` stores float32. On a CPU
            both are float32.
    """

    features: FeatureExtractor = field(default_factory=LocalContrast)
    level: LevelSettings = field(
        default_factory=lambda: LevelSettings(sigma_range=(0.5, 3.0), couplings=(0.03, 0.3))
    )
    levels: int = 5
    solves: tuple[int, ...] = (1,)
    downsample: int = 1
    squarings: int = 7
    precision: Precision = "fast"

    def __post_init__(self) -> None:
        if self.downsample not in (1, 2):
            raise ValueError(f"VoxelOpt: downsample must be 1 or 2, got {self.downsample}")
        if self.levels < 1:
            raise ValueError(f"VoxelOpt: levels must be at least 1, got {self.levels}")
        if not self.solves or min(self.solves) < 1:
            raise ValueError(f"VoxelOpt: each level is solved at least once, got {self.solves}")
        if self.precision not in ("fast", "exact"):
            raise ValueError(f"VoxelOpt: precision must be fast or exact, got {self.precision!r}")

    @classmethod
    def parity(cls, features: FeatureExtractor | None = None, **level: object) -> "VoxelOpt":
        """The released code: half resolution, sigma from 0.1 to 0.5 voxels, window -500 to 800 HU.

        Precision is exact.

        Args:
            features: another extractor than MIND-SSC.
            level: changes to :class:`LevelSettings`.
        """
        settings = replace(LevelSettings(), **level)  # type: ignore[arg-type]
        features = features or MindSSC(window=(-500.0, 800.0))
        return cls(features=features, level=settings, solves=(1,), downsample=2, precision="exact")

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
            mask: of the same shape. With ``level.masked`` only what is inside the masks of both
                subjects is compared; else features are zero where the mask is.

        Returns:
            One ``[N, C, d, h, w]`` a level; level 0 has the (halved) volume's own size, the coarser
            ones are those of the volume padded to a size that can be halved. On a GPU, what
            :func:`triton_reg.ops.register_pyramid.stored_pyramid` makes of them.

        Raises:
            ValueError: if volume or mask has another shape than these, if the (halved) volume is
                smaller than 16 voxels on an axis, if the extractor's features lie on another grid
                than the volume, if a mask is empty, or if a feature does not fit into fp16 on a
                GPU.
        """
        volume = checked_volume("VoxelOpt", volume, mask)
        finest = self.features(volume, mask)
        check_on_grid("VoxelOpt", finest, volume)
        inside = (mask > 0).to(finest.dtype)
        shape = halved(finest) if self.downsample == 2 else grid_shape(finest)
        levels = level_count(shape, self.levels)
        if self.downsample == 2:
            finest, inside = (resize(one, shape) for one in (finest, inside))
        if self.level.masked:
            pyramid = masked_pyramid(finest, inside, levels, resize)
        else:
            pyramid = [padded(finest, levels)]
            for _ in range(levels - 1):
                pyramid.append(resize(pyramid[-1], halved(pyramid[-1])))
        if is_on_gpu(finest):
            return stored_pyramid(pyramid, shape, self._pyramid_settings)
        return cropped(pyramid[0], shape), *pyramid[1:]

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """Register pairs of prepared subjects.

        Args:
            fixed, moving: what :meth:`prepare` returned.
            pairs: ``[B, 2]`` row numbers into fixed and moving.
            prompts: none are taken.

        Returns:
            The displacement on the (halved) working grid, and in ``extras`` the ``entropy``
            ``[B, D, H, W]`` of the finest level in nats.

        Raises:
            TypeError: if pairs are neither int32 nor int64.
            ValueError: if fixed and moving features differ in shape, if pairs are not rows of
                theirs, or if there are prompts.
        """
        refuse_prompts("VoxelOpt", prompts)
        check_same_grid("VoxelOpt", fixed, moving)
        check_pairs("VoxelOpt", pairs, fixed, moving)
        if is_stored(fixed):
            displacement, entropy = register_pyramid(fixed, moving, pairs, self._pyramid_settings)
        else:
            displacement, entropy = self._register_levels(fixed, moving, pairs)
        shape = grid_shape(displacement)
        return Result(Displacement(displacement, shape, shape), {"entropy": entropy})

    def _register_levels(
        self, fixed: Features, moving: Features, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Displacement and entropy on the working grid, level by level."""
        displacement = entropy = None
        for level in reversed(range(len(fixed))):
            target, source = features_of(fixed, moving, pairs, level)
            if displacement is not None:
                displacement = upsample_twice(displacement, grid_shape(target))
            for _ in range(self.solves[min(level, len(self.solves) - 1)]):
                displacement, entropy = register_level(
                    target, source, displacement, self.level, self.squarings
                )
        assert displacement is not None
        assert entropy is not None
        shape = grid_shape(fixed[0])
        return cropped(displacement, shape), cropped(entropy, shape)

    @property
    def _pyramid_settings(self) -> PyramidSettings:
        return PyramidSettings(
            level=self.level,
            solves=self.solves,
            squarings=self.squarings,
            precision=self.precision,
        )
