"""PDD-Net: probabilities of many displacements at each control point of a coarse grid."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.features.averaged import averaged
from triton_reg.features.local import LocalContrast
from triton_reg.features.obelisk import Obelisk
from triton_reg.method import FeatureExtractor, Features, Prompts, Result, at_least_float32
from triton_reg.methods.checks import check_pairs, check_prompts, check_same_grid, checked_volume
from triton_reg.methods.prompt_terms import PromptWeights, anchors_of, label_channels, moved_back
from triton_reg.methods.search import CubeSearch, EvenSearch, Search, label_shares, label_steps
from triton_reg.ops.checks import check_choice
from triton_reg.ops.dense_match import COVARIANCE_AXES, DenseMatch, dense_match
from triton_reg.ops.instance_fit import FitSettings, instance_fit
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.resize import Shape, grid_shape, resize
from triton_reg.ops.warp import warp

# part of the fingerprint: raise it with any change of the arithmetic that changes results
_ARITHMETIC = 2
# on a GPU: as many cost volumes as its memory surely holds
_PAIRS_AT_ONCE = 8

Composition = Literal["control", "full"]


@dataclass(frozen=True, kw_only=True)
class PDDNet:
    """Probabilistic dense displacements, smoothed between labels and between control points.

    Heinrich, "Closing the gap between deep and conventional image registration using probabilistic
    dense displacement networks", MICCAI 2019. Every control point tries every displacement label;
    messages between neighbours turn the costs into probabilities, whose expectation is the
    displacement. Each further stage starts from the moving volume warped by what is known, with
    features of the warped volume.

    :meth:`v01` and :meth:`two_warp` are the released scripts. The defaults need no weights: local
    contrast and intensity as features (across modalities use ``MindSSC()``), lengths that are the
    same along every axis, four stages, each finer than the last, and the exact min-convolution,
    which overlaps better and smoother than its pooled approximation.

    Attributes:
        features: what is compared; any extractor. Features on the volume's own grid are averaged
            over ``feature_step`` voxels an axis.
        stages: the searches, one after the other.
        weights: scale, kept, spread and sharpness of
            :func:`triton_reg.ops.dense_match.dense_match`: the published alphas 0, 2, 3 and 5.
        match: how probabilities spread.
        fit: how a smooth displacement is fitted to the probabilities; None takes their expectation.
        feature_step: see ``features``.
        composition: ``"control"`` composes stages on the last one's control points, and continues
            fields and volumes as at their border; ``"full"`` as the released script does, on the
            volume's grid and with zeros outside.
        prompt_weights: what prompts count, see :class:`PromptWeights`.
    """

    features: FeatureExtractor = field(default_factory=LocalContrast)
    stages: tuple[Search, ...] = (
        EvenSearch(spacing=6, width=9, extent=10),
        EvenSearch(spacing=4, width=7, extent=5),
        EvenSearch(spacing=3, width=5, extent=2),
        EvenSearch(spacing=2.5, width=5, extent=1.5),
    )
    weights: tuple[float, float, float, float] = (30.0, 1.0, 4.0, 1.0)
    match: MatchSettings = field(
        default_factory=lambda: MatchSettings(smoothing="exact_min_convolution", curvature=3.0)
    )
    fit: FitSettings | None = None
    feature_step: int = 1
    composition: Composition = "control"
    prompt_weights: PromptWeights = field(default_factory=PromptWeights)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("PDDNet: needs at least one stage")
        if self.feature_step < 1:
            raise ValueError(f"PDDNet: feature_step must be at least 1, got {self.feature_step}")
        check_choice("PDDNet", "composition", self.composition, get_args(Composition))
        if len(self.weights) != 4:
            raise ValueError(f"PDDNet: needs four weights, got {self.weights}")

    @classmethod
    def v01(cls, features: FeatureExtractor) -> "PDDNet":
        """Grid, search and initial weights of the paper and the released v0.1 script."""
        stage = CubeSearch(count=32, width=15, share=0.4)
        return cls(
            features=features,
            stages=(stage,),
            weights=(1.0, 1.0, 1.0, 1.0),
            match=MatchSettings(),
        )

    @classmethod
    def two_warp(cls, features: Path | FeatureExtractor) -> "PDDNet":
        """The released script with two warps and instance optimisation, for abdominal CT.

        Args:
            features: the file of its weights, or another extractor.
        """
        extractor = Obelisk.published(features) if isinstance(features, Path) else features
        return cls(
            features=extractor,
            stages=(
                CubeSearch(count=29, width=11, share=0.25),
                CubeSearch(count=39, width=11, share=0.15),
            ),
            weights=(1.1337, 1.0533, -0.7469, 1.1337),
            match=MatchSettings(),
            fit=FitSettings(),
            composition="full",
        )

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and of the version of the arithmetic."""
        said = f"pdd_net {_ARITHMETIC} {self!r}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Features of ``N`` subjects, and what later stages need of them.

        Args:
            volume: ``[N, 1, D, H, W]`` in source units.
            mask: of the same shape.

        Returns:
            Features ``[N, C, d, h, w]``, the volume and its mask; with one stage the last two have
            no channel and hold but the volume's size.
        """
        volume = checked_volume("PDDNet", volume, mask)
        again = slice(None) if len(self.stages) > 1 else slice(0)
        features = averaged(self.features(volume, mask), grid_shape(volume), self.feature_step)
        # copies: whoever gave the volume may use its memory again
        inside = (mask > 0).to(volume.dtype)
        return features, volume[:, again].clone(), inside[:, again].clone()

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """Register pairs of subjects.

        Args:
            fixed, moving: what :meth:`prepare` returned.
            pairs: ``[B, 2]`` row numbers into fixed and moving.
            prompts: what else is known of each pair.

        Returns:
            The displacement on the last stage's control points (``composition="full"``: on the
            volume's grid), and in ``extras`` what they say of it: ``entropy [B, d, h, w]`` in nats
            and ``covariance [B, 6, d, h, w]`` in squared voxels, ordered as ``COVARIANCE_AXES``.

        Raises:
            TypeError, ValueError: if features differ in shape or pairs are not rows of theirs.
        """
        check_same_grid("PDDNet", fixed, moving)
        check_pairs("PDDNet", pairs, fixed, moving)
        check_prompts("PDDNet", prompts, pairs)
        at_once = 1 if prompts is not None or fixed[0].is_cpu else _PAIRS_AT_ONCE
        found = []
        for row, some in enumerate(pairs.split(at_once)):
            target, source = (
                [at_least_float32(part[rows]) for part in features]
                for features, rows in zip((fixed, moving), some.long().unbind(1), strict=True)
            )
            told = None if prompts is None else prompts.of(row)
            found.append(self._register_some(target, source, told))
        displacements, entropies, covariances = zip(*found, strict=True)
        shape = grid_shape(fixed[1])
        return Result(
            Displacement(torch.cat(displacements), shape, shape),
            {"entropy": torch.cat(entropies), "covariance": torch.cat(covariances)},
        )

    def _register_some(
        self, fixed: list[Tensor], moving: list[Tensor], prompts: Prompts | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Displacement in voxels, entropy and covariance of a few pairs; of one, with prompts."""
        target, (source, volume, mask) = fixed[0], moving
        shape = grid_shape(volume)
        total = match = None
        for search in self.stages:
            known = prompts
            if total is not None:
                now = Displacement(total, shape, shape)
                padding = "zeros" if self.composition == "full" else "border"
                warped = now.warp(volume, padding=padding)
                inside = now.warp(mask, interpolation="nearest", padding=padding)
                source = averaged(self.features(warped, inside), shape, self.feature_step)
                known = None if prompts is None else moved_back(prompts, now)
            match, vectors = self._stage(target, source, search, shape, known)
            total = vectors if total is None else self._composed(total, vectors, shape)
        assert total is not None
        assert match is not None
        if self.composition == "full":
            total = resize(total, shape)
        steps = label_steps(search, shape)
        units = [steps[first] * steps[second] for first, second in COVARIANCE_AXES]
        covariance = match.covariance * match.covariance.new_tensor(units).view(1, 6, 1, 1, 1)
        return total, match.entropy, covariance

    def _stage(
        self, fixed: Tensor, moving: Tensor, search: Search, shape: Shape, prompts: Prompts | None
    ) -> tuple[DenseMatch, Tensor]:
        """The match of one stage, and its displacement in voxels on its control points."""
        points, reach = search.points(shape), search.reach(shape)
        anchors = None
        if prompts is not None:
            steps = label_steps(search, shape)
            size = grid_shape(fixed)
            channels = label_channels(prompts, self.prompt_weights, size)
            fixed, moving = (
                torch.cat(both, dim=1) for both in zip((fixed, moving), channels, strict=True)
            )
            anchors = anchors_of(prompts, self.prompt_weights, points, shape, steps)
            if anchors is not None:
                anchors[:, 3] *= self.weights[0]
        lattice = Lattice.corner_aligned(grid_shape(moving), points, search.width, reach)
        match = dense_match(
            resize(fixed, points),
            moving,
            fixed.new_tensor(self.weights),
            lattice,
            self.match,
            anchors=anchors,
            keep_probabilities=self.fit is not None,
        )
        displacement = match.mean
        if self.fit is not None:
            shares = label_shares(search, shape)
            displacement = instance_fit(match.probabilities, match.mean, shares, self.fit)
        steps = displacement.new_tensor(label_steps(search, shape))
        return match, displacement * steps.view(1, 3, 1, 1, 1)

    def _composed(self, first: Tensor, second: Tensor, shape: Shape) -> Tensor:
        """``second``, then ``first`` from where it arrives; vectors in voxels of the volume."""
        if self.composition == "full":
            late = Displacement(resize(second, shape), shape, shape)
            return late.then(Displacement(resize(first, shape), shape, shape)).vectors
        sizes = zip(first.shape[2:], shape, strict=True)
        own = second.new_tensor([(count - 1) / max(size - 1, 1) for count, size in sizes])
        step = second * own.view(1, 3, 1, 1, 1)
        return second + warp(first, step, fixed_shape=grid_shape(second), padding="border")
