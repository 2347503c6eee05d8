"""Tensors that say ``cuda:0`` and hold their values on the CPU.

Below Python they belong to a backend of torch's own hook for backends in Python, so that autograd
takes them for those of an accelerator.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run through test_cuda_paths.py, in a process of its own", allow_module_level=True)

_setup_privateuseone_for_python_backend("pretended")
_BELOW = torch.device("pretended", 0)
_CUDA = torch.device("cuda", 0)
_TENSOR = torch.tensor


class CudaTensor(Tensor):
    """``values`` on the GPU that is not there."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> "CudaTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=_BELOW,
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, *_: object) -> None:
        raise RuntimeError(f"{func} outside of the fixture gpu")

    def __repr__(self) -> str:
        return f"CudaTensor({list(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: object) -> Tensor:
        with torch.no_grad():
            copied = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return _saved, (self.detach().values,)

    def numpy(self, *, force: bool = False) -> np.ndarray:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.detach().values.numpy(force=True)

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        return self.numpy()

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def pin_memory(self, *_: object) -> Tensor:
        raise RuntimeError("only dense CPU tensors can be pinned")


def _saved(values: Tensor) -> CudaTensor:
    """A tensor that was saved on the GPU."""
    return CudaTensor(values)


torch.serialization.add_safe_globals([_saved])


def is_cuda(tensor: object) -> bool:
    return isinstance(tensor, CudaTensor)


def _is_below(tensor: Tensor) -> bool:
    """Also for what a transform of ``torch.func`` wraps around a tensor of the GPU."""
    return device_of(tensor) == _CUDA


def device_of(tensor: Tensor) -> torch.device:
    """What ``Tensor.device`` is meant to say."""
    found = torch._C.TensorBase.device.__get__(tensor)
    return _CUDA if found.type == _BELOW.type else found


def _below(argument: Any) -> Any:
    """The device below Python, of ``cuda`` in any form; all else is itself."""
    if isinstance(argument, str):
        return _BELOW if argument.startswith("cuda") else argument
    return _BELOW if isinstance(argument, torch.device) and argument.type == "cuda" else argument


def patch_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tensors say where they are, and be made there where torch asks no operator."""
    monkeypatch.setattr(Tensor, "device", property(device_of))
    monkeypatch.setattr(Tensor, "is_cuda", property(_is_below))
    monkeypatch.setattr(Tensor, "pin_memory", lambda one, *_: one.clone())
    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, partial(_made, getattr(torch, name)))
    monkeypatch.setattr(torch, "load", partial(_loaded, torch.load))
    move, new_tensor = Tensor.to, Tensor.new_tensor
    get, put = Tensor.__getitem__, Tensor.__setitem__

    def moved(one: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        named = {name: _below(given) for name, given in kwargs.items()}
        return move(one, *map(_below, args), **named)

    def made_new(one: Tensor, data: Any, **kwargs: Any) -> Tensor:
        if not _is_below(one):
            return new_tensor(one, data, **kwargs)
        return _made(_TENSOR, data, **{"device": _BELOW, "dtype": one.dtype} | kwargs)

    def taken(one: Tensor, key: Any) -> Tensor:
        return get(one, _index(key) if _is_below(one) else key)

    def given(one: Tensor, key: Any, value: Any) -> None:
        put(one, _index(key) if _is_below(one) else key, value)

    monkeypatch.setattr(Tensor, "to", moved)
    monkeypatch.setattr(Tensor, "new_tensor", made_new)
    monkeypatch.setattr(Tensor, "__getitem__", taken)
    monkeypatch.setattr(Tensor, "__setitem__", given)


def _loaded(load: Callable[..., Any], file: Any, *, map_location: Any = None, **kwargs: Any) -> Any:
    found = load(file, **kwargs)
    if map_location is None:
        return found
    return tree_map(lambda one: one.to(map_location) if isinstance(one, Tensor) else one, found)


def _made(make: Callable[..., Tensor], data: Any, **kwargs: Any) -> Tensor:
    """Lists are read on the CPU, and what becomes of them is then sent to its device."""
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    if isinstance(data, Tensor):
        made = data.detach().clone() if make is _TENSOR else data
        return made.to(device=device or made.device, dtype=dtype or made.dtype)
    made = make(data, dtype=dtype, **kwargs)
    return made if device is None else made.to(device)


def _index(key: Any) -> Any:
    """Of a tuple, each part is an index of its own; lists in it are read as torch reads them."""
    if not isinstance(key, tuple):
        return _TENSOR(key).to(_BELOW) if isinstance(key, list) else key
    return tuple(_index(list(one) if isinstance(one, tuple) else one) for one in key)
