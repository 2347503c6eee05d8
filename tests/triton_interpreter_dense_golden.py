"""The published PDD-Net's recorded outputs against the Triton kernels, in Triton's interpreter.

Each stage starts from what was recorded or defined before it, and takes a part of the control
points where the interpreter is slow. Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

import pytest
import torch
from golden.test_recorded_pdd_net import by_point, features, normalised, search
from golden.vectors import Vectors
from torch import Tensor
from triton_interpreter_dense import rows, volume
from triton_oracle import EPSILON, poisoned_memory

from triton_reg.ops._triton import dense_cost as cost_kernels
from triton_reg.ops._triton.dense_cost import dense_cost, padded_labels
from triton_reg.ops._triton.grid_filter import filter_between_planes, filter_within_planes
from triton_reg.ops._triton.instance_fit import instance_fit
from triton_reg.ops._triton.match_summary import summarise
from triton_reg.ops._triton.min_convolution import pooled_min_convolution
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.min_convolution import pooled_min_convolution_reference
from triton_reg.ops.resize import resize_reference

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

EVERY, SHARE = 4, 0.25  # recorded control points; reach of the recorded search


class Recorded:
    """What was recorded of a small search, and its setting."""

    def __init__(self) -> None:
        self.vectors = Vectors("pdd_reg_2warps_small.npz")
        fixed, self.moving = features(torch.float32)
        self.lattice: Lattice = search(self.vectors, self.moving)
        self.fixed = resize_reference(fixed, self.lattice.points)
        alpha = torch.from_numpy(self.vectors.take("alpha")).float()
        self.constant = alpha[1]
        self.weights = alpha[[0, 2, 3, 5]].contiguous()

    def cost(self) -> Tensor:
        return self.weights[0] * dense_cost_reference(self.fixed, self.moving, self.lattice)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def test_costs(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_kernels, "_SEGMENTS", 1)
    lattice = recorded.lattice
    found = torch.empty(1, recorded.fixed[0, 0].numel(), padded_labels(lattice.labels))
    dense_cost(recorded.fixed, recorded.moving, recorded.weights, None, lattice, found)
    own = found[..., : lattice.labels] + recorded.constant
    assert recorded.vectors.error("cost", own).max() <= 2e-3


def test_the_first_min_convolution(recorded: Recorded) -> None:
    cost = recorded.cost()
    source = rows(cost)[:, ::EVERY].contiguous()
    target = torch.empty(source.shape)
    pooled_min_convolution(source, recorded.lattice.width, target)
    expected = torch.from_numpy(recorded.vectors.take("minconv1_every4"))
    found = target[0, :, : recorded.lattice.labels] + recorded.constant
    assert (found - expected).abs().max() <= 2e-3


def test_the_first_mean_field(recorded: Recorded) -> None:
    lattice, taps = recorded.lattice, MatchSettings().taps
    message = pooled_min_convolution_reference(recorded.cost(), lattice.width)
    source = rows(message)
    within, found = torch.empty(source.shape), torch.empty(source.shape)
    filter_within_planes(source, lattice.points, taps, within)
    filter_between_planes(within, lattice.points, taps, recorded.weights, None, found)
    own = by_point(volume(found, message)) + recorded.constant
    assert recorded.vectors.error("meanfield1", own).max() <= 2e-3


def test_the_expectation(recorded: Recorded) -> None:
    lattice = recorded.lattice
    last = torch.from_numpy(recorded.vectors.take("meanfield2_every4"))[None]
    message = torch.zeros(1, last.shape[1], padded_labels(lattice.labels))
    message[..., : lattice.labels] = last
    mean, covariance, scales = (torch.empty(1, count, last.shape[1]) for count in (3, 6, 2))
    entropy = torch.empty(1, last.shape[1])
    summarise(message, recorded.weights, lattice.width, (mean, entropy, covariance), scales)
    found = normalised(mean[..., None, None], lattice, SHARE).view(-1, 3)
    expected = torch.from_numpy(recorded.vectors.take("pred")).view(-1, 3)[::EVERY]
    assert (found - expected).abs().max() <= 1e-5


def test_the_first_steps_of_instance_optimisation() -> None:
    """From the recorded match; its 50 steps take the interpreter minutes."""
    vectors = Vectors("pdd_fit.npz")
    count, width, share, smoothness = vectors.take("settings")
    step = float(share) / (int(width) // 2)
    label_step = step, step, step
    soft = vectors.tensor("soft", torch.float32).transpose(1, 2)
    likely = soft.reshape(1, -1, *[int(count)] * 3).contiguous()
    mean = vectors.tensor("pred", torch.float32).flip(-1).permute(0, 4, 1, 2, 3) / step
    settings = FitSettings(smoothness=float(smoothness), iterations=3)
    found = instance_fit(likely, mean.contiguous(), label_step, settings)
    truth = instance_fit_reference(likely.double(), mean.double(), label_step, settings)
    torch.testing.assert_close(found.double(), truth, atol=64 * EPSILON, rtol=64 * EPSILON)
