"""Measure methods, and variants of them, on this machine: speed, memory and accuracy.

    python workflows/bench.py measured --config workflows/bench.yaml

Tables, pictures and the page ``bench.md`` are in ``OUT``. The same command again goes on where it
was; another configuration in the same folder adds its rows. `cohort bench` does the same for the
methods as they come.
"""

# ruff: noqa: T201

import argparse
from pathlib import Path
from typing import Any

from cohort.config.choices import read_choices
from cohort.endings import ended
from cohort.errors import UsageError
from cohort.report.bench import write_bench
from cohort.studies.bench.settings import BenchSettings, Variant, parse_shapes
from cohort.studies.bench.study import Listener, bench

DEFAULTS = Path(__file__).with_suffix(".yaml")


def variant_of(told: str | dict[str, Any]) -> Variant:
    """``dio``, or ``{method: dio, settings: [transform=freeform]}``."""
    if isinstance(told, str):
        return Variant(told)
    if "method" not in told:
        raise UsageError("E_CONFIG", f"methods: {told}: need a name, or method: NAME with settings")
    return Variant(told["method"], tuple(told.get("settings", ())))


def settings_of(config: dict[str, Any]) -> BenchSettings:
    """What a configuration asks for; what is null in it is as `cohort bench` has it."""
    chosen = {name: value for name, value in config.items() if value is not None}
    chosen.pop("hourly_price", None)
    if "methods" in chosen:
        chosen["variants"] = tuple(variant_of(one) for one in chosen.pop("methods"))
    if "shapes" in chosen:
        chosen["shapes"] = parse_shapes(",".join(map(str, chosen["shapes"])))
    for name in ("batches", "workers"):
        if name in chosen:
            chosen[name] = tuple(chosen[name])
    return BenchSettings(**chosen)


def say_forecast(seconds: float) -> None:
    print(f"this takes about {seconds / 60:.1f} minutes", flush=True)


def say_progress(done: int, total: int, failed: int, what: str) -> None:
    print(f"{done} of {total}, {failed} failed: {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=DEFAULTS)
    asked = parser.parse_args()
    config = read_choices(asked.config, DEFAULTS)
    bench(asked.out, settings_of(config), Listener(say_forecast, say_progress))
    print(write_bench(asked.out, config.get("hourly_price")))


if __name__ == "__main__":
    ended(main)
