"""Golden vectors: where they lie, and a reader that knows which of their arrays were compared."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

_SUFFIX = re.compile(r"_(?P<kind>sub|every)(?P<step>\d*)$|_(?P<channels>\d+)ch$")


def golden_folder() -> Path:
    """``COHORT_GOLDEN``, or ``golden`` in ``COHORT_SHARED``, or ``../shared/golden``."""
    project = Path(__file__).parents[2]
    shared = Path(os.environ.get("COHORT_SHARED", project.parent / "shared"))
    return Path(os.environ.get("COHORT_GOLDEN", shared / "golden"))


class Vectors:
    """The arrays of one file; each must be read as input or compared before :meth:`close`."""

    def __init__(self, name: str) -> None:
        folder = golden_folder()
        if not folder.is_dir():
            message = f"no golden vectors at {folder}; set COHORT_GOLDEN or COHORT_SHARED"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        path = folder / name
        assert path.is_file(), f"{path} is missing from a folder of golden vectors that exists"
        with np.load(path) as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files}
        self.name, self.folder = name, folder
        self._left = set(self._arrays)

    def take(self, key: str) -> np.ndarray:
        """An array that serves as input or setting."""
        self._left.discard(key)
        return self._arrays[key]

    def tensor(self, key: str, dtype: torch.dtype) -> Tensor:
        """An input as a batch of one."""
        return torch.from_numpy(self.take(key)).to(dtype)[None]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def find(self, base: str) -> list[str]:
        """Every stored form of an array: whole, every N-th voxel, every N-th row, some channels."""
        return [
            key
            for key in self._arrays
            if key == base or (key.startswith(base) and _SUFFIX.fullmatch(key[len(base) :]))
        ]

    def error(self, base: str, actual: Tensor) -> Tensor:
        """Absolute differences, in float64, to all stored forms of an array without its batch.

        Fails if no form is stored.
        """
        keys = self.find(base)
        assert keys, f"{self.name} holds no {base}"
        errors = []
        for key in keys:
            expected = torch.from_numpy(self.take(key)).double()
            part = _subsampled(actual[0].double(), expected, key[len(base) :])
            assert part.shape == expected.shape, f"{self.name} {key}: {part.shape}"
            errors.append((part - expected).abs().flatten())
        return torch.cat(errors)

    def close(self) -> None:
        """Fail if an array was neither read nor compared."""
        assert not self._left, f"{self.name}: arrays that no test compares: {sorted(self._left)}"


def _subsampled(actual: Tensor, expected: Tensor, suffix: str) -> Tensor:
    match = _SUFFIX.fullmatch(suffix)
    if match is None:
        return actual
    if match["channels"]:
        return actual[: int(match["channels"])]
    if match["kind"] == "every":
        return actual[:: int(match["step"])]
    if match["step"]:
        step = int(match["step"])
        return actual[..., ::step, ::step, ::step]
    # a bare `_sub` is subsampled along whichever axes are shorter, by the step that their sizes say
    steps = [-(-full // part) for full, part in zip(actual.shape, expected.shape, strict=True)]
    return actual[tuple(slice(None, None, step) for step in steps)]
