"""What the study will take, from one try of each method; and what would not fit into memory."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from cohort.studies.bench.settings import BenchSettings, Cell, Shape, Variant

_START_S = 5.0  # a process, its imports and what it loads
_COMPILE_S = 35.0  # of a method without kept kernels
_KERNELS = 40  # calls of whole pairs that timing the kernels is worth
_HEAD_S = 7e-6  # a voxel of a synthetic subject, made and ingested
_PEER_S = 7e-6  # a voxel of one turn of another tool, mean of those that are run
_SHARE = 0.9  # of the free memory


def seconds_of_cell(cell: Cell, trial: Mapping[str, Any], settings: BenchSettings) -> float:
    """From a trial at the first shape; work grows as the voxels do."""
    growth = math.prod(cell.shape) / math.prod(settings.shapes[0])
    turn = cell.batch * trial["register_s"] + 2 * (trial["prepare_s"] + trial["read_s"])
    return _START_S + growth * (settings.repeats + 1) * turn


class Left(NamedTuple):
    """What of a study is yet to be measured.

    Attributes:
        cells: of methods.
        compiled: methods whose compilation is.
        kernels: shapes at which kernels are.
        runs: whole ones, by the method and the workers of each.
        peers: how many other tools; they are not tried before.
        heads: to be made at each shape.
    """

    cells: Sequence[Cell] = ()
    compiled: Sequence[Variant] = ()
    kernels: Sequence[Shape] = ()
    runs: Sequence[tuple[Variant, int]] = ()
    peers: int = 0
    heads: Mapping[Shape, int] = MappingProxyType({})


def seconds_of_all(
    left: Left, trials: Mapping[Variant, Mapping[str, Any]], settings: BenchSettings
) -> float:
    """The rest of the study: cells, compilation, kernels, whole runs, other tools and heads.

    Args:
        left: what is yet to be measured.
        trials: rows of one try of each method at the first shape.
        settings: what is asked.
    """
    first = math.prod(settings.shapes[0])
    known = {variant: row for variant, row in trials.items() if row["status"] == "ok"}
    total = sum(
        seconds_of_cell(cell, known[cell.variant], settings)
        for cell in left.cells
        if cell.variant in known
    )
    total += sum(_HEAD_S * math.prod(shape) * count for shape, count in left.heads.items())
    total += left.peers * (_START_S + (settings.repeats + 1) * _PEER_S * first)
    total += sum(_START_S + _COMPILE_S for variant in left.compiled if variant in known)
    pairs = settings.subjects * (settings.subjects - 1)
    total += sum(
        2 * _START_S + pairs * known[variant]["register_s"] / workers
        for variant, workers in left.runs
        if variant in known
    )
    each = sum(row["register_s"] for row in known.values()) / max(len(known), 1)
    growth = sum(math.prod(shape) / first for shape in left.kernels)
    return total + _KERNELS * each * growth / 2


def what_does_not_fit(cell: Cell, done: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a cell is left out, if it is: the memory that it would take, by cells of its method.

    A line through the peaks of those that are done over voxels times batch; in proportion where
    these do not differ enough for one.
    """
    memory = {"process": ("peak_mib", psutil.virtual_memory().available)}
    if cell.device == "cuda":
        memory["card"] = "device_mib", torch.cuda.mem_get_info()[0]
    for where, (column, free) in memory.items():
        peaks = {
            one["voxels"] * one["batch"]: one[column]
            for one in done
            if one["variant"] == cell.variant.name and one.get(column) is not None
        }
        needed = _predicted(peaks, math.prod(cell.shape) * cell.batch) * 2**20
        if needed > _SHARE * free:
            return (
                f"would need about {needed / 2**30:.1f} GiB of the {where}'s memory and"
                f" {free / 2**30:.1f} are free"
            )
    return None


def _predicted(peaks: Mapping[int, float], size: int) -> float:
    """MiB at a size. In proportion is too much, as some memory is there whatever the size."""
    if not peaks:
        return 0.0
    at_most = min(value * max(1.0, size / one) for one, value in peaks.items())
    if max(peaks) < 1.5 * min(peaks):  # too near each other for a line
        return at_most
    slope, start = np.polyfit(list(peaks), list(peaks.values()), 1)
    return float(min(max(start + slope * size, min(peaks.values())), at_most))
