"""The coupled argmin; the definition stands in ``ops/coupled_argmin.py``.

Roofline row "argmin x7": the cost volume is read once and one code a voxel is written. A code holds
the three components of a label side by side in one integer, ``BITS`` bits each, such that codes of
tied labels add up like the labels; 5 bits hold the sums of radius 1 (at most 9), 10 bits those of
radius 3 (at most 294). The code 0 is no displacement.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import PACKED_LABELS, SIZES, unpack

_TIE_TOLERANCE = tl.constexpr(5e-5 * 2**-25)
_BLOCK = 128


@triton.jit
def decode(code, BITS: tl.constexpr):
    """The three components of a code, float32."""
    HALF: tl.constexpr = 1 << (BITS - 1)
    code = code.to(tl.int32)
    third = ((code + HALF) & (2 * HALF - 1)) - HALF
    code = (code - third) >> BITS
    second = ((code + HALF) & (2 * HALF - 1)) - HALF
    first = (code - second) >> BITS
    return first.to(tl.float32), second.to(tl.float32), third.to(tl.float32)


@triton.jit
def _pull(coupling, component, step):
    """Cost of a label whose component differs from that of the displacement."""
    distance = component - step
    return coupling * (distance * distance)


@triton.jit
def _three_pulls(displacement, inside, coupling):
    """The pulls of the steps -1, 0 and 1 along an axis."""
    component = tl.load(displacement, mask=inside, other=0.0)
    below = _pull(coupling, component, -1)
    return below, _pull(coupling, component, 0), _pull(coupling, component, 1)


@triton.jit
def _code_of(label: tl.constexpr):
    """The code of one of the 27 labels of radius 1."""
    return (label // 9 - 1) * 1024 + (label // 3 % 3 - 1) * 32 + (label % 3 - 1)


@triton.jit(do_not_specialize=SIZES)
def argmin_packed_kernel(
    cost, displacement, codes, coupling, voxels, COUPLED: tl.constexpr, BLOCK: tl.constexpr
):
    """Radius 1 from ``cost [B, 14, N]`` int32, two centred fp16 labels a word.

    ``displacement [B, 3, N]`` float32, not read unless ``COUPLED``; ``codes [B, N]`` int16. Labels
    tie if they are equal: fp16 has no room for a tolerance. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    cost += pair * 14 * voxels + voxel
    if COUPLED:
        row = displacement + pair * 3 * voxels + voxel
        pulls0 = _three_pulls(row, inside, coupling)
        pulls1 = _three_pulls(row + voxels, inside, coupling)
        pulls2 = _three_pulls(row + 2 * voxels, inside, coupling)
    best = tl.full([BLOCK], float("inf"), tl.float32)
    winner = tl.zeros([BLOCK], tl.int32)
    for word in tl.static_range(14):
        both = unpack(tl.load(cost + word * voxels, mask=inside, other=0))
        for half in tl.static_range(2):
            if 2 * word + half < 27:
                # the three indices are the label's steps plus one
                here = both[half]
                if COUPLED:
                    here += pulls0[(2 * word + half) // 9]
                    here += pulls1[(2 * word + half) // 3 % 3]
                    here += pulls2[(2 * word + half) % 3]
                code = _code_of(2 * word + half)
                tied = tl.where(here == best, winner + code, winner)
                winner = tl.where(here < best, code, tied)
                best = tl.minimum(best, here)
    tl.store(codes + pair * voxels + voxel, winner.to(tl.int16), mask=inside)


@triton.jit
def _candidate(column, label, coupling, d0, d1, d2, inside, RADIUS: tl.constexpr):
    """Cost of one label with its pulls, added in the order of the definition."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    here = tl.load(column, mask=inside, other=0.0)
    here += _pull(coupling, d0, label // (SIDE * SIDE) - RADIUS)
    here += _pull(coupling, d1, label // SIDE % SIDE - RADIUS)
    return here + _pull(coupling, d2, label % SIDE - RADIUS)


@triton.jit(do_not_specialize=SIZES)
def argmin_plain_kernel(
    cost,
    displacement,
    codes,
    coupling,
    voxels,
    RADIUS: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Any radius from ``cost [B, L, N]`` float32, with the tolerance of the definition.

    Two sweeps over the labels, the second from the cache: the tolerance is on the lowest cost of
    all. ``codes [B, N]`` int16 or int32. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    row = displacement + pair * 3 * voxels + voxel
    d0 = tl.load(row, mask=inside, other=0.0)
    d1 = tl.load(row + voxels, mask=inside, other=0.0)
    d2 = tl.load(row + 2 * voxels, mask=inside, other=0.0)
    SIDE: tl.constexpr = 2 * RADIUS + 1
    LABELS: tl.constexpr = SIDE * SIDE * SIDE
    first = cost + pair * LABELS * voxels + voxel
    best, column = tl.full([BLOCK], float("inf"), tl.float32), first
    for label in range(LABELS):
        here = _candidate(column, label, coupling, d0, d1, d2, inside, RADIUS)
        best = tl.minimum(best, here)
        column += voxels
    best += _TIE_TOLERANCE
    winner, column = tl.zeros([BLOCK], tl.int32), first
    for label in range(LABELS):
        here = _candidate(column, label, coupling, d0, d1, d2, inside, RADIUS)
        code = (label // (SIDE * SIDE) - RADIUS) << (2 * BITS)
        code += ((label // SIDE % SIDE - RADIUS) << BITS) + (label % SIDE - RADIUS)
        winner += tl.where(here <= best, code, 0)
        column += voxels
    tl.store(codes + pair * voxels + voxel, winner.to(codes.dtype.element_ty), mask=inside)


def code_bits(radius: int) -> int:
    """Bits a component of a code at this search radius."""
    return 5 if radius == 1 else 10


def coupled_argmin(
    cost: Tensor, displacement: Tensor, coupling: float, radius: int, codes: Tensor
) -> None:
    """Launch the argmin that the cost volume's dtype asks for.

    Args:
        cost: ``[B, 14, N]`` int32 (packed) or ``[B, L, N]`` float32.
        displacement: ``[B, 3, N]`` float32 in voxels.
        codes: ``[B, N]``, written; int16 at radius 1, else int32.
    """
    batch, _, voxels = cost.shape
    # without fused multiply-adds labels that tie in the definition tie here
    if cost.dtype == torch.int32:
        assert cost.shape[1] == PACKED_LABELS
        argmin_packed_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
            cost, displacement, codes, float(coupling), voxels,
            COUPLED=coupling != 0, BLOCK=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        return
    argmin_plain_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        cost, displacement, codes, float(coupling), voxels,
        RADIUS=radius, BITS=code_bits(radius), BLOCK=_BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
