"""Bytes and operations that each kernel takes at least, whatever computes it.

Everything is float32. An array that is read or written counts once, from and to memory, although a
cache may hold it; a multiplication, an addition and a comparison count one each.

VoxelOpt, for L labels and C channels: a squared difference a channel and label is 3 operations, the
entropy 26 a label, a pass of the filter along an axis 7 with three taps, an argmin 8 a label; a
composition of displacements 216 a voxel, a linear sample 15 a channel. The cost volume is written
once, read and written by its filter, and read by each argmin; features of both subjects and the
warped copy are read, and the copy is written.

PDD-Net, for n labels times points: a cost volume is written once with 6 operations a channel (a
linear interpolation along the second axis, those along the others being shared, and a squared
difference); a round of messages reads and writes it, with 9 operations an axis of labels (two
minima, five symmetric taps), 7 an axis of points and 3 to combine; an exact round takes an addition
and a minimum for each label of a line; a summary reads it, with an exponential of 17 and 8 sums.

DIO: an iteration reads the features of both volumes, reads vectors and writes their gradient; the
step reads gradient and vectors, reads and writes two moments and writes vectors. A channel of a
sample with its three slopes from 20 voxels takes 53 multiply-adds along the axes, residual and sums
4 more; a smoothing of a component 15 operations with 3 taps an axis and 27 with 5; Adam 12 a
component, composition 75; a local correlation 30 additions for its five box sums, 18 for those of
its three coefficients and 45 between.
"""

from typing import NamedTuple

from triton_reg.ops.level_settings import LevelSettings

ROUND, SUMMARY = 3 * 9 + 3 * 7 + 3, 25  # operations a label and point
SAMPLE, CORRELATION = 2 * 57, 30 + 18 + 45  # a channel and voxel
STEP = {"add": 3 * (27 + 15 + 12), "compose": 3 * (27 + 15 + 12 + 75)}
_WARP, _COMPOSE = 15, 216


class Floor(NamedTuple):
    """Bytes from and to memory, and operations."""

    bytes: float
    operations: float


def level(voxels: int, channels: int, settings: LevelSettings, squarings: int = 7) -> Floor:
    """One level of VoxelOpt from features and a displacement to the next displacement."""
    solved = solve(voxels, channels, settings)
    moved = (_WARP * channels + _COMPOSE * (squarings + 1)) * voxels
    return Floor(solved.bytes + 8 * channels * voxels, solved.operations + moved)


def solve(voxels: int, channels: int, settings: LevelSettings) -> Floor:
    """Cost volume, entropy, filter and argmins, from features that are warped already."""
    labels, argmins = (2 * settings.radius + 1) ** 3, 1 + len(settings.couplings)
    filtered = settings.passes * 3 * (4 * settings.tap_radius + 3) if settings.filter_cost else 0
    operations = labels * (3 * channels + 26 + filtered + 8 * argmins)
    volumes = 1 + (2 if settings.filter_cost else 0) + argmins
    return Floor(4 * (2 * channels + labels * volumes) * voxels, operations * voxels)


def warp(voxels: int, channels: int) -> Floor:
    """A linear sample of each channel."""
    return Floor((8 * channels + 12) * voxels, _WARP * channels * voxels)


def compose(voxels: int) -> Floor:
    """One displacement after another."""
    return Floor(36 * voxels, _COMPOSE * voxels)


def integrate(voxels: int, squarings: int) -> Floor:
    """Scaling and squaring; what lies between first and last may stay in a cache."""
    return Floor(24 * voxels, _COMPOSE * squarings * voxels)


def local_contrast(voxels: int, widths: int) -> Floor:
    """Two running sums an axis and width, and what becomes of them."""
    return Floor(4 * (1 + widths) * voxels, 18 * widths * voxels)


def mind_ssc(voxels: int) -> Floor:
    """Twelve squared differences, their running sums, least, mean and exponential."""
    return Floor(4 * 13 * voxels, 12 * (2 + 6 + 3 + 17) * voxels)


def dense_cost(n: int, channels: int) -> Floor:
    """All costs of a dense match."""
    return Floor(4 * n, 6 * channels * n)


def message_round(n: int, exact_width: int = 0) -> Floor:
    """A round of messages; with the exact min-convolution over lines of ``exact_width`` labels."""
    return Floor(8 * n, (ROUND + (3 * (2 * exact_width - 9) if exact_width else 0)) * n)


def summary(n: int) -> Floor:
    """Expectation, entropy and covariance of all probabilities."""
    return Floor(4 * n, SUMMARY * n)


def dense_match(n: int, channels: int, rounds: int = 2, exact_width: int = 0) -> Floor:
    """Costs, rounds of messages and summary."""
    parts = [dense_cost(n, channels), summary(n), *[message_round(n, exact_width)] * rounds]
    return Floor(*(sum(one) for one in zip(*parts, strict=True)))


def force(voxels: int, channels: int, loss: str) -> Floor:
    """A loss of DIO and its gradient."""
    operations = SAMPLE + (CORRELATION if loss == "lncc" else 0)
    return Floor((8 * channels + 24) * voxels, operations * channels * voxels)


def step(voxels: int, update: str) -> Floor:
    """A step of DIO's optimiser, smoothing included."""
    return Floor(84 * voxels, STEP[update] * voxels)


def iteration(voxels: int, channels: int, loss: str, update: str) -> Floor:
    """A force and a step."""
    one, other = force(voxels, channels, loss), step(voxels, update)
    return Floor(one.bytes + other.bytes, one.operations + other.operations)


def label_counts(voxels: int) -> Floor:
    """Two maps of int32, a comparison and two counts."""
    return Floor(8 * voxels, 3 * voxels)


def warped_labels(voxels: int) -> Floor:
    """Labels of the nearest voxel."""
    return Floor(20 * voxels, 12 * voxels)


def jacobian(voxels: int) -> Floor:
    """Nine differences, a determinant, a logarithm and sums."""
    return Floor(12 * voxels, (18 + 14 + 17 + 4) * voxels)
