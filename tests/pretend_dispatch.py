"""What operators do to the tensors of ``pretend_tensor.py``.

They run on the values, once it is sure that a GPU would have taken their arguments; those of
``triton_reg`` run their ``cuda`` side.
"""

from typing import Any

import torch
from pretend_tensor import CudaTensor, device_of, is_cuda
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from triton_reg.ops.operators import Operator

_COPIES = ("aten::copy_", "aten::_to_copy")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_WAITING = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero")
# of these, torch's own code takes one number of the CPU beside tensors of a GPU
_TAKES_NUMBERS = ("aten::fill_", "aten::masked_fill_", "aten::masked_fill")

Arguments = tuple[Any, ...]
Named = dict[str, Any]


class MixedDevicesError(RuntimeError):
    """An operator got tensors of the CPU and of the GPU."""


class Capture:
    """Whether launches are being recorded, which must not wait for the GPU meanwhile."""

    is_on = False


class Operators(TorchDispatchMode):
    """Also operators that have no tensor of the GPU among their arguments: those that make one."""

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: Arguments = (), kwargs: Named | None = None
    ) -> Any:
        return _dispatched(func, args, kwargs or {})


def _dispatched(func: OpOverload, args: Arguments, kwargs: Named) -> Any:
    name = func._schema.name
    if name.startswith("triton_reg::"):
        return _operator(name, args, kwargs)
    has_parts = torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )
    if has_parts and name not in _WAITING:
        with Operators(), torch._C.DisableTorchFunction():
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    _refuse_mixed(func, args, tensors)
    device = kwargs.get("device")
    on_gpu = any(map(is_cuda, tensors)) if device is None else device.type != "cpu"
    crosses = name in _COPIES and any(is_cuda(one) != on_gpu for one in tensors)
    if Capture.is_on and (crosses or (on_gpu and name in _WAITING)):
        raise RuntimeError(f"{name}: operation not permitted when stream is capturing")
    return _on_values(func, args, kwargs, tensors, on_gpu)


def _fill(values: Tensor) -> None:
    """What no kernel writes: the same each time, no empty mask and no constant volume."""
    if values.is_floating_point():
        values.copy_(torch.linspace(0.2, 1.4, values.numel()).view(values.shape))
    else:
        values.fill_(1)


def _on_values(
    func: OpOverload, args: Arguments, kwargs: Named, tensors: list[Tensor], on_gpu: bool
) -> Any:
    if on_gpu and kwargs.get("generator") is not None:
        raise MixedDevicesError(f"{func}: a generator of the CPU for a tensor of the GPU")
    own_args, own_kwargs = tree_map(lambda one: one.values if is_cuda(one) else one, (args, kwargs))
    if own_kwargs.get("device") is not None:
        own_kwargs["device"] = torch.device("cpu")
    own_kwargs.pop("pin_memory", None)
    found = func(*own_args, **own_kwargs)
    if on_gpu and "empty" in func._schema.name:
        _fill(found)
    if torch.Tag.inplace_view in func.tags and is_cuda(args[0]):
        _mirror(func, args, kwargs)
    known = {id(one.values): one for one in tensors if is_cuda(one)}
    known |= {id(one): one for one in tensors if not is_cuda(one)}

    def back(one: Any) -> Any:
        if not isinstance(one, Tensor) or not on_gpu or is_cuda(one):
            return one
        with torch.inference_mode(one.is_inference()):
            return known[id(one)] if id(one) in known else CudaTensor(one)

    return tree_map(back, found)


def _mirror(func: OpOverload, args: Arguments, kwargs: Named) -> None:
    """Shape and strides of the tensor itself follow those of its values."""
    before = torch._C._meta_in_tls_dispatch_include()
    with no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _refuse_mixed(func: OpOverload, args: Arguments, tensors: list[Tensor]) -> None:
    name = func._schema.name
    cpu = [one for one in tensors if not is_cuda(one)]
    if len(cpu) in (0, len(tensors)) or name in _COPIES:
        return
    if name in _INDEXING and is_cuda(args[0]):
        cpu = [one for one in args[2:3] if isinstance(one, Tensor) and not is_cuda(one)]
    takes_numbers = torch.Tag.pointwise in func.tags or name in (*_TAKES_NUMBERS, *_INDEXING)
    if any(one.dim() or not takes_numbers for one in cpu):
        shown = [f"{list(one.shape)} on {device_of(one).type}" for one in tensors]
        raise MixedDevicesError(f"{func}: {', '.join(shown)}")


def _operator(name: str, args: Arguments, kwargs: Named) -> Any:
    """What ``triton_reg::`` operators do, and torch's own check of what they return."""
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    where = "cuda" if any(map(is_cuda, given)) else "cpu"
    side = Operator.known[name].kernels.get(where)
    if side is None:
        raise NotImplementedError(f"{name} has no side for {where}")
    with Operators():
        found = side(*args, **kwargs)
    made = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
    if any(is_cuda(one) != (where == "cuda") for one in made):
        raise MixedDevicesError(f"{name} returned a tensor that is not on {where}")
    storages = [_storage(one) for one in made]
    if len({*storages}) < len(made) or {*storages} & {_storage(one) for one in given}:
        raise RuntimeError(f"{name} returned memory of its arguments, or the same twice")
    return found


def _storage(tensor: Tensor) -> int:
    values = tensor.values if isinstance(tensor, CudaTensor) else tensor
    return values.untyped_storage()._cdata
