"""The network that sees both volumes, an opponent of the benchmarks."""

from itertools import permutations
from pathlib import Path

import pytest
import torch

from benchmarks.amortised import Amortised, AmortisedSettings, PairUNet, train_amortised
from benchmarks.dio_robustness import amortised
from triton_reg.training.scans import Scans, pair_scores

SIZE = 32


def shifted_balls(count: int) -> Scans:
    """A core in a shell, somewhere near the middle."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[torch.arange(float(SIZE))] * 3, indexing="ij")
    labels = []
    for _ in range(count):
        middle = SIZE / 2 + 4 * torch.rand(3, generator=generator) - 2
        away = torch.stack([axis - at for axis, at in zip(axes, middle, strict=True)]).norm(dim=0)
        labels.append((away < 9).int() + (away < 5).int())
    stacked = torch.stack(labels)[:, None]
    noise = 0.05 * torch.randn(stacked.shape, generator=generator)
    return Scans.of(stacked.float() + noise, stacked)


@pytest.mark.slow
def test_it_learns_to_align_what_it_has_been_shown() -> None:
    scans = shifted_balls(6)
    settings = AmortisedSettings(minutes=0.2, width=4, learning_rate=4e-3)
    method, _ = train_amortised(scans, settings)
    scores = pair_scores(method, scans, list(permutations(range(6), 2)), scans.structures)
    before, after = (
        sum(values) / len(scores)
        for values in ([one.dice_before for one in scores], [one.dice for one in scores])
    )
    assert after > before + 0.1


def test_sizes_need_not_be_divisible() -> None:
    method = Amortised(PairUNet(2, seed=0))
    volume = torch.rand(1, 1, 13, 18, 22)
    features = method.prepare(volume, torch.ones_like(volume))
    found = method.register(features, features, torch.zeros(1, 2, dtype=torch.int32))
    assert found.displacement.full().shape == (1, 3, 13, 18, 22)


def test_a_kept_network_brings_the_minutes_it_was_trained_for(tmp_path: Path) -> None:
    network = PairUNet(AmortisedSettings.width, seed=1)
    kept = tmp_path / "network.pt"
    torch.save({"network": network.state_dict(), "minutes": 45.0}, kept)
    found, minutes = amortised(tmp_path / "no.zarr", 8.0, kept)
    assert found.fingerprint == Amortised(network).fingerprint
    assert minutes == 45.0
