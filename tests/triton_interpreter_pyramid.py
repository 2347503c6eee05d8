"""The chain of launches of a whole pyramid, in Triton's interpreter: nothing of it but the capture
of its CUDA graphs needs a GPU.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

from dataclasses import astuple, replace

import pytest
import torch
from torch import Tensor
from triton_oracle import batch, large_blocks, poisoned_memory

from triton_reg import Intensity, VoxelOpt
from triton_reg.methods import voxelopt
from triton_reg.ops import register_pyramid as operators
from triton_reg.ops import resize
from triton_reg.ops._triton import register_pyramid as gpu
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.pyramid_settings import PyramidSettings
from triton_reg.ops.register_pyramid import register_pyramid_reference, stored_pyramid
from triton_reg.ops.resize import Shape, resize_reference
from triton_reg.ops.work_memory import forget_work, kept_keys

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["large_blocks", "poisoned_memory"]  # fixtures for all tests here

SHAPE = (4, 4, 6)
QUICK = LevelSettings(passes=1, couplings=(0.1,), filter_cost=False)
EXACT = PyramidSettings(level=QUICK, solves=(2, 1), squarings=1, precision="exact")
FAST = replace(EXACT, precision="fast")
TINY = replace(FAST, level=replace(QUICK, couplings=()), solves=(1,), squarings=0)
settings = pytest.mark.parametrize("settings", [EXACT, FAST], ids=("exact", "fast"))


def pyramid(seed: int, subjects: int = 3, shape: Shape = SHAPE) -> list[Tensor]:
    finest = batch(shape, 3, subjects, seed)
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    return [finest, resize_reference(finest, half)]


def stored(levels: list[Tensor], settings: PyramidSettings) -> list[Tensor]:
    return gpu.stored_levels(levels, settings)


def kept_batches() -> list[tuple[int, ...]]:
    """Of the pyramids that stay ready, the oldest first."""
    return [key[2] for key in kept_keys() if isinstance(key, tuple) and key[0] == "pyramid"]


@pytest.fixture(autouse=True)
def no_pyramids_of_other_tests() -> None:
    forget_work()


def test_a_pyramid_is_the_definition() -> None:
    fixed, moving, pair = pyramid(1), pyramid(5), torch.tensor([[0, 2]], dtype=torch.int32)
    expected, uncertainty = register_pyramid_reference(tuple(fixed), tuple(moving), pair, EXACT)
    for one in (EXACT, FAST):
        given = stored(fixed, one), stored(moving, one), pair, 3, one
        found, entropy = gpu.register_pyramid(*given)
        assert found.shape == expected.shape
        error, tolerance = (found - expected).abs(), 1e-5 if one is EXACT else 0.05
        assert error.median() <= tolerance
        assert error.quantile(0.9) <= 20 * tolerance
        assert (entropy - uncertainty).abs().median() <= tolerance


@settings
def test_the_schedule_changes_no_bit(settings: PyramidSettings) -> None:
    settings = replace(settings, level=replace(QUICK, couplings=()), solves=(1,))
    sides = stored(pyramid(1), settings), stored(pyramid(5), settings)
    pairs = torch.tensor([[0, 2], [2, 0], [1, 1]], dtype=torch.int32)
    found, entropy = gpu.register_pyramid(*sides, pairs, 3, settings, batches=(2, 4))
    for row in range(len(pairs)):
        alone = gpu.register_pyramid(*sides, pairs[row : row + 1], 3, settings)
        assert torch.equal(alone[0], found[row : row + 1])
        assert torch.equal(alone[1], entropy[row : row + 1])
    # one kept for single pairs, whichever they are, and one for the schedule that was given
    assert kept_batches() == [(2, 4), (1, 1)]


def test_kept_pyramids_serve_features_that_lie_elsewhere() -> None:
    fixed, moving = pyramid(1), pyramid(5)
    pair = torch.tensor([[2, 0]], dtype=torch.int32)
    whole, _ = gpu.register_pyramid(stored(fixed, TINY), stored(moving, TINY), pair, 3, TINY)
    others = [
        stored([one[row : row + 1] for one in side], TINY)
        for side, row in ((fixed, 2), (moving, 0))
    ]
    alone, _ = gpu.register_pyramid(*others, torch.zeros(1, 2, dtype=torch.int64), 3, TINY)
    assert kept_batches() == [(1, 1)]
    assert torch.equal(alone, whole)


def test_what_inference_mode_made_works_outside_of_it() -> None:
    one, pair = stored(pyramid(1, 1)[1:], TINY), torch.zeros(1, 2, dtype=torch.int32)
    with torch.inference_mode():
        within, _ = gpu.register_pyramid(one, one, pair, 3, TINY)
    assert torch.equal(within, gpu.register_pyramid(one, one, pair, 3, TINY)[0])


def test_a_row_that_does_not_exist_is_refused() -> None:
    one = stored(pyramid(1, 1), TINY)
    with pytest.raises(IndexError):
        gpu.register_pyramid(one, one, torch.tensor([[0, 1]]), 3, TINY)


def test_stored_features_keep_their_values_and_their_own_size() -> None:
    levels = pyramid(1)
    outline, finest, coarse = stored_pyramid(levels, (3, 4, 5), EXACT)
    assert outline.shape == (3, 0, 3, 3, 4, 5)
    assert torch.equal(finest[..., :3].permute(0, 4, 1, 2, 3), levels[0])
    assert (finest[..., 3:] == 0).all()
    assert coarse.shape == (3, 2, 2, 3, 8)
    many = [*levels, levels[1], levels[1]]
    dtypes = [one.dtype for one in stored_pyramid(many, (3, 4, 5), FAST)[1:]]
    assert dtypes == [torch.float16, torch.float16, torch.float32, torch.float32]
    plans = gpu.level_plans(stored(many, FAST), 3, FAST)
    assert [plan.is_packed for plan in plans] == [True, True, False, False]


@pytest.mark.parametrize("value", [4e4, float("nan"), float("inf")])
def test_features_beyond_half_precision_are_refused(value: float) -> None:
    levels = pyramid(1)
    levels[0][1, 2, 3, 2, 1] = value
    with pytest.raises(ValueError, match=r"none may exceed 30,000; got (40,000|nan|inf)"):
        stored_pyramid(levels, SHAPE, FAST)
    stored_pyramid(levels, SHAPE, EXACT)


def test_a_level_that_int32_cannot_count_is_refused() -> None:
    level = torch.empty(1, 512, 512, 531, 16, dtype=torch.float16, device="meta")
    with pytest.raises(ValueError, match=r"\(512, 512, 531\) voxels with 14 channels are too many"):
        gpu.level_plans([level], 14, FAST)
    assert gpu.level_plans([level[:, :, :, :511]], 14, FAST)[0].is_packed


def test_the_operator_passes_torchs_own_checks() -> None:
    operators._register_pyramid.register_kernel("cpu")(operators._register_pyramid_cuda)
    one = list(stored_pyramid(pyramid(1, 1)[1:], (1, 2, 2), TINY))
    level = [list(one) if isinstance(one, tuple) else one for one in astuple(TINY.level)]
    arguments = (one, one, torch.zeros(1, 2, dtype=torch.int32), [1], 0, "fast", *level)
    operator = torch.ops.triton_reg.register_pyramid.default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
    vectors, entropy = operator(*arguments)
    assert vectors.shape == (1, 3, 1, 2, 2)
    assert entropy.shape == (1, 1, 2, 2)


def test_the_method_pads_crops_and_compiles_as_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, kernels in ((resize, "_resize"), (operators, "_register_pyramid")):
        getattr(module, kernels).register_kernel("cpu")(getattr(module, f"{kernels}_cuda"))
    monkeypatch.setattr(voxelopt, "is_on_gpu", lambda _: True)
    level = replace(TINY.level, smoothing="isotropic")
    method = VoxelOpt(features=Intensity(), level=level, levels=2, solves=(1,), squarings=0)
    volumes, sides, plain = [batch((17, 16, 16), 1, 1, seed) for seed in (1, 2)], [], []
    for volume in volumes:
        finest, mask = method.features(volume, torch.ones_like(volume)), torch.ones_like(volume)
        padded = torch.cat([finest, finest[:, :, -1:]], dim=2)
        plain.append((padded, resize.resize_reference(padded, (9, 8, 8))))
        sides.append(method.prepare(volume, mask))
    sizes = [tuple(part.shape[1:]) for part in sides[0]]
    assert sizes == [(0, 1, 17, 16, 16), (18, 16, 16, 8), (9, 8, 8, 8)]

    def register(pairs: Tensor) -> tuple[Tensor, Tensor]:
        result = method.register(*sides, pairs)
        return result.displacement.vectors, result.extras["entropy"]

    pair = torch.zeros(1, 2, dtype=torch.int32)
    vectors, entropy = torch.compile(register, fullgraph=True, backend="eager")(pair)
    expected, uncertainty = register_pyramid_reference(*plain, pair, method._pyramid_settings)
    assert vectors.shape == (1, 3, 17, 16, 16)
    assert (vectors - expected[:, :, :17]).abs().median() <= 0.01
    assert (entropy - uncertainty[:, :17]).abs().median() <= 1e-3
