"""Scans that are there more than once, whole or nearly, under other names and headers."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEARLY_SAME = 0.9999
_BLOCK = 2048


def same_content(contents: Sequence[str]) -> list[list[int]]:
    """Groups of two or more subjects whose digests are equal, as indices."""
    groups = defaultdict(list)
    for index, content in enumerate(contents):
        groups[content].append(index)
    return [group for group in groups.values() if len(group) > 1]


def nearly_same(fingerprints: np.ndarray) -> list[list[int]]:
    """Groups whose fingerprints ``[N, F]``, of length 1, correlate above 0.9999, as indices.

    All pairs, by products of blocks: N = 10,000 of 512 values are 26 GFLOP and 100 MB at a time.
    """
    count = len(fingerprints)
    firsts, seconds = [], []
    for start in range(0, count, _BLOCK):
        alike = fingerprints[start : start + _BLOCK] @ fingerprints[start:].T > NEARLY_SAME
        first, second = np.nonzero(alike)
        firsts.append(first + start)
        seconds.append(second + start)
    first, second = np.concatenate([[], *firsts]), np.concatenate([[], *seconds])
    edges = coo_array(
        (np.ones(len(first)), (first.astype(int), second.astype(int))), (count, count)
    )
    _, labels = connected_components(edges, directed=False)
    groups = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        groups[label].append(index)
    return [group for group in groups.values() if len(group) > 1]
