"""Which pairs of a descent go on, decided on the GPU; see ``descent_graph.py``."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.step_kernels import corrections


@triton.jit(do_not_specialize=("chunks", "patience"))
def stop_kernel(
    sums,
    live,
    stepping,
    converged,
    done,
    waited,
    steps,
    limit,
    bias,
    loss,
    lengths,
    chunks,
    scale,
    tolerance,
    patience,
    LOG_FIRST: tl.constexpr,
    LOG_SECOND: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Judge an iteration of each pair by ``sums [B, 2, chunks]`` of loss and squared gradient.

    ``live [B]`` uint8: whose force is wanted, next time; ``stepping [B]``: who takes this step;
    ``converged [B]``. ``done``, ``waited``, ``steps [B]`` int32; ``limit [1]`` iterations at most.
    ``bias [B, 2]``, ``loss [B]``; ``lengths [B, 2]``: of the first and the last gradient.
    Grid ``(B,)``.
    """
    pair = tl.program_id(0)
    if tl.load(live + pair) == 0:
        tl.store(stepping + pair, (pair * 0).to(tl.uint8))
        return
    lane = tl.arange(0, CHUNKS)
    row = sums + pair * 2 * chunks + lane
    found = scale * tl.sum(tl.load(row, mask=lane < chunks, other=0.0), axis=0)
    square = tl.sum(tl.load(row + chunks, mask=lane < chunks, other=0.0), axis=0)
    length = tl.sqrt(square)
    count = tl.load(done + pair) + 1
    if count == 1:
        tl.store(lengths + 2 * pair, length)
    tl.store(lengths + 2 * pair + 1, length)
    is_progress = found / tl.load(loss + pair) - 1 <= -tolerance
    wait = tl.where(is_progress, 0, tl.load(waited + pair) + 1)
    goes_on = wait < patience
    tl.store(done + pair, count)
    tl.store(waited + pair, wait)
    tl.store(loss + pair, found)
    tl.store(stepping + pair, goes_on.to(tl.uint8))
    tl.store(converged + pair, (wait >= patience).to(tl.uint8))
    tl.store(live + pair, (goes_on & (count < tl.load(limit))).to(tl.uint8))
    step = tl.load(steps + pair) + goes_on.to(tl.int32)
    tl.store(steps + pair, step)
    first, second = corrections(tl.maximum(step, 1), LOG_FIRST, LOG_SECOND)
    tl.store(bias + 2 * pair, first)
    tl.store(bias + 2 * pair + 1, second)
