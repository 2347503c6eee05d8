"""Overlap and smoothness of DIO on six affinely aligned brain pairs: transforms, losses, features.

    PYTHONPATH=. taskset -c 0 python benchmarks/dio_quality.py \\
        ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Pairs, measures and columns are those of ``benchmarks/voxelopt_quality.py``, whose published
settings each pair is timed against. The defaults were chosen with these six pairs in view, and with
six others at 4 mm. ``Pretrained("brain-t1")`` was trained at 4 mm on other subjects of the same
cohort, with labels of the same automatic segmentation. Rows are written to
``benchmarks/results/dio_quality.csv``.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.voxelopt_quality import write_quality
from triton_reg import (
    DIO,
    DescentSettings,
    LocalContrast,
    Method,
    MindSSC,
    Pretrained,
    Regularisers,
    VoxelOpt,
)

RESULTS = Path(__file__).parent / "results" / "dio_quality.csv"
DEFAULT = DIO()


def tried() -> dict[str, Method]:
    """Methods by what they change of the defaults."""
    brain = Pretrained("brain-t1", voxel_mm=2.0)
    return {
        "default": DEFAULT,
        "free-form": replace(DEFAULT, transform="freeform"),
        "stationary velocity": replace(DEFAULT, transform="svf"),
        "B-spline": replace(DEFAULT, transform="bspline"),
        "affine": replace(DEFAULT, transform="affine"),
        "cubes of 5": replace(DEFAULT, window=5),
        "step 0.3": replace(DEFAULT, descent=DescentSettings(rate=0.3)),
        "vectors smoothed by 0.5": replace(DEFAULT, descent=DescentSettings(vector_sigma=0.5)),
        "eps 1": replace(DEFAULT, descent=DescentSettings(eps=1.0)),
        "bending 0.1": replace(DEFAULT, regularisers=Regularisers(bending=0.1)),
        "squared difference": replace(DEFAULT, loss="mse"),
        "MIND": replace(DEFAULT, features=MindSSC()),
        "local contrast": replace(DEFAULT, features=LocalContrast()),
        "MIND, vectors smoothed by 1": replace(
            DEFAULT, features=MindSSC(), descent=DescentSettings(vector_sigma=1.0)
        ),
        "learned": replace(DEFAULT, features=brain),
        "learned, vectors smoothed by 1": replace(
            DEFAULT, features=brain, descent=DescentSettings(vector_sigma=1.0)
        ),
        "learned, free-form": replace(DEFAULT, features=brain, transform="freeform"),
        "VoxelOpt on learned features": VoxelOpt(features=brain),
        "VoxelOpt": VoxelOpt(),
    }


if __name__ == "__main__":
    write_quality(__doc__, RESULTS, tried)
