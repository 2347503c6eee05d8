"""One of our methods in a process of its own, measured as its peers are.

    python benchmarks/peers_ours.py SETTINGS pairs.npz FOLDER

Besides each method as it comes, ``OURS`` holds settings of VoxelOpt and DIO that trade overlap for
smoothness, so that some of either is about as smooth as any peer. Kernels are loaded, or compiled,
before anything is timed.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cohort.studies.bench.peers_tools import Clock, Entry, Pair, Tool, Warped, serve
from triton_reg import DIO, DescentSettings, LevelSettings, Method, MindSSC, PDDNet, VoxelOpt

DEFAULT = VoxelOpt()
SIX = LevelSettings().couplings


def with_level(**changes: object) -> VoxelOpt:
    return replace(DEFAULT, level=replace(DEFAULT.level, **changes))  # type: ignore[arg-type]


def with_rate(voxels: float) -> DIO:
    return DIO(descent=DescentSettings(rate=voxels))


AS_THEY_COME = ("VoxelOpt", "PDD-Net", "DIO")
# column of the results -> family of ours, names before any comma, of which it names the settings
# that are about as smooth as a peer
AS_SMOOTH = {"voxelopt_as_smooth": "VoxelOpt", "dio_as_smooth": "DIO"}
OURS: dict[str, Method] = {
    "VoxelOpt": DEFAULT,
    "VoxelOpt, published settings": replace(VoxelOpt.parity(MindSSC()), downsample=1),
    "VoxelOpt, two solves a level": replace(DEFAULT, solves=(2,)),
    "VoxelOpt, two passes": with_level(passes=2),
    "VoxelOpt, four passes": with_level(passes=4),
    "VoxelOpt, five passes": with_level(passes=5),
    "VoxelOpt, four passes, six couplings": with_level(passes=4, couplings=SIX),
    "VoxelOpt, five passes, six couplings": with_level(passes=5, couplings=SIX),
    "PDD-Net": PDDNet(),
    "DIO": DIO(),
    "DIO, steps of 0.5": with_rate(0.5),
    "DIO, steps of 0.4": with_rate(0.4),
    "DIO, steps of 0.3": with_rate(0.3),
    "DIO, steps of 0.25": with_rate(0.25),
}


def registering(method: Method) -> Tool:
    """The method with the two stages timed apart: features of both scans, then the pair."""
    torch.set_num_threads(1)
    row = torch.zeros(1, 2, dtype=torch.int32)

    @torch.inference_mode()
    def register(pair: Pair, clock: Clock) -> Warped:
        volumes = [torch.from_numpy(one)[None, None] for one in (pair.fixed, pair.moving)]
        with clock.timed("features"):
            fixed, moving = (method.prepare(one, torch.ones_like(one)) for one in volumes)
        with clock.timed():
            displacement = method.register(fixed, moving, row).displacement
        labels = torch.from_numpy(pair.labels)[None, None]
        moved = displacement.warp(labels, interpolation="nearest")
        return Warped(displacement.full()[0].numpy(), moved[0, 0].numpy())

    blank = np.zeros((32, 32, 32), np.float32)
    register(Pair(blank, blank, blank, (1, 1, 1)), Clock())
    return register


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in OURS:
        raise SystemExit(f"peers.py starts this, with one of {', '.join(OURS)} and two files")
    entry = Entry("triton-reg", sys.argv[1], registering(OURS[sys.argv[1]]))
    serve(entry, Path(sys.argv[2]), Path(sys.argv[3]))
