"""Kernels over their floors: the longer of bytes and operations at this machine's best."""

from dataclasses import dataclass
from typing import Any

import torch

from cohort.engine.spec import Device
from cohort.studies.bench.kernels import Kernel, kernels
from cohort.studies.bench.machine import Rates, measured_rates
from cohort.studies.bench.settings import Shape, size_text
from cohort.studies.bench.timing import repeated, spread


@dataclass(frozen=True)
class KernelTask:
    """What is measured: the kernels of these methods at a shape."""

    methods: tuple[str, ...]
    shape: Shape
    device: Device
    repeats: int


def measure_kernels(task: KernelTask) -> dict[str, Any]:
    """A row a kernel."""
    device = torch.device(task.device)
    with torch.inference_mode():
        rates = measured_rates(device)
        rows = [
            _row(kernel, rates, task, device)
            for kernel in kernels(task.methods, task.shape, device)
        ]
    return {"rows": rows}


def _row(kernel: Kernel, rates: Rates, task: KernelTask, device: torch.device) -> dict[str, Any]:
    watch = repeated(kernel.call, device, task.repeats)
    spent, processor = spread(watch.wall["call"]), spread(watch.processor["call"])
    from_memory_s = kernel.floor.bytes / rates.bytes
    by_operations_s = kernel.floor.operations / rates.operations
    floor_s = max(from_memory_s, by_operations_s)
    return {
        "method": kernel.method,
        "kernel": kernel.name,
        "shape": size_text(task.shape),
        "device": task.device,
        "repeats": task.repeats,
        "median_ms": 1e3 * spent.median,
        "q1_ms": 1e3 * spent.q1,
        "q3_ms": 1e3 * spent.q3,
        "processor_ms": 1e3 * processor.median,
        "gb_s": rates.bytes / 1e9,
        "gflop_s": rates.operations / 1e9,
        "mbytes": kernel.floor.bytes / 1e6,
        "mflop": kernel.floor.operations / 1e6,
        "floor_ms": 1e3 * floor_s,
        "bound": "memory" if from_memory_s >= by_operations_s else "arithmetic",
        "over_floor": spent.median / floor_s,
    }
