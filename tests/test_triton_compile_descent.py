"""The Triton kernels of a descent on features as machine code; see ``test_triton_compile.py``."""

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has no package for this platform")

import test_triton_compile as builds
import torch
from test_triton_compile import Build

from triton_reg.ops._triton import (
    correlation_force,
    correlation_kernels,
    feature_force,
    feature_force_backward,
    gaussian,
    reduction,
    step_kernels,
    stop_kernel,
)
from triton_reg.ops._triton.feature_lines import spread_of

pytestmark = pytest.mark.slow

TYPES = {
    "chunks": "i32", "converged": "*u8", "done": "*i32", "lengths": "*fp32", "limit": "*i32",
    "live": "*u8", "loss": "*fp32", "patience": "i32", "stepping": "*u8", "tolerance": "fp32",
    "waited": "*i32", "active": "*u8", "bias": "*fp32", "decay1": "fp32", "decay2": "fp32",
    "direction": "*fp32", "count": "fp32", "factors": "*fp32", "warped": "*fp32",
    "eps": "fp32", "first": "*fp32", "fixed": "*i64", "gradient": "*fp32", "kept": "*fp32",
    "longest": "*fp32", "moved": "*fp32", "moving": "*i64", "placement": "*fp32",
    "second": "*fp32", "source": "*fp32", "steps": "*i32", "sums": "*fp32", "taps": "*fp32",
    "target": "*fp32", "vectors": "*fp32", "weights": "*fp32",
}  # fmt: skip
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def force(kind: int, channels: int, registers: tuple[int, int], *, symmetric: bool = True) -> Build:
    spread = spread_of(DTYPES[kind], channels)
    lanes = spread["LANES"]
    return Build(
        feature_force.squares_force_kernel,
        {
            "TYPE": kind, "C": channels, "ALIGNED": True, **spread, "SYMMETRIC": symmetric,
            "WEIGHTED": True, "CLEARED": False, "BLOCK": 128 // lanes,
        },
        TYPES,
        registers,
        shared=1024,
    )  # fmt: skip


GRADIENTS = TYPES | {
    "of_loss": "*fp32", "of_gradient": "*fp32", "of_fixed": "*fp32", "of_moving": "*fp32",
    "of_vectors": "*fp32",
}  # fmt: skip


def backward(
    kind: int, channels: int, registers: tuple[int, int], *, of_vectors: bool = True
) -> Build:
    forward = force(kind, channels, registers).constants.copy()
    del forward["CLEARED"]
    wanted = {"OF_FIXED": True, "OF_MOVING": True, "OF_VECTORS": of_vectors}
    return Build(
        feature_force_backward.squares_backward_kernel,
        forward | wanted,
        GRADIENTS,
        registers,
        shared=4096,
    )


def radii(radius: int) -> dict[str, int]:
    return {"RADIUS_Z": radius, "RADIUS_Y": radius, "RADIUS_X": radius}


INDIRECT = TYPES | {"batch": "i32", "lanes": "i32"}
CORRELATED = {"TYPE": 0, "C": 16, "ALIGNED": True}

BUILDS = (
    force(0, 16, (157, 187)),
    force(0, 16, (137, 137), symmetric=False),
    force(1, 16, (141, 141)),
    force(2, 16, (141, 141)),
    force(0, 12, (160, 160)),
    force(0, 1, (72, 72)),
    backward(0, 16, (139, 137)),
    backward(0, 16, (88, 80), of_vectors=False),
    backward(1, 16, (163, 163)),
    backward(0, 1, (99, 101)),
    Build(reduction.reduce_kernel, {"MAXIMUM": False, "BLOCK": 4096}, TYPES, (44, 44), shared=16),
    Build(reduction.reduce_kernel, {"MAXIMUM": True, "BLOCK": 4096}, TYPES, (44, 44), shared=16),
    Build(gaussian.smooth_kernel, {**radii(1), "KEPT": True, "BLOCK": 128}, TYPES, (40, 40)),
    Build(gaussian.smooth_kernel, {**radii(2), "KEPT": True, "BLOCK": 128}, TYPES, (140, 140)),
    Build(gaussian.smooth_axis_kernel, {"BLOCK": 128}, TYPES, (36, 36)),
    Build(step_kernels.count_kernel, {"LOG_FIRST": -0.1, "LOG_SECOND": -0.01}, TYPES, (32, 32)),
    *(
        Build(
            step_kernels.direct_kernel,
            {"ADAM": True, "ADDED": added, **radii(2), "BLOCK": 128},
            TYPES,
            (140, 140),
        )
        for added in (True, False)
    ),
    Build(step_kernels.length_kernel, {"BLOCK": 1024}, TYPES, (36, 36), shared=16),
    Build(step_kernels.follow_kernel, {"BLOCK": 128}, TYPES, (36, 36)),
    Build(correlation_kernels.window_axis_kernel, {"BLOCK": 256}, INDIRECT, (40, 40)),
    Build(
        correlation_kernels.window_products_kernel,
        {**CORRELATED, "BLOCK": 256},
        INDIRECT,
        (40, 40),
        shared=1024,
    ),
    Build(
        correlation_kernels.coefficients_kernel,
        {"C": 16, "WEIGHTED": True, "BLOCK": 256},
        INDIRECT,
        (53, 44),
        shared=16,
    ),
    *(
        Build(
            correlation_force.correlation_force_kernel,
            {
                **CORRELATED,
                "BLOCK": 64,
                "PARTS": 2,
                "LANES": 2,
                "VECTOR": 4,
                "SYMMETRIC": True,
                "SAMPLED": sampled,
            },
            INDIRECT,
            registers,
            shared=1024,
        )
        for sampled, registers in ((True, (49, 53)), (False, (231, 196)))
    ),
    Build(
        stop_kernel.stop_kernel,
        {"LOG_FIRST": -0.1, "LOG_SECOND": -0.01, "CHUNKS": 32},
        TYPES,
        (32, 32),
    ),
)


@pytest.mark.parametrize("build", BUILDS, ids=[build.name for build in BUILDS])
@pytest.mark.parametrize("architecture", [80, 90])
def test_a_kernel_keeps_to_its_budget(build: Build, architecture: int, tmp_path: Path) -> None:
    builds.test_a_kernel_keeps_to_its_budget(build, architecture, tmp_path)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(("index", "loads"), [(0, 42), (1, 18), (2, 21)])
def test_a_voxel_of_features_is_read_in_whole_lines(
    index: int, loads: int, architecture: int, tmp_path: Path
) -> None:
    """20 voxels, or 8, and the fixed one, in loads of 16 bytes."""
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(builds.compiled(BUILDS[index], architecture).asm["cubin"])
    assert builds.dump("--dump-sass", cubin).count("LDG.E.128") == loads
