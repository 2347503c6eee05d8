"""One registration tool in a process of its own: pairs in, displacements and what they cost out.

    python cohort/studies/bench/peers_tools.py TOOL pairs.npz FOLDER

It runs in the peers' environment, whose versions ``benchmarks/peers.txt`` pins, and knows nothing
of this project: it is run by its path and imports none of it. ``pairs.npz`` holds ``volumes
[N, D, H, W]`` float32, ``labels`` of that shape, ``spacing_mm [3]`` and ``pairs [P, 2]``, fixed
first. Pair ``i`` becomes ``FOLDER/i.npz``.

Each tool deforms only: the scans lie on one grid and no affine stage is run. ANTs and greedy are
given the scans as they are; ConvexAdam and demons, whose settings depend on the scale of
intensities, have them clipped at the percentiles 1 and 99 and scaled to [0, 1]. All grids are
handed over without origin or rotation, so that physical axes are array axes times the spacing.
"""

# the peers' packages are not in this project's environment
# pyright: reportMissingImports=false

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
    """What a tool is given: volumes ``[D, H, W]`` float32, the moving labels, mm a voxel."""

    fixed: np.ndarray
    moving: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]


class Warped(NamedTuple):
    """What a tool found: ``u [3, D, H, W]`` in voxels with ``moving(x + u(x)) ~ fixed(x)``, channel
    i along axis i, and the moving labels as the tool itself warps them."""

    displacement: np.ndarray
    labels: np.ndarray


class Clock:
    """Seconds on the wall and of the processor, spent in the blocks that are timed."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str = "register") -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.spent[f"{stage}_s"] = time.perf_counter() - wall
        self.spent[f"{stage}_cpu_s"] = time.process_time() - processor


Tool = Callable[[Pair, Clock], Warped]


def greedy(metric: str) -> Tool:
    """Greedy with the iterations and, spelled out, the default smoothing of its documentation."""
    command = (
        f"-i fixed moving -m {metric} -n 100x50x10 -s 1.732vox 0.7071vox -wp 0 -threads 1 -o warp"
    )

    def register(pair: Pair, clock: Clock) -> Warped:
        import SimpleITK as sitk
        from picsl_greedy import Greedy3D

        fixed, moving, labels = (itk_image(one, pair.spacing_mm) for one in pair[:3])
        tool = Greedy3D()
        with clock.timed():
            tool.execute(command, fixed=fixed, moving=moving, warp=None)
        reslice = "-rf fixed -ri NN -rm labels moved -r warp -threads 1"
        tool.execute(reslice, labels=labels, moved=None)
        displacement = from_itk(sitk.GetArrayFromImage(tool["warp"]), pair.spacing_mm)
        return Warped(displacement, sitk.GetArrayFromImage(tool["moved"]))

    return register


def syn(**settings: Any) -> Tool:
    """ANTs' SyN from the identity; settings are those of ``ants.registration``."""

    def register(pair: Pair, clock: Clock) -> Warped:
        import ants

        fixed, moving, labels = (ants.from_numpy(one, spacing=pair.spacing_mm) for one in pair[:3])
        start = {"type_of_transform": "SyNOnly", "initial_transform": "Identity", "random_seed": 1}
        with clock.timed():
            found = ants.registration(fixed, moving, **start, **settings)["fwdtransforms"]
        moved = ants.apply_transforms(fixed, labels, found, interpolator="nearestNeighbor")
        with tempfile.TemporaryDirectory() as folder:
            # SyN's field and the affine transform that it writes beside it, as one field
            composed = ants.apply_transforms(fixed, moving, found, compose=f"{folder}/")
            vectors_mm = ants.image_read(composed).numpy()
        return Warped(np.moveaxis(vectors_mm / pair.spacing_mm, -1, 0), moved.numpy())

    return register


def convex_adam(pair: Pair, clock: Clock) -> Warped:
    """ConvexAdam on MIND features with its own settings, in float32."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt
    from scipy.ndimage import map_coordinates

    torch.set_num_threads(1)
    fixed, moving = scaled(pair.fixed), scaled(pair.moving)
    with clock.timed():
        vectors = convex_adam_pt(fixed, moving, dtype=torch.float32)
    displacement = np.moveaxis(vectors, -1, 0)
    # its own warp is linear: labels go the way that its field is defined by
    positions = np.indices(pair.labels.shape) + displacement
    return Warped(displacement, map_coordinates(pair.labels, positions, order=0))


def demons(iterations: tuple[int, ...]) -> Tool:
    """SimpleITK's diffeomorphic demons, coarse to fine; iterations coarsest level first."""

    def register(pair: Pair, clock: Clock) -> Warped:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        volumes = scaled(pair.fixed), scaled(pair.moving)
        fixed, moving = (itk_image(one, pair.spacing_mm) for one in volumes)
        labels = itk_image(pair.labels, pair.spacing_mm)
        method = sitk.DiffeomorphicDemonsRegistrationFilter()
        with clock.timed():
            known: list[Any] = []
            for coarser, count in reversed(list(enumerate(reversed(iterations)))):
                target, source = (sitk.Shrink(one, [2**coarser] * 3) for one in (fixed, moving))
                method.SetNumberOfIterations(count)
                known = [sitk.Resample(one, target) for one in known]
                known = [method.Execute(target, source, *known)]
        vectors = sitk.GetArrayFromImage(known[0])
        transform = sitk.DisplacementFieldTransform(known[0])
        moved = sitk.Resample(labels, fixed, transform, sitk.sitkNearestNeighbor)
        return Warped(from_itk(vectors, pair.spacing_mm), sitk.GetArrayFromImage(moved))

    return register


def itk_image(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Any:
    """An array ``[D, H, W]`` as SimpleITK's image, whose axes go the other way round."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    return image


def from_itk(vectors_mm: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Vectors ``[D, H, W, 3]`` of SimpleITK, x first and in mm, in voxels and tensor order."""
    return np.moveaxis(vectors_mm[..., ::-1] / spacing_mm, -1, 0)


def scaled(volume: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume, (1, 99))
    return ((np.clip(volume, low, high) - low) / (high - low)).astype(np.float32)


class Entry(NamedTuple):
    """A tool as it is run: the package whose version is written, its settings in words."""

    package: str
    settings: str
    tool: Tool


TOOLS: dict[str, Entry] = {
    "greedy NCC": Entry("picsl_greedy", "NCC 2x2x2, 100x50x10", greedy("NCC 2x2x2")),
    "demons": Entry("SimpleITK", "diffeomorphic, 100x50x25", demons((100, 50, 25))),
    "ConvexAdam": Entry("convexadam", "MIND, as it comes", convex_adam),
    "SyN Mattes": Entry("antspyx", "SyNOnly as it comes, 40x20x0", syn()),
    "SyN CC": Entry(
        "antspyx",
        "SyNOnly, CC radius 2, 40x20x10",
        syn(syn_metric="CC", syn_sampling=2, reg_iterations=(40, 20, 10)),
    ),
}


def peak_mib() -> float:
    """The most memory that this process has held so far (Linux)."""
    # not ru_maxrss: on Linux that starts from what the process that started this one held
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def serve(entry: Entry, pairs_path: Path, folder: Path) -> None:
    """Register all pairs of a file in turn, and keep each pair's result as it comes."""
    with np.load(pairs_path) as data:
        volumes, labels = data["volumes"], data["labels"].astype(np.float32)
        spacing_mm, pairs = tuple(data["spacing_mm"].tolist()), data["pairs"]
    for index, (fixed, moving) in enumerate(pairs):
        clock = Clock()
        pair = Pair(volumes[fixed], volumes[moving], labels[moving], spacing_mm)
        found = entry.tool(pair, clock)
        outcome = {
            "displacement": found.displacement.astype(np.float32),
            "labels": found.labels.astype(np.int32),
            "version": np.array(f"{entry.package} {version(entry.package)}"),
            "peak_mib": np.array(peak_mib()),
            **{stage: np.array(seconds) for stage, seconds in clock.spent.items()},
        }
        np.savez(folder / f"{index}.npz", **outcome)


if __name__ == "__main__":
    serve(TOOLS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))
