"""What the registered operators share: where they run, and the arrays that kernels work on."""

import numpy as np
import torch
from torch import Tensor


def check_device(call: str, tensor: Tensor, devices: tuple[str, ...] = ("cpu", "cuda")) -> None:
    """Raise ``NotImplementedError`` for a device without kernels; nothing falls back in silence."""
    if tensor.device.type not in (*devices, "meta"):
        raise NotImplementedError(
            f"{call}: there are no kernels for tensors on {tensor.device}, only on "
            f"{' and '.join(devices)}; move them, or call {call}_reference, which is slow"
        )


def has_kernel(*tensors: Tensor) -> bool:
    """Whether the compiled kernels take these dtypes; others run the reference, as documented."""
    return all(tensor.dtype == torch.float32 for tensor in tensors)


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous array that shares the tensor's memory where it can."""
    return tensor.detach().contiguous().numpy()
