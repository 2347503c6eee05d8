"""What a method is told of a pair beside the volumes, from the pair's own scans."""

from collections.abc import Iterable

import torch
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.engine.scan import Scan
from cohort.errors import SubjectError
from triton_reg import Prompts


def prompts_of(fixed: Scan, moving: Scan, kinds: Iterable[str], grid: Grid) -> Prompts | None:
    """Labels and keypoints of both scans, as far as they are wanted; None if nothing is.

    Raises:
        SubjectError: ``E_PROMPTS`` if one of the scans has none, or not as many keypoints.
    """
    told: dict[str, Tensor] = {}
    for kind in kinds:
        name = "labels" if kind == "labels" else "keypoints_mm"
        both = getattr(fixed, name), getattr(moving, name)
        missing = [side for side, one in zip(("fixed", "moving"), both, strict=True) if one is None]
        if missing:
            raise SubjectError(
                "E_PROMPTS", f"prompts={kind}: the {missing[0]} subject has no {kind}"
            )
        if kind == "keypoints":
            if both[0].shape != both[1].shape:
                raise SubjectError(
                    "E_PROMPTS",
                    f"prompts=keypoints: fixed has {len(both[0])} of them, moving {len(both[1])}",
                )
            both = tuple(
                torch.from_numpy(grid.world_to_voxel(one.numpy(force=True))).to(fixed.volume)[None]
                for one in both
            )
        told[f"fixed_{kind}"], told[f"moving_{kind}"] = both
    return Prompts(**told) if told else None
