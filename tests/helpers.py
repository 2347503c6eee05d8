"""What several test files share: where the real data lie, seeded inputs, a tiny cohort."""

import base64
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject

PROJECT = Path(__file__).parents[1]


def shared_data(name: str) -> Path:
    """A folder of real data, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("COHORT_SHARED", PROJECT.parent / "shared")) / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set COHORT_SHARED to the folder that holds data/")
    return folder


def smooth_volume(shape: tuple[int, int, int], seed: int, channels: int = 1) -> Tensor:
    """A seeded smooth random volume ``[1, C, D, H, W]`` with values around [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, *(max(2, size // 4) for size in shape), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)


def ellipsoids(shape: tuple[int, int, int], shift: tuple[float, float, float]) -> np.ndarray:
    """Two nested ellipsoids, labels 1 and 2, moved by ``shift`` voxels: uint16 ``[D, H, W]``."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    radius = np.sqrt(
        sum((axis - 2 * by / size) ** 2 for axis, by, size in zip(axes, shift, shape, strict=True))
    )
    return ((radius < 0.7).astype(np.uint16)) + (radius < 0.4)


def tiny_cohort(
    path: Path, subjects: int = 4, shape: tuple[int, int, int] = (16, 18, 20)
) -> CohortStore:
    """A store of shifted ellipsoids on a grid of 2 mm, with labels."""
    store = CohortStore.create(path, Grid.axis_aligned(shape, (2, 2, 2), (0, 0, 0)), settings={})
    rng = np.random.default_rng(0)
    for index in range(subjects):
        labels = ellipsoids(shape, tuple(rng.uniform(-1.5, 1.5, 3)))
        texture = smooth_volume(shape, index)[0, 0].numpy()
        volume = (100 * labels + 10 * texture).astype(np.float32)
        store.commit(Subject(f"sub-{index:02d}", volume, labels=labels), {"source": None})
    return store


def drawn_texts(picture: str) -> list[str]:
    """The texts of a plot that is a data URI; matplotlib notes each beside its outlines."""
    content = base64.b64decode(picture.partition(",")[2]).decode()
    return re.findall(r"<!-- (.*?) -->", content)


def pretend_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tensors refuse ``numpy()`` as those of a card do, but for the kernels of CPUs."""
    numpy = torch.Tensor.numpy

    def of_a_card(self: Tensor, *, force: bool = False) -> np.ndarray:
        is_kernel = "triton_reg" in Path(sys._getframe(1).f_code.co_filename).parts
        assert force or is_kernel, "can't convert cuda:0 device type tensor to numpy"
        return numpy(self, force=True)

    monkeypatch.setattr(Tensor, "numpy", of_a_card)
