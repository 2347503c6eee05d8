"""Overlap and smoothness of PDD-Net on six affinely aligned brain pairs: what was tried.

    PYTHONPATH=. taskset -c 0 python benchmarks/pdd_quality.py \\
        ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Pairs, measures and columns are those of ``benchmarks/voxelopt_quality.py``, whose published
settings each pair is timed against. The presets stand without trained weights, with MIND: they show
the search and the regulariser, not the published results. The defaults were chosen with three of
these six pairs in view. Rows are written to ``benchmarks/results/pdd_quality.csv``.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.voxelopt_quality import write_quality
from triton_reg import EvenSearch, FitSettings, MatchSettings, MindSSC, PDDNet

RESULTS = Path(__file__).parent / "results" / "pdd_quality.csv"
DEFAULT = PDDNet()


def tried() -> dict[str, PDDNet]:
    """Methods by what they change of the defaults, and the published presets."""
    return {
        "default": DEFAULT,
        "pooled min-convolution": with_match(smoothing="min_convolution"),
        "curvature 1": with_match(curvature=1.0),
        "curvature 10": with_match(curvature=10.0),
        "scale 10": replace(DEFAULT, weights=(10.0, 1.0, 4.0, 1.0)),
        "scale 100": replace(DEFAULT, weights=(100.0, 1.0, 4.0, 1.0)),
        "mean field alone": with_match(smoothing="mean_field"),
        "one round of messages": with_match(iterations=1),
        "first stage alone": replace(DEFAULT, stages=DEFAULT.stages[:1]),
        "first two stages": replace(DEFAULT, stages=DEFAULT.stages[:2]),
        "first three stages": replace(DEFAULT, stages=DEFAULT.stages[:3]),
        "one fine stage": replace(DEFAULT, stages=(EvenSearch(spacing=3, width=11, extent=8),)),
        "features averaged over 2 voxels": replace(DEFAULT, feature_step=2),
        "MIND": replace(DEFAULT, features=MindSSC(), weights=(10.0, 1.0, 4.0, 1.0)),
        "MIND, curvature 1": replace(
            with_match(curvature=1.0), features=MindSSC(), weights=(10.0, 1.0, 4.0, 1.0)
        ),
        "instance optimisation": replace(DEFAULT, fit=FitSettings()),
        "v01 preset, MIND, scale 100": replace(
            PDDNet.v01(MindSSC()), weights=(100.0, 1.0, 1.0, 1.0)
        ),
        "two_warp preset, MIND, scale 100": replace(
            PDDNet.two_warp(MindSSC()), weights=(100.0, 1.0, 1.0, 1.0)
        ),
    }


def with_match(**changes: object) -> PDDNet:
    match: MatchSettings = replace(DEFAULT.match, **changes)  # type: ignore[arg-type]
    return replace(DEFAULT, match=match)


if __name__ == "__main__":
    write_quality(__doc__, RESULTS, tried)
