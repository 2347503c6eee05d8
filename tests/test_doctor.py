"""What ``cohort doctor`` finds out, and that nothing is left to compile after ``--warm``."""

import sys
from pathlib import Path

from helpers import tiny_cohort
from numba.core.dispatcher import Dispatcher

from cohort.config.method import method_config
from cohort.engine.choices import PlanSettings
from cohort.engine.doctor import examine, warm
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run


def compiled() -> dict[str, int]:
    """How many variants of each kernel this process has."""
    kernels = {
        f"{name}.{kernel.__name__}": len(kernel.signatures)
        for name, module in sys.modules.items()
        if name.startswith("triton_reg.ops._cpu.")
        for kernel in vars(module).values()
        if isinstance(kernel, Dispatcher)
    }
    return {name: count for name, count in kernels.items() if count}


def test_after_warming_a_run_compiles_nothing(tmp_path: Path) -> None:
    warmed = {name: seconds for name, seconds, _ in warm()}
    assert "voxelopt preset=default" in warmed
    assert min(warmed.values()) > 0
    before = compiled()
    assert before
    store = tiny_cohort(tmp_path / "store", subjects=3)
    for preset in ("default", "paper"):
        method = method_config("voxelopt", None, [f"preset={preset}"])
        open_run(tmp_path / preset, store, PlanSettings(method, "random:2"))
        assert run(tmp_path / preset, store).failed == 0
        assert read_rows(tmp_path / preset)["dice_mean"].is_not_null().all()
    assert compiled() == before


def test_the_facts_name_versions_and_devices() -> None:
    facts = examine()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"triton-reg", "torch", "numba", "triton", "cores", "memory", "GPUs"} <= facts.keys()
    assert facts["numba"][0].isdigit()
