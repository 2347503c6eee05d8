"""Training on the GPU that is not there. Run by ``test_cuda_paths.py``."""

from dataclasses import replace
from pathlib import Path

import pytest
import test_training_dio as dio
import test_training_pdd_net as pdd_net
from command_line import Cohort
from helpers import tiny_cohort
from pretend_cuda import gpu

from cohort.data.store import CohortStore
from cohort.studies import training_course
from triton_reg.training.dio import DIOTraining
from triton_reg.training.pdd_net import PDDTraining
from triton_reg.training.scans import Scans, pair_scores

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here

SETS = {
    "dio": ("network=unet_encoder", "width=4", "channels=4", "iterations=2,2,2"),
    "pdd_net": ("channels=4", "width=5", "recompute=false"),
}


def assert_trains(training: DIOTraining | PDDTraining, scans: Scans) -> None:
    training.step()
    state = training.state()
    training.step()
    training.load_state(state)
    assert training.done == 1
    assert all(one.is_cuda for one in training.model().values())
    (score,) = pair_scores(training.trained(), scans, [(0, 1)], scans.structures)
    assert score.fixed == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient": "implicit"},
        {"image": 0.0, "dice": 0.0, "keypoints": 0.1},
        {"image_loss": "lncc", "dice": 0.0},
        {"codes": 0.5, "warm_up": 0.1},
        {"phantom_steps": 3, "precision": "bfloat16"},
        {"structures": 1},
        {"elastic": 1.0, "codes": 0.5, "warm_up": 0.9},
    ],
    ids=["phantom", "implicit", "keypoints", "image", "codes", "bfloat16", "structures", "elastic"],
)
def test_dio(changes: dict) -> None:
    scans = dio.scans().to("cuda")
    method = replace(dio.METHOD, iterations=(2, 2, 2))
    assert_trains(DIOTraining(scans, replace(dio.SETTINGS, **changes), method, dio.SMALL), scans)


@pytest.mark.parametrize(
    "changes",
    [{}, {"supervision": "mind"}, {"recompute": False, "augmentation": 0.1}],
    ids=["labels", "mind", "augmented"],
)
def test_pdd_net(changes: dict) -> None:
    scans = pdd_net.scans().to("cuda")
    assert_trains(PDDTraining(scans, replace(pdd_net.SETTINGS, **changes), pdd_net.METHOD), scans)


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr", subjects=5)


@pytest.mark.parametrize("method", sorted(SETS))
def test_the_command(
    cohort: Cohort,
    store: CohortStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_course, "_CHECKPOINT_EVERY", 1)
    given = [one for text in SETS[method] for one in ("--set", text)]
    call = (
        "train", store.path, tmp_path / "out", "--method", method, "--device", "cuda",
        "--steps", 3, "--folds", 2, *given,
    )  # fmt: skip
    with monkeypatch.context() as stopped:
        stopped.setattr(training_course, "_news", stop)
        assert cohort(*call).code != 0
    assert (tmp_path / "out" / "fold-1" / "checkpoint.pt").exists()
    shown = cohort(*call, "--json")
    assert shown.code == 0, shown.err
    assert len(shown.json["folds"]) == 2
    assert all(fold["card"]["steps_done"] == 3 for fold in shown.json["folds"])
