"""The launches of an instance fit, see ``instance_fit.py``; a thread is a control point."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.layout import SIZES, coordinates, subject_lines
from triton_reg.ops._triton.sampling import cell

_KEEP_FIRST, _KEEP_SECOND = tl.constexpr(0.9), tl.constexpr(0.999)  # Adam's decay rates
_TINY = tl.constexpr(1e-8)  # what Adam adds to the root


@triton.jit
def _count(here, there, size):
    """Points of an axis within one of both: how often two means of three count one for another."""
    lowest = tl.maximum(tl.maximum(here, there) - 1, 0)
    return tl.minimum(tl.minimum(here, there) + 1, size - 1) - lowest + 1


@triton.jit
def _twice_mean(field, index, inside, depth, height, width):
    """Two means over 3 x 3 x 3 control points of ``field [P]``, zeros outside: ``[BLOCK]``.

    A mean over neighbours with zeros outside is its own transpose.
    """
    z, y, x = coordinates(index, height, width)
    total = tl.zeros_like(index).to(tl.float32)
    for step_z in range(-2, 3):
        there_z = z + step_z
        count_z = _count(z, there_z, depth)
        valid_z = inside & (there_z >= 0) & (there_z < depth)
        for step_y in tl.static_range(-2, 3):
            there_y = y + step_y
            count_zy = count_z * _count(y, there_y, height)
            valid = valid_z & (there_y >= 0) & (there_y < height)
            row = field + (there_z * height + there_y) * width + x
            for step_x in tl.static_range(-2, 3):
                there_x = x + step_x
                within = valid & (there_x >= 0) & (there_x < width)
                count = count_zy * _count(x, there_x, width)
                total += count.to(tl.float32) * tl.load(row + step_x, mask=within, other=0.0)
    return total * (1 / 729)


@triton.jit
def _component(pair, points):
    """Offset of this program's component of ``[B, 3, P]``."""
    return (pair * 3 + tl.program_id(1)) * points


@triton.jit(do_not_specialize=SIZES)
def fit_mean_kernel(parameters, fitted, depth, height, width, BLOCK: tl.constexpr):
    """The field of ``parameters``, both ``[B, 3, P]``. Grid ``(cdiv(P, BLOCK), 3, B)``."""
    points = depth * height * width
    offset = _component(tl.program_id(2).to(tl.int64), points)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < points
    mean = _twice_mean(parameters + offset, index, inside, depth, height, width)
    tl.store(fitted + offset + index, mean, mask=inside)


@triton.jit
def _slopes(likely, points, z, y, x, inside, WIDTH: tl.constexpr):
    """Derivatives of a point's probability along its label axes at a position; 0 beyond labels."""
    below_z, share_z = cell(z)
    below_y, share_y = cell(y)
    below_x, share_x = cell(x)
    along_z = tl.zeros_like(z)
    along_y, along_x = along_z, along_z
    for corner in tl.static_range(8):
        # whether it lies above along each axis
        up, aside, along = corner // 4, corner // 2 % 2, corner % 2
        label_z, label_y, label_x = below_z + up, below_y + aside, below_x + along
        valid = inside & (label_z >= 0) & (label_z < WIDTH) & (label_y >= 0)
        valid = valid & (label_y < WIDTH) & (label_x >= 0) & (label_x < WIDTH)
        label = (label_z * WIDTH + label_y) * WIDTH + label_x
        value = tl.load(likely + label * points, mask=valid, other=0.0)
        part_z = share_z if up == 1 else 1 - share_z
        part_y = share_y if aside == 1 else 1 - share_y
        part_x = share_x if along == 1 else 1 - share_x
        along_z += value * (2 * up - 1) * part_y * part_x
        along_y += value * (2 * aside - 1) * part_z * part_x
        along_x += value * (2 * along - 1) * part_z * part_y
    return along_z, along_y, along_x


@triton.jit
def _differences(field, place, size, stride, rate, inside):
    """Gradient of squared differences along one axis: differences to both neighbours."""
    here = tl.load(field, mask=inside, other=0.0)
    before = tl.load(field - stride, mask=inside & (place > 0), other=0.0)
    after = tl.load(field + stride, mask=inside & (place < size - 1), other=0.0)
    total = tl.where(place > 0, here - before, 0.0)
    return rate * (total + tl.where(place < size - 1, here - after, 0.0))


@triton.jit
def _roughness(field, z, y, x, smoothness, depth, height, width, inside):
    """Gradient of ``smoothness Σ_axes mean (∂field)²`` for one component of three."""
    plane = height * width
    rate = 2 * smoothness / 3 / (depth * plane).to(tl.float32)
    # a mean is over one difference fewer than there are points
    rate_z = rate * depth.to(tl.float32) / tl.maximum(depth - 1, 1).to(tl.float32)
    rate_y = rate * height.to(tl.float32) / tl.maximum(height - 1, 1).to(tl.float32)
    rate_x = rate * width.to(tl.float32) / tl.maximum(width - 1, 1).to(tl.float32)
    total = _differences(field, z, depth, plane, rate_z, inside)
    total += _differences(field, y, height, width, rate_y, inside)
    return total + _differences(field, x, width, 1, rate_x, inside)


@triton.jit(do_not_specialize=SIZES)
def fit_gradient_kernel(
    address,
    fitted,
    gradient,
    unit_z,
    unit_y,
    unit_x,
    smoothness,
    depth,
    height,
    width,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The loss's gradient at ``fitted``, both ``[B, 3, P]``. Grid ``(cdiv(P, BLOCK), B)``."""
    pair, points = tl.program_id(1).to(tl.int64), depth * height * width
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < points
    z, y, x = coordinates(index, height, width)
    LABELS: tl.constexpr = WIDTH * WIDTH * WIDTH
    likely = subject_lines(address, 0, False) + pair * LABELS * points + index
    first = fitted + pair * 3 * points + index
    second, third = first + points, first + 2 * points
    middle = WIDTH // 2
    along_z, along_y, along_x = _slopes(
        likely,
        points,
        tl.load(first, mask=inside, other=0.0) / unit_z + middle,
        tl.load(second, mask=inside, other=0.0) / unit_y + middle,
        tl.load(third, mask=inside, other=0.0) / unit_x + middle,
        inside,
        WIDTH,
    )
    share, out = points.to(tl.float32), gradient + pair * 3 * points + index
    smooth = _roughness(first, z, y, x, smoothness, depth, height, width, inside)
    tl.store(out, smooth - along_z / (share * unit_z), mask=inside)
    smooth = _roughness(second, z, y, x, smoothness, depth, height, width, inside)
    tl.store(out + points, smooth - along_y / (share * unit_y), mask=inside)
    smooth = _roughness(third, z, y, x, smoothness, depth, height, width, inside)
    tl.store(out + 2 * points, smooth - along_x / (share * unit_x), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def fit_step_kernel(
    gradient, parameters, first, second, rate, root, depth, height, width, BLOCK: tl.constexpr
):
    """A step of Adam along the gradient of the parameters, all ``[B, 3, P]``.

    ``rate`` and ``root`` correct the bias of the moments. Grid ``(cdiv(P, BLOCK), 3, B)``.
    """
    points = depth * height * width
    offset = _component(tl.program_id(2).to(tl.int64), points)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < points
    slope = _twice_mean(gradient + offset, index, inside, depth, height, width)
    place = offset + index
    velocity = _KEEP_FIRST * tl.load(first + place, mask=inside, other=0.0)
    velocity += (1 - _KEEP_FIRST) * slope
    square = _KEEP_SECOND * tl.load(second + place, mask=inside, other=0.0)
    square += (1 - _KEEP_SECOND) * slope * slope
    tl.store(first + place, velocity, mask=inside)
    tl.store(second + place, square, mask=inside)
    moved = tl.load(parameters + place, mask=inside, other=0.0)
    moved -= rate * velocity / (tl.sqrt(square) * root + _TINY)
    tl.store(parameters + place, moved, mask=inside)
