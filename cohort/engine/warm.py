"""Load compiled kernels before the first pair: what is loaded then is no pair's time."""

import logging

import torch

from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.scan import Scan
from cohort.engine.subjects import scan_to
from cohort.engine.workbench import Workbench

_SHAPE = (32, 32, 32)  # the least that every preset takes
_LOG = logging.getLogger(__name__)


def warm(workbench: Workbench) -> None:
    """Register and measure a small pair of noise the way the run does; its outcome is forgotten."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(1, 1, *_SHAPE, generator=generator)
    still = volume.new_zeros(1, 3, *_SHAPE)  # a truth, so that its measures are loaded as well
    noise = Scan(volume, torch.ones_like(volume), (3 * volume).int(), still, still)
    scan = scan_to(noise, workbench.device)
    method, pair = workbench.method, scan.volume.new_zeros(1, 2, dtype=torch.int32)
    grid = Grid.axis_aligned(_SHAPE, (1, 1, 1), (0, 0, 0))
    try:
        with one_thread(), torch.inference_mode():
            features = method.prepare(scan.volume, scan.mask)
            found = method.register(features, features, pair).displacement
            registered = RegisteredPair.of(scan, scan, found, grid, backward=found)
            measure_pair(registered, workbench.spec.metrics)
    except Exception:
        # a method that cannot take this may well take the cohort; if not, each row will say so
        _LOG.info("nothing was loaded ahead", exc_info=True)
