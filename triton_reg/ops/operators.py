"""What the registered operators share: how torch knows them, and the arrays that kernels take."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, library

Kernel = Callable[..., Any]


class Operator:
    """An operator that torch dispatches, compiles and differentiates; called by position.

    It is made and used like a ``custom_op`` of torch, whose first call imports torch's compiler:
    that takes as long again as torch itself, in every process that registers a pair.

    Args:
        name: such as ``triton_reg::warp``.
        schema: of its arguments and results.

    Attributes:
        known: all of them, by name.
        overload: what torch calls, for its own checks.
        kernels: what runs, by type of device.
    """

    known: ClassVar[dict[str, "Operator"]] = {}

    def __init__(self, name: str, schema: str) -> None:
        library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        space, _, own = name.partition("::")
        self.overload = getattr(getattr(torch.ops, space), own).default
        self.kernels: dict[str, Kernel] = {}
        self._name = name
        self.known[name] = self
        self._backward: Kernel = self._refuse_backward
        self._setup_context: Kernel = lambda ctx, inputs, output: None
        if "!" not in schema:  # of what an operator writes to nobody asks for gradients
            library.register_autograd(
                name,
                lambda ctx, *gradients: self._backward(ctx, *gradients),
                setup_context=lambda ctx, inputs, output: self._setup_context(ctx, inputs, output),
            )

    def __call__(self, *arguments: Any) -> Any:
        return self.overload(*arguments)

    def register_kernel(self, device: str) -> Callable[[Kernel], Kernel]:
        """What runs on tensors of a type of device, in place of what did before."""

        def register(kernel: Kernel) -> Kernel:
            is_new = device not in self.kernels
            self.kernels[device] = kernel
            if is_new:
                library.impl(self._name, device)(
                    lambda *arguments: self.kernels[device](*arguments)
                )
            return kernel

        return register

    def register_fake(self, fake: Kernel) -> Kernel:
        """Results without values, for whoever traces or compiles a call."""
        return library.register_fake(self._name)(fake)

    def register_autograd(self, backward: Kernel, *, setup_context: Kernel) -> None:
        """Gradients, as of ``torch.autograd.Function``; without, asking for them is an error."""
        self._backward, self._setup_context = backward, setup_context

    def _refuse_backward(self, *context: Any) -> Any:
        del context
        raise RuntimeError(f"{self._name} has no gradients; its plain definition has")


def operator(name: str, *, schema: str | None = None) -> Callable[[Kernel], Operator]:
    """Make an operator of what it does on a CPU; the schema is that of its annotations."""

    def make(kernel: Kernel) -> Operator:
        made = Operator(name, schema or library.infer_schema(kernel, mutates_args=()))
        made.register_kernel("cpu")(kernel)
        return made

    return make


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
