"""The registered operators keep torch's contract, and say so where they cannot run."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import LevelSettings, MindSSC, VoxelOpt
from triton_reg.ops.compose import compose, integrate
from triton_reg.ops.local_contrast import local_contrast
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import resize
from triton_reg.ops.solve_level import register_level, solve_level
from triton_reg.ops.warp import warp

SHAPE = (5, 6, 7)
LEVEL = LevelSettings()


def volume(seed: int, channels: int = 2) -> Tensor:
    return smooth_volume(SHAPE, seed, channels)


CALLS: dict[str, Callable[[], object]] = {
    "resize": lambda: resize(volume(0), (3, 4, 9)),
    "warp": lambda: warp(volume(0), volume(1, 3)),
    "compose": lambda: compose(volume(0, 3), volume(1, 3)),
    "integrate": lambda: integrate(volume(0, 3), 4),
    "mind_ssc": lambda: mind_ssc(volume(0, 1), 1, 2),
    "local_contrast": lambda: local_contrast(volume(0, 1), (3, 5), 0.02),
    "solve_level": lambda: solve_level(volume(0), volume(1), LEVEL),
    "register_level": lambda: register_level(volume(0), volume(1), volume(2, 3), LEVEL),
}


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
@pytest.mark.parametrize(
    "name", ["resize", "warp", "compose", "integrate", "mind_ssc", "local_contrast"]
)
def test_an_operator_passes_torchs_own_checks(name: str) -> None:
    arguments = {
        "resize": (volume(0), [3, 4, 9]),
        "warp": (volume(0), volume(1, 3), list(SHAPE), "linear", "zeros"),
        "compose": (volume(0, 3), volume(1, 3)),
        "integrate": (volume(0, 3), 4),
        "mind_ssc": (volume(0, 1), 1, 2),
        "local_contrast": (volume(0, 1), [3, 5], 0.02),
    }[name]
    torch.library.opcheck(getattr(torch.ops.triton_reg, name).default, arguments)


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
@pytest.mark.parametrize("displacement", [None, volume(2, 3)], ids=("first", "further"))
def test_solving_a_level_passes_torchs_own_checks(displacement: Tensor | None) -> None:
    settings = (1, "adaptive", [0.1, 0.5], 1.5, 1, 3, True, None, [0.1, 1.0], False)
    arguments = (volume(0), volume(1), displacement, 7, *settings)
    torch.library.opcheck(torch.ops.triton_reg.solve_level.default, arguments)


@pytest.mark.parametrize("name", CALLS)
def test_outputs_are_written_whole(name: str) -> None:
    """With deterministic algorithms, torch fills fresh memory with NaN before a kernel runs."""
    torch.use_deterministic_algorithms(True)
    try:
        results = CALLS[name]()
    finally:
        torch.use_deterministic_algorithms(False)
    for result in results if isinstance(results, tuple) else (results,):
        assert isinstance(result, Tensor)
        assert result.isfinite().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_registration_compiles_as_one_graph() -> None:
    method = replace(VoxelOpt(features=MindSSC()), levels=2)
    fixed, moving = (
        method.prepare(100 * smooth_volume((16, 18, 20), seed), torch.ones(1, 1, 16, 18, 20))
        for seed in (0, 1)
    )
    pairs = torch.zeros(1, 2, dtype=torch.int32)

    def register(pairs: Tensor) -> Tensor:
        return method.register(fixed, moving, pairs).displacement.vectors

    compiled = torch.compile(register, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(pairs), register(pairs))


def test_a_device_without_kernels_is_an_error_that_says_so() -> None:
    from triton_reg.ops.operators import check_device

    class Elsewhere:
        device = torch.device("cuda:0")

    with pytest.raises(
        NotImplementedError, match=r"mind_ssc: there are no kernels .* cuda:0, only on cpu"
    ):
        check_device("mind_ssc", Elsewhere(), ("cpu",))  # type: ignore[arg-type]


def test_registering_does_not_import_torchs_compiler() -> None:
    """It takes as long as all of torch, in every process that registers."""
    code = """
import sys
import torch
from triton_reg import DIO, PDDNet, VoxelOpt, register_pair
fixed = torch.rand(16, 18, 20)
for method in (VoxelOpt(levels=2), PDDNet(), DIO(iterations=(2, 2, 2))):
    register_pair(method, fixed, fixed.flip(0)).displacement.warp(fixed[None, None])
print("torch._dynamo" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "False\n", shown.stderr


def test_a_gradient_that_nobody_wrote_is_refused() -> None:
    one = volume(0, 1).requires_grad_()
    with pytest.raises(RuntimeError, match="triton_reg::mind_ssc has no gradients"):
        mind_ssc(one, 1, 2).sum().backward()
