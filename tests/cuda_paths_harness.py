"""The GPU that is not there refuses what a GPU refuses. Run by ``test_cuda_paths.py``."""

import copy
import io

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from pretend_cuda import gpu
from pretend_dispatch import MixedDevicesError
from torch import Tensor

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here


@triton.jit
def _copy_kernel(source, target, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, mask=at < count, other=0), mask=at < count)


def ones(device: str = "cuda") -> Tensor:
    return torch.ones(2, 3, device=device)


@pytest.mark.parametrize(
    "mix",
    [
        lambda gpu, cpu: gpu + cpu,
        lambda gpu, cpu: gpu @ cpu.T,
        lambda gpu, cpu: torch.cat([gpu, cpu]),
        lambda gpu, cpu: torch.stack([gpu, cpu]),
        lambda gpu, cpu: torch.linalg.solve(gpu[:, :2], cpu),
        lambda gpu, cpu: cpu[gpu[0].long()],
        lambda gpu, cpu: gpu.index_put_((torch.zeros(3).long(),), cpu[0]),
        lambda gpu, cpu: gpu.index_select(0, cpu[0].long()),
        lambda gpu, cpu: torch.nn.functional.linear(gpu, cpu),
        lambda gpu, cpu: torch.cat([gpu.flatten(), cpu.sum()[None]]),
        lambda gpu, cpu: gpu.index_add(0, cpu.sum().long(), gpu),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("inference", [False, True], ids=["autograd", "inference"])
def test_tensors_on_two_devices_do_not_mix(mix, inference: bool) -> None:
    with torch.inference_mode(inference), pytest.raises(MixedDevicesError, match=r"on cpu"):
        mix(ones(), ones("cpu"))


def test_what_torch_takes_of_both_devices_is_taken() -> None:
    on_gpu = ones()
    assert (on_gpu * torch.tensor(2.0)).tolist() == [[2.0] * 3] * 2
    assert on_gpu[torch.tensor([0, 1, 1])].shape == (3, 3)
    on_gpu[[0]] = torch.tensor(3.0)
    on_gpu[1].copy_(torch.full((3,), 4.0))
    assert on_gpu.tolist() == [[3.0] * 3, [4.0] * 3]
    assert on_gpu.cpu().numpy().sum() == on_gpu.sum().item() == 21


def test_devices_are_those_of_a_gpu() -> None:
    moved = torch.zeros(2).to("cuda")
    assert moved.is_cuda
    assert moved.to("cuda") is moved
    assert {moved.device, torch.tensor([1], device="cuda").device} == {torch.device("cuda", 0)}
    made = [moved.new_tensor([1]), torch.arange(3, device=moved.device), torch.zeros_like(moved)]
    assert all(one.is_cuda for one in made)
    assert not moved.cpu().is_cuda
    module = torch.nn.Linear(3, 2).to("cuda")
    module(ones()).sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.is_cuda
    assert all(one.is_cuda for one in copy.deepcopy(module).parameters())


def test_a_shape_that_changes_in_place_changes() -> None:
    assert ones()[:, None].squeeze_(1).shape == (2, 3)
    assert ones().quantile(0.5).item() == 1


def test_the_gradient_of_a_function_is_on_the_gpu() -> None:
    def squares(values: Tensor) -> Tensor:
        return (values * values.new_tensor([1.0, 2.0, 3.0])).square().sum()

    value, back = torch.func.vjp(squares, ones())
    assert back(torch.ones_like(value))[0].tolist() == [[2.0, 8.0, 18.0]] * 2


def test_numpy_does_not_see_the_gpu() -> None:
    for read in (lambda one: one.numpy(), np.asarray, np.stack):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            read(ones())


def test_only_memory_of_the_cpu_is_pinned() -> None:
    assert not ones("cpu").pin_memory().is_cuda
    with pytest.raises(RuntimeError, match="only dense CPU tensors can be pinned"):
        ones().pin_memory()


def test_what_is_saved_on_the_gpu_is_loaded_there_or_where_it_is_wanted() -> None:
    saved, state = io.BytesIO(), torch.Generator().get_state()
    torch.save({"weights": ones(), "state": state}, saved)
    for place, devices in ((None, "cuda cpu"), ("cpu", "cpu cpu"), ("cuda", "cuda cuda")):
        saved.seek(0)
        found = torch.load(saved, map_location=place, weights_only=True)
        assert [one.device.type for one in found.values()] == devices.split()
    with pytest.raises((RuntimeError, TypeError), match="ByteTensor"):
        torch.Generator().set_state(found["state"])


def test_a_generator_of_the_cpu_makes_no_tensor_of_the_gpu() -> None:
    with pytest.raises(MixedDevicesError, match="a generator of the CPU"):
        torch.rand(3, generator=torch.Generator(), device="cuda")


def test_a_launch_needs_tensors_of_the_gpu_and_a_grid_that_fits() -> None:
    source, target = ones(), torch.empty(2, 3, device="cuda")
    _copy_kernel[(1,)](source, target, 6, BLOCK=8, num_warps=4)
    with pytest.raises(ValueError, match="_copy_kernel: source is on the CPU"):
        _copy_kernel[(1,)](source.cpu(), target, 6, BLOCK=8)
    with pytest.raises(ValueError, match=r"grid \(1, 65536\) exceeds"):
        _copy_kernel[(1, 2**16)](source, target, 6, BLOCK=8)
    with pytest.raises(ValueError, match=r"grid \(2147483648,\) exceeds"):
        _copy_kernel[lambda given: (2**31 // given["BLOCK"],)](source, target, 6, BLOCK=1)
    with pytest.raises(TypeError, match=r"the kernel has no \['SIZE'\]"):
        _copy_kernel[(1,)](source, target, 6, SIZE=8)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        _copy_kernel[(1,)](source, target, BLOCK=8)


def test_nobody_waits_while_a_graph_is_captured() -> None:
    on_gpu, graph = ones(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        on_gpu.add_(torch.ones(()).item())
        for wait in (Tensor.cpu, lambda one: one.sum().item(), Tensor.nonzero):
            with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
                wait(on_gpu)
    assert on_gpu.sum().item() == 12
