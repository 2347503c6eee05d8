"""The kernels of each method at the sizes that they have in one pair of volumes of a shape.

They are called through the public operators, so that a CPU and a GPU run the same list.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cohort.studies.bench import floors
from cohort.studies.bench.floors import Floor
from cohort.studies.bench.settings import Shape
from triton_reg import Displacement, PDDNet, VoxelOpt
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import label_counts
from triton_reg.ops.advance import Moments, StepSettings, advance
from triton_reg.ops.compose import compose, integrate
from triton_reg.ops.dense_match import dense_match
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.local_contrast import local_contrast
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import resize
from triton_reg.ops.solve_level import register_level, solve_level
from triton_reg.ops.warp import warp

_CHANNELS = 4  # of the default features
_LEARNED = 16  # channels of the published networks
_WIDTHS = (5, 9, 15)


@dataclass(frozen=True)
class Kernel:
    """A kernel as it is called, and what it takes at least."""

    method: str
    name: str
    call: Callable[[], object]
    floor: Floor


def smooth(shape: Shape, channels: int, seed: int, device: torch.device) -> Tensor:
    """Smooth random fields ``[1, C, *shape]``."""
    generator = torch.Generator().manual_seed(seed)
    knots = torch.randn(1, channels, *(max(2, size // 8) for size in shape), generator=generator)
    return resize(knots, shape).contiguous().to(device)


def kernels(methods: tuple[str, ...], shape: Shape, device: torch.device) -> Iterator[Kernel]:
    """Those of the named methods and of the measures, each made when it is asked for."""
    families = {"voxelopt": _voxelopt, "pdd_net": _pdd_net, "dio": _dio}
    for name, made in families.items():
        if name in methods:
            yield from made(shape, device)
    yield from _measures(shape, device)


def _voxelopt(shape: Shape, device: torch.device) -> Iterator[Kernel]:
    named, voxels = partial(Kernel, "voxelopt"), math.prod(shape)
    method = VoxelOpt()
    settings, squarings = method.level, method.squarings
    image = smooth(shape, 1, 1, device)
    fixed, moving = (smooth(shape, _CHANNELS, seed, device) for seed in (2, 3))
    vectors = 2 * smooth(shape, 3, 4, device)
    given = fixed, moving, settings
    yield named(
        "local contrast, 3 widths",
        lambda: local_contrast(image, _WIDTHS, 0.02),
        floors.local_contrast(voxels, len(_WIDTHS)),
    )
    yield named("MIND-SSC", lambda: mind_ssc(image, 1, 2), floors.mind_ssc(voxels))
    yield named(
        f"warp {_CHANNELS} channels",
        lambda: warp(moving, vectors),
        floors.warp(voxels, _CHANNELS),
    )
    yield named(
        "solve the finest level",
        lambda: solve_level(*given),
        floors.solve(voxels, _CHANNELS, settings),
    )
    yield named(
        "register the finest level",
        lambda: register_level(fixed, moving, vectors, settings, squarings),
        floors.level(voxels, _CHANNELS, settings, squarings),
    )
    yield named(
        f"integrate, {squarings} squarings",
        lambda: integrate(vectors, squarings),
        floors.integrate(voxels, squarings),
    )
    yield named("compose", lambda: compose(vectors, vectors), floors.compose(voxels))


def _pdd_net(shape: Shape, device: torch.device) -> Iterator[Kernel]:
    method = PDDNet()
    moving = smooth(shape, _CHANNELS, 1, device)
    target = moving + 0.3 * smooth(shape, _CHANNELS, 2, device)
    for number in (0, len(method.stages) - 1):
        search = method.stages[number]
        points, reach = search.points(shape), search.reach(shape)
        lattice = Lattice.corner_aligned(shape, points, search.width, reach)
        given = resize(target, points), moving, moving.new_tensor(method.weights), lattice
        size = " x ".join(map(str, points))
        yield Kernel(
            "pdd_net",
            f"dense match {size}, {search.width}³ labels",
            partial(dense_match, *given, method.match),
            floors.dense_match(
                lattice.labels * math.prod(points),
                _CHANNELS,
                method.match.iterations,
                search.width if method.match.label_filter == "exact" else 0,
            ),
        )


def _dio(shape: Shape, device: torch.device) -> Iterator[Kernel]:
    vectors, gradient = (2 * smooth(shape, 3, seed, device) + 0.3 for seed in (1, 2))
    placement = torch.cat([torch.eye(3), torch.zeros(3, 1), torch.eye(3)], dim=1)[None].to(device)
    voxels = math.prod(shape)
    for loss, channels in (("lncc", 1), ("mse", _LEARNED)):
        fixed, moving = (
            smooth(shape, channels, seed, device).to(memory_format=torch.channels_last_3d)
            for seed in (3, 4)
        )
        settings = ForceSettings(loss=loss)  # type: ignore[arg-type]
        yield Kernel(
            "dio",
            f"force, {loss}, {channels} channel{'s' if channels > 1 else ''}",
            partial(feature_force, fixed, moving, vectors, placement, settings),
            floors.force(voxels, channels, loss),
        )
    moments = Moments.of(vectors)
    for update in ("add", "compose"):
        settings = StepSettings(update=update)  # type: ignore[arg-type]
        yield Kernel(
            "dio",
            f"step, {update}",
            partial(advance, vectors, gradient, moments, settings),
            floors.step(voxels, update),
        )


def _measures(shape: Shape, device: torch.device) -> Iterator[Kernel]:
    named, voxels = partial(Kernel, "measures"), math.prod(shape)
    labels = (8 * smooth(shape, 1, 1, device).clamp(0, 2)).int()
    vectors = 2 * smooth(shape, 3, 2, device)
    displacement, as_float = Displacement(vectors, shape, shape), labels.float()
    yield named("label counts", lambda: label_counts(labels, labels), floors.label_counts(voxels))
    yield named(
        "warp labels",
        lambda: displacement.warp(as_float, interpolation="nearest"),
        floors.warped_labels(voxels),
    )
    yield named("Jacobian", lambda: jacobian_measures(vectors), floors.jacobian(voxels))
