"""The separable filter whose taps may differ from voxel to voxel, in place on bordered volumes."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, exp, f4, log
from triton_reg.ops._cpu.layout import copy_row

# elements a run within a plane: nine rows of that length stay in the first-level cache
RUN = 1024


@njit(**KERNEL)
def gaussian_taps(entropy, origin, inverse, low, scale, border, taps):
    """Gaussian taps as wide as the entropy says: ``σ = low + scale ln(1 + (E - origin) inverse)``.

    Args:
        entropy: ``[D, H, W]`` in nats.
        taps: bordered ``[R + 1, P]``, centre tap first, overwritten; zero in the borders, which
            keeps the borders of every filtered volume zero.
    """
    depth, height, width = entropy.shape
    row = width + 2 * border
    plane = (height + 2 * border) * row
    taps[:] = 0
    for z in range(depth):
        for y in range(height):
            begin = (z + border) * plane + (y + border) * row + border
            values, centre = entropy[z, y], taps[0, begin : begin + width]
            for x in range(width):
                sigma = low + scale * log(f4(1) + (values[x] - origin) * inverse)
                sigma = max(sigma, f4(1e-3))
                centre[x] = f4(-0.5) / (sigma * sigma)
            for step in range(1, taps.shape[0]):
                side = taps[step, begin : begin + width]
                for x in range(width):
                    side[x] = exp(centre[x] * f4(step * step))
            centre[:] = 1
            for step in range(1, taps.shape[0]):
                side = taps[step, begin : begin + width]
                for x in range(width):
                    centre[x] += f4(2) * side[x]
            for step in range(1, taps.shape[0]):
                side = taps[step, begin : begin + width]
                for x in range(width):
                    side[x] /= centre[x]
            for x in range(width):
                centre[x] = f4(1) / centre[x]


@njit(**KERNEL)
def constant_side(value, geometry, side):
    """One side tap for all voxels: ``value`` inside the bordered ``side [P]``, zero outside."""
    depth, height, width, border = geometry
    row = width + 2 * border
    plane = (height + 2 * border) * row
    side[:] = 0
    for z in range(depth):
        for y in range(height):
            begin = (z + border) * plane + (y + border) * row + border
            side[begin : begin + width] = value


@njit(**KERNEL)
def filter_three_taps(volumes, sides, passes, geometry):
    """Filter ``volumes [K, P]`` in place along the three axes, ``passes`` times.

    Fast because the passes follow one another plane by plane: pass p does plane z as soon as pass
    p - 1 has done plane z + 1, so a volume is read once and written once while the planes between
    the passes stay in the cache; each plane goes through its three axes run by run.

    Args:
        sides: the side taps of each axis, three bordered ``[P]``; the centre is ``1 - 2 side``.
        geometry: ``(D, H, W, border)``.
    """
    depth, height, width, border = geometry
    row = width + 2 * border
    plane = (height + 2 * border) * row
    between = np.zeros((max(passes - 1, 1), 3, plane), np.float32)
    lines = np.zeros((3, plane), np.float32)
    for k in range(volumes.shape[0]):
        volume = volumes[k]
        for step in range(depth + passes - 1):
            for number in range(min(passes, step + 1)):
                z = step - number
                if z >= depth:
                    continue
                at = (z + border) * plane
                if number == 0:
                    below, here = volume[at - plane : at], volume[at : at + plane]
                    if passes == 1:  # the plane below is overwritten already
                        copy_row(here, between[0, z % 3])
                        below = between[0, (z + 2) % 3] if z > 0 else lines[2]
                    above = volume[at + plane : at + 2 * plane]
                else:
                    ring = between[number - 1]
                    below = ring[(z + 2) % 3] if z > 0 else lines[2]
                    here = ring[z % 3]
                    above = ring[(z + 1) % 3] if z < depth - 1 else lines[2]
                last = number == passes - 1
                out = volume[at : at + plane] if last else between[number, z % 3]
                side_z, side_y, side_x = sides
                _filter_plane(
                    (below, here, above),
                    (side_z[at : at + plane], side_y[at : at + plane], side_x[at : at + plane]),
                    lines,
                    out,
                    (row, border, height, width),
                )


@njit(**KERNEL)
def _filter_plane(planes, sides, lines, out, geometry):
    """One plane through the three axes; along the first axis one row ahead of the second."""
    row, border, height, width = geometry
    start = border * row + border
    end = start + (height - 1) * row + width
    rows = max(1, RUN // row) * row
    below, here, above = planes
    along_z, along_y = lines[0], lines[1]
    ready = start
    for begin in range(start, end, rows):
        stop = min(begin + rows, end)
        ahead = min(stop + row, end)
        _three_taps(below, here, above, sides[0], along_z, ready, ahead, 0)
        ready = ahead
        _three_taps(along_z, along_z, along_z, sides[1], along_y, begin, stop, row)
        _three_taps(along_y, along_y, along_y, sides[2], out, begin, stop, 1)


@njit(**KERNEL)
def _three_taps(before, here, after, side, out, begin, end, stride):
    """``out = here + side (before + after - 2 here)``, neighbours ``stride`` elements away."""
    low = before[begin - stride : end - stride]
    high = after[begin + stride : end + stride]
    mid, weight, target = here[begin:end], side[begin:end], out[begin:end]
    for i in range(end - begin):
        target[i] = mid[i] + weight[i] * (low[i] + high[i] - f4(2) * mid[i])


@njit(**KERNEL)
def filter_wide(volumes, taps, passes, geometry):
    """As :func:`filter_three_taps` with ``taps [R + 1, P]``, one whole axis after the other."""
    _, height, width, border = geometry
    row = width + 2 * border
    plane = (height + 2 * border) * row
    begin = border * (plane + row + 1)
    end = taps.shape[1] - begin
    filtered = np.zeros(taps.shape[1], np.float32)
    for k in range(volumes.shape[0]):
        volume = volumes[k]
        for _ in range(passes):
            for stride in (plane, row, 1):
                for start in range(begin, end, RUN):
                    stop = min(start + RUN, end)
                    target = filtered[start:stop]
                    middle, share = volume[start:stop], taps[0, start:stop]
                    for i in range(stop - start):
                        target[i] = share[i] * middle[i]
                    for step in range(1, taps.shape[0]):
                        weight = taps[step, start:stop]
                        low = volume[start - step * stride : stop - step * stride]
                        high = volume[start + step * stride : stop + step * stride]
                        for i in range(stop - start):
                            target[i] += weight[i] * (low[i] + high[i])
                copy_row(filtered[begin:end], volume[begin:end])
