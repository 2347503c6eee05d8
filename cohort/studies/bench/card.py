"""What a GPU says of its clocks and power while it works; nothing is set."""

import shutil
import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

_ASKED = ("power.draw", "clocks.sm", "clocks.mem", "temperature.gpu")
_COMMAND = ("nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits")
_EVERY_S = 0.1


@dataclass
class CardReadings:
    """Readings while something ran; empty where the card or its tool tells nothing."""

    readings: list[dict[str, float]] = field(default_factory=list)

    def median(self, what: str) -> float | None:
        """The middle reading of ``power.draw`` (W), ``clocks.sm`` (MHz) or another."""
        told = [one[what] for one in self.readings if what in one]
        return statistics.median(told) if told else None


@contextmanager
def read_card(device: str) -> Iterator[CardReadings]:
    """Read the first card that torch uses, every tenth of a second until the block ends."""
    found = CardReadings()
    if device != "cuda" or shutil.which(_COMMAND[0]) is None:
        yield found
        return
    done = threading.Event()
    # its number here is another there where only some cards are visible
    card = f"GPU-{torch.cuda.get_device_properties(0).uuid}"

    def watch() -> None:
        while not done.wait(_EVERY_S):
            found.readings.append(_reading(card))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _reading(card: str) -> dict[str, float]:
    shown = subprocess.run(
        [*_COMMAND, f"--id={card}"], capture_output=True, text=True, check=False, timeout=10
    )
    return parse_reading(shown.stdout)


def parse_reading(line: str) -> dict[str, float]:
    """The numbers of a line of ``nvidia-smi``, by name; what it does not tell is absent."""
    told = {}
    for name, text in zip(_ASKED, line.strip().split(","), strict=False):
        try:
            told[name] = float(text)
        except ValueError:  # [N/A], [Not Supported]
            continue
    return told
