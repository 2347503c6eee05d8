"""A card that fails under a pair: whether this process can still use it afterwards."""

from collections.abc import Sequence

import torch

from cohort.errors import DeviceLostError


def check_device(device: torch.device, pairs: Sequence[tuple[str, str]], error: Exception) -> None:
    """Go on after an error if the device still works.

    After a kernel that wrote out of bounds, say, CUDA refuses all that the process asks for, and
    every later pair would fail as well; a wait is the least that can be asked for.

    Args:
        device: that was at work.
        pairs: fixed and moving subjects of those that it was at work on.
        error: what was raised.

    Raises:
        DeviceLostError: ``E_DEVICE_LOST`` if this process can use the device no more.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        fixed, moving = pairs[0]
        others = f" or one of {len(pairs) - 1} others" if len(pairs) > 1 else ""
        raise DeviceLostError(
            "E_DEVICE_LOST",
            f"the GPU failed at {moving} -> {fixed}{others}, and this process can use it no more"
            f" ({error}); the same command goes on from here, with --gpus also past a pair that"
            " always does so",
        ) from error
