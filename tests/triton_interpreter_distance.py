"""The Triton distance transform against its plain-torch definition, in the interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

import pytest
import torch
from triton_oracle import poisoned_memory

from triton_reg.ops._triton.distance_transform import distance_transform
from triton_reg.ops.distance_transform import distance_transform_reference

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 2.0, 0.7)])
@pytest.mark.parametrize("shape", [(5, 3, 7), (7, 9, 6)])
def test_distances_are_the_definition(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 1, *shape, generator=generator) < 0.03
    mask[0, 0, 2, 1, 3] = True
    mask[2] = False
    found = distance_transform(mask, spacing)
    exact = distance_transform_reference(mask, spacing, torch.float64)
    torch.testing.assert_close(found.double(), exact, rtol=4e-7, atol=0)
    assert found[2].isinf().all()
    assert torch.equal(distance_transform(mask[1:2], spacing), found[1:2])
