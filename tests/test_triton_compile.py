"""The Triton kernels as machine code, without a GPU: registers, spills and shared memory."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="triton has no package for this platform")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from triton_reg.ops._triton import (  # noqa: E402
    box,
    compose,
    compose_backward,
    cost_entropy,
    coupled_argmin,
    deformation,
    dense_cost,
    distance_transform,
    filter_kernels,
    filter_weights,
    fit_kernels,
    grid_filter,
    jacobian,
    local_contrast,
    masked_cost,
    match_summary,
    min_convolution,
    mind_ssc,
    overlap,
    similarity,
    surface,
    surface_distances,
    warp,
)

pytestmark = pytest.mark.slow

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
POINTERS = {
    "codes": "*i16", "coarse": "*fp32", "displacement": "*fp32", "entropy": "*fp32",
    "entropy_range": "*fp32", "extremes": "*fp32", "first": "*fp32", "found": "*fp32",
    "second": "*fp32", "contrast": "*fp32", "distances": "*fp32", "means": "*fp32", "sums": "*fp32",
    "typical": "*fp32",
}  # fmt: skip
# of the dense match and the fit to it
DENSE = {
    "address": "*i64", "anchors": "*fp32", "below": "*i32", "cost": "*fp32", "covariance": "*fp32",
    "entries": "*i32", "first": "*i32", "fitted": "*fp32", "fixed": "*fp32", "fraction": "*fp32",
    "gradient": "*fp32", "mean": "*fp32", "message": "*fp32", "moving": "*fp32",
    "parameters": "*fp32", "probabilities": "*fp32", "scales": "*fp32", "source": "*fp32",
    "taps": "*fp32", "target": "*fp32", "weights": "*fp32",
}  # fmt: skip
# of the measures
LABELLED = {
    "areas": "*fp64", "codes": "*u8", "corners": "*i16", "counts": "*i64", "determinants": "*fp32",
    "first": "*fp32", "fixed": "*i32", "keys": "*i64", "labels": "*i32", "lengths": "*fp32",
    "mask": "*u8", "moving": "*i32", "numbers": "*i32", "offsets": "*i32", "origins": "*i64",
    "other_starts": "*i64", "others": "*i16", "owners": "*i32", "scale0": "fp32",
    "starts": "*i64", "sums": "*fp64", "tolerance": "fp32", "vectors": "*fp32",
}  # fmt: skip
FLOATS = {
    "base", "coupling", "curvature", "factor", "floor", "gain", "rate", "root", "scale", "scale1",
    "scale2", "side0", "side1", "side2", "smoothness", "step0", "step1", "step2", "unit_x",
    "unit_y", "unit_z",
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """A kernel at its production configuration, and what it may use on sm_80 and sm_90.

    ``registers``: the most it may take, a tenth above what was planned or found when it was
    written; more would cost occupancy.
    """

    kernel: Any
    constants: dict[str, Any]
    pointers: dict[str, str]
    registers: tuple[int, int]
    shared: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kernel.__name__}-{'-'.join(map(str, self.constants.values()))}"


BUILDS = (
    Build(
        cost_entropy.cost_entropy_kernel,
        {"C": 14, "CP": 16, "HALF": True, "BLOCK": 64, "FORM": "packed"},
        {"fixed": "*i64", "moving": "*i64", "cost": "*i32"},
        (88, 101),
        shared=256,
    ),
    Build(
        cost_entropy.cost_entropy_kernel,
        {"C": 14, "CP": 16, "HALF": False, "BLOCK": 64, "FORM": "plain"},
        {"fixed": "*i64", "moving": "*i64", "cost": "*fp32"},
        (112, 112),
        shared=256,
    ),
    Build(
        cost_entropy.cost_kernel,
        {"C": 14, "CP": 16, "HALF": False, "BLOCK": 64, "RADIUS": 2},
        {"fixed": "*i64", "moving": "*i64", "cost": "*fp32"},
        (44, 44),
        shared=256,
    ),
    Build(
        masked_cost.restrict_kernel,
        {"C": 14, "CP": 16, "HALF": False, "BLOCK": 128},
        {"fixed": "*i64", "moving": "*i64", "cost": "*fp32"},
        (44, 44),
    ),
    Build(
        cost_entropy.entropy_kernel,
        {"BLOCK": 128},
        {"cost": "*fp32"},
        (44, 44),
        shared=16,
    ),
    Build(filter_weights.entropy_range_kernel, {"BLOCK": 1024}, {}, (40, 40), shared=16),
    Build(
        filter_weights.weights_kernel,
        {"FROM_ZERO": False, "RADIUS": 1, "BLOCK": 256},
        {"sides": "*fp16"},
        (32, 32),
    ),
    Build(
        filter_kernels.filter_packed_kernel,
        {"WORDS": 2, "BLOCK": 128, "CONSTANT": False},
        {"source": "*i32", "target": "*i32", "sides": "*fp16"},
        (102, 104),
    ),
    Build(
        filter_kernels.filter_plain_kernel,
        {"BLOCK": 128, "CONSTANT": False},
        {"source": "*fp32", "target": "*fp32", "sides": "*fp16"},
        (64, 64),
    ),
    Build(
        filter_kernels.filter_codes_kernel,
        {"BITS": 5, "BLOCK": 128, "CONSTANT": False},
        {"target": "*fp32", "sides": "*fp16"},
        (79, 93),
    ),
    Build(
        filter_kernels.filter_axis_kernel,
        {"RADIUS": 3, "BLOCK": 256},
        {"source": "*fp32", "target": "*fp32", "sides": "*fp32"},
        (40, 40),
    ),
    Build(
        coupled_argmin.argmin_packed_kernel,
        {"COUPLED": True, "BLOCK": 128},
        {"cost": "*i32"},
        (44, 59),
        options={"enable_fp_fusion": False},
    ),
    Build(
        coupled_argmin.argmin_plain_kernel,
        {"RADIUS": 1, "BITS": 5, "BLOCK": 128},
        {"cost": "*fp32"},
        (79, 79),
        options={"enable_fp_fusion": False},
    ),
    Build(compose.compose_kernel, {"BLOCK": 256}, {"target": "*fp32"}, (61, 79)),
    Build(
        compose_backward.compose_backward_kernel,
        {"BLOCK": 128},
        {
            "gradient": "*fp32", "units": "*fp32", "of_first": "*fp32", "of_second": "*i64",
            "second": "*fp32",
        },
        (44, 44),
    ),
    Build(
        warp.warp_features_kernel,
        {"CP": 16, "HALF": True, "RESIZED": True, "BLOCK": 128},
        {"features": "*i64", "warped": "*fp16"},
        (105, 105),
        shared=1024,
    ),
    Build(
        warp.warp_kernel,
        {"DISPLACED": True, "NEAREST": False, "BORDER": False, "BLOCK": 128},
        {"volume": "*fp32", "warped": "*fp32"},
        (53, 53),
        options={"enable_fp_fusion": False},
    ),
    Build(box.box_axis_kernel, {"BLOCK": 256}, {"source": "*fp32", "target": "*fp32"}, (40, 40)),
    Build(
        distance_transform.distance_axis_kernel,
        {"BLOCK": 256},
        {"source": "*fp32", "target": "*fp32"},
        (36, 36),
    ),
    Build(local_contrast.contrast_kernel, {"BLOCK": 256}, {"volume": "*fp32"}, (32, 32)),
    Build(
        mind_ssc.differences_kernel,
        {"BLOCK": 256},
        {"volume": "*fp32", "offsets": "*i32", "target": "*fp32"},
        (40, 40),
    ),
    Build(mind_ssc.variance_kernel, {"PAIRS": 12, "BLOCK": 256}, {}, (64, 64), shared=64),
    Build(
        mind_ssc.descriptors_kernel,
        {"PAIRS": 12, "BLOCK": 256},
        {"target": "*fp32"},
        (64, 64),
        shared=1024,
    ),
    *(
        Build(
            dense_cost.dense_cost_kernel,
            {
                "CHANNELS": channels, "WIDTH": width, "ROW": row, "SEGMENTS": 4,
                "ANCHORED": anchored, "MORE": False, "BLOCK": 64,
            },
            DENSE,
            registers,
            options={"num_warps": 2},
        )
        for channels, width, row, anchored, registers in (
            (12, 7, 352, False, (70, 70)), (16, 15, 3392, True, (88, 131)),
            (24, 11, 1344, False, (140, 140)),
        )
    ),
    *(
        Build(
            min_convolution.pooled_kernel,
            {"WIDTH": width, "ROW": row, "SIDE": side, "LABELS": 16, "PRECISION": "ieee"},
            DENSE,
            (registers, registers),
            shared=shared,
            options={"num_warps": warps},
        )
        for width, row, side, warps, registers, shared in (
            (7, 352, 16, 1, 114, 3072), (11, 1344, 16, 1, 114, 3072), (15, 3392, 32, 8, 81, 8192),
        )
    ),
    *(
        Build(
            min_convolution.exact_kernel,
            {"WIDTH": width, "ROW": row, "LINES": 256},
            DENSE,
            (registers, registers),
            options={"num_warps": 8},
        )
        for width, row, registers in ((7, 352, 35), (11, 1344, 53), (15, 3392, 70))
    ),
    *(
        Build(
            grid_filter.within_planes_kernel,
            {"ROW": 1344, "RADIUS": radius, "POINTS": 16, "LABELS": 32},
            DENSE,
            (registers, registers),
        )
        for radius, registers in ((2, 61), (4, 121))
    ),
    Build(
        grid_filter.between_planes_kernel,
        {"ROW": 1344, "RADIUS": 2, "COMBINED": True, "BLOCK": 512},
        DENSE,
        (52, 44),
    ),
    *(
        Build(
            match_summary.summary_kernel,
            {"WIDTH": width, "ROW": row, "BLOCK": block},
            DENSE,
            (registers, registers),
            shared=4 * warps * (warps > 1),
            options={"num_warps": warps},
        )
        for width, row, block, warps, registers in (
            (7, 352, 512, 1, 101), (11, 1344, 2048, 4, 88), (15, 3392, 4096, 8, 108),
        )
    ),
    Build(
        match_summary.probabilities_kernel,
        {"ROW": 1344, "TILE": 32},
        DENSE,
        (44, 52),
        shared=4096,
    ),
    Build(fit_kernels.fit_mean_kernel, {"BLOCK": 128}, DENSE, (53, 61)),
    Build(fit_kernels.fit_gradient_kernel, {"WIDTH": 11, "BLOCK": 128}, DENSE, (53, 53)),
    Build(
        fit_kernels.fit_step_kernel,
        {"BLOCK": 128},
        DENSE | {"first": "*fp32", "second": "*fp32"},
        (53, 61),
    ),
    *(
        Build(
            overlap.overlap_kernel,
            {"DISPLACED": displaced, "WINDOW": window, "BLOCK": 1024},
            LABELLED,
            registers,
            shared=4 * window,
            options={"enable_fp_fusion": False},
        )
        for displaced, window, registers in (
            (True, 64, (105, 102)), (True, 256, (123, 141)), (False, 256, (118, 118)),
        )
    ),
    Build(
        jacobian.jacobian_kernel,
        {"CROP": 2, "STORED": True, "BLOCK": 256},
        LABELLED,
        (52, 52),
        shared=32,
        options={"enable_fp_fusion": False},
    ),
    Build(deformation.deformation_kernel, {"BLOCK": 128}, LABELLED, (137, 137), shared=32),
    Build(similarity.correlation_kernel, {"BLOCK": 1024}, LABELLED, (79, 88), shared=32),
    Build(
        surface.surface_corners_kernel, {"WRITTEN": False, "BLOCK": 256}, LABELLED, (57, 59),
        shared=16,
    ),
    Build(
        surface.surface_corners_kernel, {"WRITTEN": True, "BLOCK": 256}, LABELLED, (77, 79),
        shared=32,
    ),
    Build(
        surface_distances.nearest_corner_kernel,
        {"BLOCK": 64, "CHUNK": 32, "MOST": 64},
        LABELLED,
        (88, 105),
        shared=256,
    ),
    Build(
        surface_distances.surface_sums_kernel,
        {"SHARE": 0.95, "RUN": 1024},
        LABELLED,
        (152, 156),
        shared=256,
    ),
)  # fmt: skip


def signature(build: Build) -> dict[str, str]:
    """The type of each argument, as the launch finds it."""
    types = {}
    for name in build.kernel.arg_names:
        if name in build.constants:
            types[name] = "constexpr"
        elif name in FLOATS:
            types[name] = "fp32"
        else:
            types[name] = (POINTERS | build.pointers).get(name, "i32")
    return types


def compiled(build: Build, architecture: int) -> Any:
    types = signature(build)
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, kind in enumerate(types.values())
        if kind.startswith("*")
    }
    source = ASTSource(build.kernel, types, constexprs=build.constants, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": 4, **build.options})


def dump(what: str, cubin: Path) -> str:
    command = [str(CUOBJDUMP), what, str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("build", BUILDS, ids=[build.name for build in BUILDS])
@pytest.mark.parametrize("architecture", [80, 90])
def test_a_kernel_keeps_to_its_budget(build: Build, architecture: int, tmp_path: Path) -> None:
    binary = compiled(build, architecture)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(binary.asm["cubin"])
    usage = re.search(r"REG:(\d+) STACK:(\d+)", dump("--dump-resource-usage", cubin))
    assert usage is not None
    registers, stack = int(usage[1]), int(usage[2])
    assert registers <= build.registers[architecture == 90]
    assert stack == 0
    assert "STL" not in dump("--dump-sass", cubin), "registers spill"
    assert binary.metadata.shared <= build.shared


@pytest.mark.parametrize("architecture", [80, 90])
def test_a_voxel_of_features_is_read_in_whole_lines(architecture: int, tmp_path: Path) -> None:
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled(BUILDS[0], architecture).asm["cubin"])
    loads = re.findall(r"LDG\.[^\s]*", dump("--dump-sass", cubin))
    # 27 shifted reads and the fixed features, 16 bytes a lane; and both addresses
    assert sum(".128" in load for load in loads) == 28
    assert sum(".64" in load for load in loads) == len(loads) - 28 == 2
