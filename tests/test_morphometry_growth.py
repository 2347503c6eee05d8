"""Morphometry of heads of which a ball has grown by a known amount, or has not."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growing_population import GrowingPopulation, Growth
from benchmarks.morphometry_growth import measured

GROWN = GrowingPopulation(3, 56, 2.0, Growth(1.3, (4.0, -3.0, 4.0), 24.0, 40.0), deformation_mm=1.5)
ALIKE = replace(GROWN, ball=replace(GROWN.ball, factor=1.0))


@pytest.mark.slow
def test_a_known_growth_is_found_where_it_is_and_as_large_as_it_is(tmp_path: Path) -> None:
    found = dict(measured(GROWN, "voxelopt", tmp_path))
    assert found["ball: true"] > 0.2
    assert found["ball: ratio"] == pytest.approx(1, abs=0.1)
    assert found["shell: found"] < 0  # what grows takes the room of what is around it
    assert abs(found["outside: found"]) < 0.02
    for group in "ab":
        volume = f"volume of the ball in {group}, cm3"
        assert found[f"{volume}: found"] == pytest.approx(found[f"{volume}: true"], rel=0.1)


@pytest.mark.slow
def test_where_nothing_grows_nothing_is_found(tmp_path: Path) -> None:
    found = dict(measured(ALIKE, "voxelopt", tmp_path))
    for region in ("ball", "shell", "outside"):
        assert abs(found[f"{region}: found"] - found[f"{region}: true"]) < 0.02
        assert found[f"{region}: share with |t| above 3"] < 0.1  # by chance 0.04, four degrees
