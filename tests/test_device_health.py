"""A card that can be used no more is told from an error of one pair."""

import pytest
import torch

from cohort.engine.device_health import check_device
from cohort.errors import DeviceLostError

_PAIRS, _ERROR = [("sub-1", "sub-2")], ValueError("no such voxel")


def test_processors_and_cards_that_answer_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    check_device(torch.device("cpu"), _PAIRS, _ERROR)
    assert not waited
    check_device(torch.device("cuda"), _PAIRS, _ERROR)
    assert len(waited) == 1


def test_a_card_that_refuses_to_wait_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: torch.device) -> None:
        raise torch.AcceleratorError(f"CUDA error: an illegal memory access on {device}")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    with pytest.raises(DeviceLostError, match=r"failed at sub-2 -> sub-1.*no such voxel") as caught:
        check_device(torch.device("cuda"), _PAIRS, _ERROR)
    assert caught.value.code == "E_DEVICE_LOST"
    assert caught.value.exit_code == 5
    assert caught.value.__cause__ is _ERROR
    with pytest.raises(DeviceLostError, match=r"sub-2 -> sub-1 or one of 2 others, and"):
        check_device(torch.device("cuda"), 3 * _PAIRS, _ERROR)
