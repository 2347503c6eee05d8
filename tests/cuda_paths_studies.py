"""Commands on runs of the GPU that is not there, from scans to results. Run by
``test_cuda_paths.py``.

Each must come to its end with devices unmixed; values are not looked at, as kernels do not run.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cohort
from native_cohort import GRIDS, native_run
from pretend_cuda import gpu

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here
Command = Callable[..., None]

ON_GPU = ("--device", "cuda", "--workers", 0)
QUICK = ("--set", "features=intensity", "--set", "levels=2", "--set", "solves=1",
         "--set", "squarings=1", "--set", "couplings=0.1")  # fmt: skip
FIXED, MOVING, THIRD = GRIDS


@pytest.fixture
def does(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call a command beside ``cohort.zarr`` and the ``nifti`` files of its three subjects."""
    native_run(tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> None:
        shown = cohort(*words)
        assert shown.code == 0, shown.err

    return call


@pytest.mark.parametrize(
    "chosen",
    [
        QUICK,
        (*QUICK, "--symmetric", "--center", "median", "--start", "medoid", "--shrink", 1),
        ("--method", "dio", "--set", "levels=2,1", "--set", "iterations=2,2", "--center", "huber"),
    ],
    ids=["mean", "symmetric-median", "dio-huber"],
)
def test_a_template_with_what_is_made_of_it(does: Command, chosen: tuple[object, ...]) -> None:
    of_two = ("--subjects", f"{FIXED},{MOVING}")
    does("atlas", "cohort.zarr", "template", "--iterations", 1, *of_two, *ON_GPU, *chosen)
    does("atlas", "cohort.zarr", "template", "--add", THIRD, *ON_GPU)
    does("morphometry", "template", "--workers", 1)
    pair = ("--fixed", "template", "--moving", FIXED)
    does("export", "template/run", *pair, "--kept", "--to", "itk", "--out", "kept")
    does("export", "template/run", *pair, "--to", "nifti", "--out", "again")


@pytest.mark.parametrize("rule", ["majority", "local", "joint"])
def test_labels_are_fused(does: Command, rule: str) -> None:
    does("fuse", "cohort.zarr", "out", "--fusion", rule, "--confidence", *ON_GPU, *QUICK)


def test_a_run_is_analysed_and_brought_back_to_the_scans(does: Command) -> None:
    does("register", "cohort.zarr", "gpu", "--keep-features", "--batch", 2, *ON_GPU, *QUICK)
    does("verify", "gpu", "--deep")
    does("report", "gpu")
    does("population", "gpu", "--workers", 1)
    there = ("apply", "gpu", "--fixed", FIXED, "--moving", MOVING)
    does(*there, "--volume", f"nifti/images/{MOVING}.nii.gz", "--out", "there.nii.gz")
    back = ("--inverse", "--via", THIRD, "--labels", f"nifti/labels/{FIXED}.nii.gz")
    does(*there, *back, "--out", "back.nii.gz")


def test_uncertainty_is_drawn(does: Command) -> None:
    does("register", "cohort.zarr", "gpu", "--method", "pdd_net", "--keep-uncertainty", *ON_GPU)
    does("report", "gpu")
