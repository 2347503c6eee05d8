"""One GPU that is not there, for code that runs on the host of a GPU.

Within the fixture ``gpu``, ``device="cuda"`` works: tensors say ``cuda:0`` and hold their values on
the CPU (``pretend_tensor.py``), and operators refuse what those of a GPU refuse
(``pretend_dispatch.py``). So do launches: a tensor of the CPU, arguments that the kernel does not
have, a grid that is too large; and nothing may wait for the GPU while a graph is captured.

Kernels are not run, but for the one that counts labels: memory that they would write holds ones. So
this says nothing about values, nor about what only a GPU has: work that goes on beside the host's,
streams and their order, the limits of memory, autocast, several devices.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend_dispatch import Capture, Operators
from pretend_tensor import is_cuda, patch_tensors
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from triton.backends.nvidia.compiler import CUDAOptions
from triton.runtime.interpreter import GridExecutor

_MEMORY = 2**34
_PROPERTIES = SimpleNamespace(total_memory=_MEMORY, major=9, minor=0)
_MOST_PROGRAMS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
_INTERPRET = GridExecutor.__call__
_INTERPRETED = ("overlap_kernel",)  # which measures are taken depends on its counts
_OPTIONS = {one.name for one in fields(CUDAOptions)}


class _Nothing:
    """A stream, an event or a graph: it does nothing, at once."""

    cuda_stream = 1

    def _nothing(self, *_: object) -> None:
        pass

    wait_stream = record = synchronize = replay = _nothing

    def __init__(self, *_: object) -> None:
        pass


@contextmanager
def _captured(*_: object, **__: object) -> Iterator[None]:
    Capture.is_on = True
    try:
        yield
    finally:
        Capture.is_on = False


def _launched(self: GridExecutor, *args: Any, **kwargs: Any) -> None:
    """Check a launch as Triton and CUDA do; of most kernels, leave it at that."""
    name, known = self.fn.__name__, set(inspect.signature(self.fn).parameters)
    own = {key: one for key, one in kwargs.items() if key not in _OPTIONS}
    if own.keys() - known:
        raise TypeError(f"{name}: the kernel has no {sorted(own.keys() - known)}")
    arguments = inspect.getcallargs(self.fn, *args, **own)
    grid = self.grid(arguments) if callable(self.grid) else self.grid
    if any(size > most for size, most in zip(grid, _MOST_PROGRAMS, strict=False)):
        raise ValueError(f"{name}: grid {grid} exceeds {_MOST_PROGRAMS}")
    for key, one in arguments.items():
        if isinstance(one, Tensor) and not is_cuda(one):
            raise ValueError(f"{name}: {key} is on the CPU and cannot be accessed from Triton")
    if name in _INTERPRETED:
        values = {key: one.values if is_cuda(one) else one for key, one in arguments.items()}
        with _disable_current_modes():
            _INTERPRET(self, **values)


def _of_cuda() -> dict[str, Any]:
    """The names of ``torch.cuda`` that packages ask for."""

    def nothing(*_: object) -> None:
        pass

    def within(*_: object) -> nullcontext[None]:
        return nullcontext()

    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: Capture.is_on,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": _Nothing,
        "get_device_properties": lambda *_: _PROPERTIES,
        "mem_get_info": lambda *_: (_MEMORY, _MEMORY),
        "max_memory_allocated": lambda *_: 0,
        "graph": _captured,
    }
    answers |= dict.fromkeys(("_lazy_init", "synchronize", "empty_cache"), nothing)
    answers |= dict.fromkeys(("device_of", "stream"), within)
    return answers | dict.fromkeys(("Stream", "Event", "CUDAGraph"), _Nothing)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU, for as long as the test runs."""
    for name, answer in _of_cuda().items():
        monkeypatch.setattr(torch.cuda, name, answer)
    patch_tensors(monkeypatch)
    monkeypatch.setattr(GridExecutor, "__call__", _launched)
    # a parameter cannot change its device in place: those of a GPU are another class
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with Operators():
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)
