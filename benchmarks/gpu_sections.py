"""The frame of a benchmark on a GPU: parity first, then sections whose rows become one file."""

# ruff: noqa: T201

import datetime
import sys
import traceback
from collections.abc import Callable, Sequence

import torch
import triton

from benchmarks.gpu_timing import Report, median_us

DEVICE = torch.device("cuda")
Section = Callable[[Report], None]


def run_benchmark(name: str, parity: Section, sections: Sequence[Section]) -> int:
    """Check, time, and write ``results/NAME_<card>.csv``; returns the exit code.

    0 all good; 1 a section failed, or all were left out because kernels and definitions disagree; 2
    there is no GPU. Rows of the sections that went well are written in any case.
    """
    if not torch.cuda.is_available():
        print(f"no GPU was found: torch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_properties(DEVICE)
    about = {
        "card": card.name,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    print(f"{about}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} SMs")
    report = Report(about, name)
    if not run_section(parity, report):
        print("parity failed: nothing is timed", file=sys.stderr)
        return 1
    good = [run_section(section, report) for section in sections]
    report.write()
    return 0 if all(good) else 1


def run_section(section: Section, report: Report) -> bool:
    """Whether it went well; an error is printed and leaves the rows of other sections alone."""
    print(f"{section.__name__}: {section.__doc__}", flush=True)
    try:
        section(report)
    except Exception:
        traceback.print_exc()
        return False
    return True


def bandwidth(report: Report) -> None:
    """The rate of a copy within the card's memory, which all floors are measured by."""
    source = torch.ones(2**28, device=DEVICE)
    target = torch.empty_like(source)
    time_us = median_us(lambda: target.copy_(source))
    report.bytes_per_us = 2 * source.numel() * source.element_size() / time_us
    report.add("copy", f"{report.bytes_per_us / 1e6:.2f} TB/s", time_us=time_us)
