"""A whole level through the Triton kernels against its definition, in Triton's interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

import pytest
import torch
from triton_oracle import batch, poisoned_memory, vectors

from triton_reg.ops._triton.solve_level import register_level, solve_level
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.solve_level import (
    register_level_reference,
    solve_level_reference,
)

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

QUICK = {"passes": 1, "couplings": (0.1,)}
LEVELS = {
    "released code": LevelSettings(passes=2, couplings=(0.3,)),
    "constant": LevelSettings(smoothing="released", filter_cost=False, **QUICK),
    "paper": LevelSettings(
        smoothing="adaptive-paper", tap_radius=3, entropy_radius=2, filter_cost=False, **QUICK
    ),
    "wide cost filter": LevelSettings(tap_radius=2, **QUICK),
    "radius 2": LevelSettings(radius=2, filter_cost=False, entropy_radius=1, **QUICK),
    "unfiltered": LevelSettings(passes=0, couplings=(0.1,)),
    "masked": LevelSettings(masked=True, entropy_radius=2, filter_cost=False, **QUICK),
    "masked wide": LevelSettings(masked=True, radius=2, entropy_radius=1, **QUICK),
}


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("name", LEVELS)
def test_a_level_is_the_definition(name: str, precision: str) -> None:
    shape, settings = (5, 3, 6), LEVELS[name]
    fixed, moving = (batch(shape, 3, 1, seed) for seed in (1, 2))
    known = vectors(shape, 1.0, 1, seed=3) if name == "released code" else None
    squarings = 7 if name == "released code" else 2
    found, entropy = register_level(fixed, moving, known, settings, squarings, precision=precision)
    expected, expected_entropy = register_level_reference(fixed, moving, known, settings, squarings)
    error = (found - expected).abs()
    if precision == "exact":
        assert (entropy - expected_entropy).abs().max() <= 1e-5
        assert error.median() <= 1e-5
        assert error.quantile(0.99) <= 1e-3
    else:
        assert (entropy - expected_entropy).abs().max() <= 2e-2
        assert error.median() <= 0.03
        assert error.mean() <= 0.15
        assert error.quantile(0.99) <= 1


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_a_batch_has_the_bits_of_each_pair_alone(precision: str) -> None:
    shape, settings = (2, 3, 5), LevelSettings(filter_cost=False, **QUICK)
    fixed, moving = (batch(shape, 3, 2, seed) for seed in (1, 2))
    known = vectors(shape, 1.0, 2, seed=3)
    together = register_level(fixed, moving, known, settings, 2, precision=precision)
    alone = register_level(fixed[1:], moving[1:], known[1:], settings, 2, precision=precision)
    for whole, one in zip(together, alone, strict=True):
        assert torch.equal(whole[1:], one)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_features_that_say_nothing_move_nothing(precision: str) -> None:
    nothing = torch.zeros(1, 3, 2, 5, 3)
    for fixed in (nothing, nothing + 0.3):
        settings = LevelSettings(**QUICK)
        displacement, entropy = solve_level(fixed, nothing, settings, precision=precision)
        assert displacement.abs().max() <= 1e-6
        assert entropy.isfinite().all()


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_features_constant_along_an_axis_sum_their_ties(precision: str) -> None:
    shape, settings = (3, 2, 6), LevelSettings(**QUICK)
    fixed, moving = (batch(shape, 3, 1, seed)[..., :1].expand(1, 3, *shape) for seed in (1, 2))
    fixed, moving = (one.half().float() for one in (fixed, moving))
    found, _ = solve_level(fixed, moving, settings, precision=precision)
    expected, _ = solve_level_reference(fixed, moving, settings)
    error = (found - expected).abs()
    assert error.median() <= (1e-5 if precision == "exact" else 1e-3)
    assert error.quantile(0.99) <= (1e-3 if precision == "exact" else 1)


def test_an_unknown_precision_is_named() -> None:
    nothing = torch.zeros(1, 3, 4, 5, 7)
    with pytest.raises(ValueError, match="'fast' or 'exact', got 'half'"):
        solve_level(nothing, nothing, LevelSettings(), precision="half")
