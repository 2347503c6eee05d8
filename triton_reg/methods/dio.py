"""DIO: features, from a network or not, that an optimiser registers, whatever the transform."""

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.features.intensity import Intensity
from triton_reg.method import FeatureExtractor, Features, Prompts, Result, at_least_float32
from triton_reg.methods.checks import check_on_grid, check_pairs, check_prompts, checked_volume
from triton_reg.methods.descent import StopRule
from triton_reg.methods.dio_settings import LINEAR, TRANSFORMS, DescentSettings, Transform
from triton_reg.methods.dio_solver import Sides, Solver
from triton_reg.methods.prompt_terms import PromptWeights
from triton_reg.methods.regularisers import Regularisers
from triton_reg.ops.advance import Vector
from triton_reg.ops.blocks import block_means
from triton_reg.ops.checks import check_choice
from triton_reg.ops.feature_force import ForceSettings, Loss
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.sampling import Derivative

# part of the fingerprint: raise it with any change of the arithmetic that changes results
_ARITHMETIC = 3
_PAIRS_AT_ONCE = 8  # on a GPU: what its memory surely holds


@runtime_checkable
class LevelExtractor(Protocol):
    """A feature extractor that has features of its own for each level."""

    @property
    def levels(self) -> tuple[int, ...]:
        """How much coarser than the volume each level is, coarsest first."""
        ...

    def levels_of(self, volume: Tensor, mask: Tensor) -> list[Tensor]:
        """``[N, 1, D, H, W]`` -> ``[N, C, ceil(D / level), ...]`` for each of ``levels``."""
        ...


@dataclass(frozen=True, kw_only=True)
class DIO:
    """Deep implicit optimisation: an optimiser brings features of several levels together.

    Jena et al., "Deep implicit optimization enables robust learnable features for deformable image
    registration", Medical Image Analysis 2025. Features know one subject alone; which transform,
    loss and regularisers they are registered with is decided here, without training again. The
    defaults need no network: local correlation of intensities under diffeomorphisms, as in ANTs and
    greedy.

    Geodesic shooting is not among the transforms: its momenta would have to be integrated and
    differentiated through an Euler-Poincare equation for each step, which no published DIO does and
    which nothing here could be checked against. ``"svf"`` has geodesics of its own, the
    one-parameter subgroups.

    Attributes:
        features: any extractor. One with a ``levels_of`` says which levels there are; of others
            the features are averaged over the blocks of ``levels``.
        transform: ``"freeform"``; ``"diffeomorphic"``, steps composed; ``"svf"``, a stationary
            velocity; ``"bspline"``; ``"affine"``; ``"rigid"``.
        first: an affine or rigid map that is found before.
        loss: ``"mse"`` or ``"lncc"`` of the features; None takes local correlation of plain
            intensities and the squared difference of all else. Squared differences are those of
            features at unit amplitude, see :func:`triton_reg.methods.amplitude.at_unit_amplitude`,
            but in published units: other terms weigh the same beside any features.
        window: width of the cubes of local correlation in voxels of a level.
        derivative: of samples; ``"linear"`` is that of the published code.
        levels: how much coarser than the volume each level is, coarsest first, for extractors
            that do not say so themselves.
        iterations: at most, on each level.
        descent: step, smoothing and stopping.
        regularisers: further terms of the loss.
        prompt_weights: what prompts count.
        spline_spacing: of B-spline control points, in voxels.
        voxel: sizes of a voxel along each axis, up to a factor, in which only keypoints are
            measured: in mm it makes theirs squared mm.
        masked: compare inside both masks alone.
        diagnose: also say how much of each level's last step lies along the moving volume's
            intensity gradient, see :func:`triton_reg.methods.descent.step_cosine`.
    """

    features: FeatureExtractor = field(default_factory=Intensity)
    transform: Transform = "diffeomorphic"
    first: Literal["affine", "rigid"] | None = None
    loss: Loss | None = None
    window: int = 3
    derivative: Derivative = "symmetric"
    levels: tuple[int, ...] = (4, 2, 1)
    iterations: tuple[int, ...] = (200, 100, 50)
    descent: DescentSettings = field(default_factory=DescentSettings)
    regularisers: Regularisers = field(default_factory=Regularisers)
    prompt_weights: PromptWeights = field(default_factory=PromptWeights)
    spline_spacing: float = 4.0
    voxel: Vector = (1.0, 1.0, 1.0)
    masked: bool = False
    diagnose: bool = False

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise ValueError(
                f"DIO: transform must be one of {', '.join(TRANSFORMS)}, got {self.transform!r};"
                " the documentation of DIO says why geodesic shooting is not among them"
            )
        if self.first is not None:
            check_choice("DIO", "first", self.first, LINEAR)
        _ = self.force  # raises for a loss or a window that there is not
        factors = self.level_factors
        if len(self.iterations) != len(factors):
            raise ValueError(
                f"DIO: needs iterations for each of the levels {factors}, got {self.iterations}"
            )
        uneven = any(coarse <= fine or coarse % fine for coarse, fine in pairwise(factors))
        if not factors or min(factors) < 1 or uneven:
            raise ValueError(
                "DIO: each level's factor must be a multiple of the next one's, coarsest first, "
                f"got {factors}"
            )

    @classmethod
    def published(
        cls,
        features: FeatureExtractor | None = None,
        transform: Literal["freeform", "diffeomorphic"] = "freeform",
    ) -> "DIO":
        """Units, derivative and settings of the released code at test time.

        Two runs of it agree only as far as rounding lets samples on voxels: see ``derivative``.
        """
        return cls(
            features=features or Intensity(),
            transform=transform,
            loss="mse",
            derivative="linear",
            window=7,
            descent=DescentSettings(units="published", rule=StopRule(tolerance=1e-3, patience=4)),
        )

    @property
    def level_factors(self) -> tuple[int, ...]:
        """How much coarser than the volume each level is, coarsest first."""
        own = self.features
        return own.levels if isinstance(own, LevelExtractor) else self.levels

    @property
    def force(self) -> ForceSettings:
        """How features are compared."""
        loss = self.loss or ("lncc" if isinstance(self.features, Intensity) else "mse")
        return ForceSettings(loss=loss, window=self.window, derivative=self.derivative)

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and of the version of the arithmetic."""
        said = f"dio {_ARITHMETIC} {self!r}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Features of ``N`` subjects at every level.

        Args:
            volume: ``[N, 1, D, H, W]`` in source units.
            mask: of the same shape.

        Returns:
            For each level ``[N, C, ceil(D / level), ...]`` with the channels last in memory; with
            ``masked``, for each level the share of its voxels inside the mask; with ``diagnose``,
            its intensities; and a part without channels that holds the volume's size.

        Raises:
            ValueError: if volume or mask has another shape than these, or the extractor's features
                lie on another grid than the volume.
        """
        volume, extractor = checked_volume("DIO", volume, mask), self.features
        if isinstance(extractor, LevelExtractor):
            levels = extractor.levels_of(volume, mask)
        else:
            whole = extractor(volume, mask)
            check_on_grid("DIO", whole, volume)
            levels = [block_means(whole, factor) for factor in self.levels]
        beside = []
        if self.masked:
            inside = (mask > 0).to(volume)
            beside += [block_means(inside, factor) for factor in self.level_factors]
        if self.diagnose:
            whole = Intensity()(volume, mask)
            beside += [block_means(whole, factor) for factor in self.level_factors]
        kept = [one.contiguous(memory_format=torch.channels_last_3d) for one in levels]
        return *kept, *beside, volume[:, :0]

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """Register pairs of subjects, whose volumes may differ in size.

        Args:
            fixed, moving: what :meth:`prepare` returned.
            pairs: ``[B, 2]`` row numbers into fixed and moving.
            prompts: what else is known of each pair.

        Returns:
            The displacement, and in ``extras`` how each level went, ``[B, levels]``, those of
            ``first`` before the others: ``iterations``, ``converged`` (1 if it stopped by itself, 0
            if it used all iterations), ``loss`` (the last) and ``gradient_ratio`` (length of the
            last gradient over that of the first); with ``diagnose`` also ``step_cosine``.

        Raises:
            TypeError, ValueError: if pairs are not rows of the subjects, or prompts of other pairs.
        """
        check_pairs("DIO", pairs, fixed, moving)
        check_prompts("DIO", prompts, pairs)
        at_once = 1 if prompts is not None else self.pairs_at_once(fixed[0].device)
        found = []
        for row, some in enumerate(pairs.split(at_once)):
            told = None if prompts is None else prompts.of(row)
            of_fixed, of_moving = some.long().unbind(1)
            # kept by nobody but the solver, which may go on with others of unit amplitude
            solver = Solver(self, self._side(fixed, of_fixed), self._side(moving, of_moving), told)
            found.append(solver.solve())
        vectors, courses = zip(*found, strict=True)
        extras = {name: torch.cat([one[name] for one in courses]) for name in courses[0]}
        shapes = grid_shape(fixed[-1]), grid_shape(moving[-1])
        return Result(Displacement(torch.cat(vectors), *shapes), extras)

    def pairs_at_once(self, device: torch.device) -> int:
        """How many pairs without prompts are solved together.

        Where torch's own sums and products decide, whose order may depend on how many there are,
        pairs are solved one by one: a batch must not change a pair's bits.
        """
        is_fused = self.transform in ("freeform", "diffeomorphic") and self.first is None
        is_plain = is_fused and self.regularisers == Regularisers() and not self.diagnose
        return _PAIRS_AT_ONCE if is_plain and device.type != "cpu" else 1

    def feature_levels(self, features: Features) -> list[Tensor]:
        """What is compared on each level, coarsest first: ``[N, C, d, h, w]``."""
        return list(features[: len(self.level_factors)])

    def _side(self, features: Features, rows: Tensor) -> Sides:
        """Some subjects' features by level."""
        count = len(self.level_factors)
        *parts, volume = features
        chosen = [at_least_float32(part[rows]) for part in parts]
        masks = chosen[count : 2 * count] if self.masked else []
        volumes = chosen[-count:] if self.diagnose else []
        return Sides(chosen[:count], masks, grid_shape(volume), volumes)
