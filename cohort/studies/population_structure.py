"""What a matrix of distances says: its centre, its groups, and a picture in the plane."""

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from cohort.errors import UsageError

MOST_TRIED = 10  # clusters
_WORTH_A_SPLIT = (
    0.25  # silhouette; Kaufman and Rousseeuw (1990) call less "no substantial structure"
)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of subjects.

    Attributes:
        of: ``[N]``, the group of each subject from 1, the largest first.
        silhouette: mean over the subjects; None for one group.
        tried: mean silhouette by number of groups, of those that ``auto`` compared.
    """

    of: np.ndarray
    silhouette: float | None
    tried: dict[int, float]


@dataclass(frozen=True, eq=False)
class Embedding:
    """``xy [N, 2]`` in units of the distance; ``share`` of the variance that the two axes hold."""

    xy: np.ndarray
    share: float


def mean_distances(matrix: np.ndarray) -> np.ndarray:
    """``[N]``: of each subject to all others; the medoid's is the smallest."""
    return matrix.sum(1) / (len(matrix) - 1)


def clusters(matrix: np.ndarray, asked: int | None = None) -> Clusters:
    """Groups by average linkage.

    Args:
        matrix: distances ``[N, N]``.
        asked: how many; None takes the number with the largest mean silhouette (Rousseeuw, J.
            Comput. Appl. Math. 1987) up to 10, or one group where none reaches 0.25.

    Raises:
        UsageError: ``E_POPULATION`` if there are fewer subjects than groups.
    """
    count = len(matrix)
    if asked is not None and not (isinstance(asked, int) and 1 <= asked <= count):  # from a YAML
        raise UsageError("E_POPULATION", f"--clusters {asked}: need 1 to {count}, as many subjects")
    tree = linkage(squareform(matrix, checks=False), "average")
    numbers = list(range(2, min(MOST_TRIED, count - 1) + 1)) if asked is None else [asked]
    # exactly so many, also where distances are equal
    found = dict(zip(numbers, cut_tree(tree, numbers).T, strict=True))
    tried = {
        number: float(silhouettes(matrix, groups).mean())
        for number, groups in found.items()
        if number > 1
    }
    best = asked or max(tried, key=tried.__getitem__, default=1)
    if asked is None and tried.get(best, 0.0) < _WORTH_A_SPLIT:
        best = 1
    groups = found[best] if best in found else np.ones(count, int)
    return Clusters(_largest_first(groups), tried.get(best), tried if asked is None else {})


def silhouettes(matrix: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``[N]``: how much nearer each subject is to its own group than to the next, -1 to 1.

    0 for a subject that is alone in its group.
    """
    numbers = np.unique(groups)
    members = groups[:, None] == numbers
    sums, sizes = matrix @ members, members.sum(0)
    own = members.argmax(1)
    rows = np.arange(len(matrix))
    within = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = np.where(members, np.inf, sums / sizes)
    nearest = means.min(1)
    value = (nearest - within) / np.maximum(np.maximum(nearest, within), np.finfo(float).tiny)
    return np.where(sizes[own] > 1, value, 0.0)


def embedding(matrix: np.ndarray) -> Embedding:
    """Classical multidimensional scaling to two axes (Torgerson, Psychometrika 1952).

    Each axis points to where its farthest subject lies. Distances that no Euclidean space has give
    negative eigenvalues, which do not count as variance.
    """
    squares = matrix**2
    row = squares.mean(1, keepdims=True)
    products = -(squares - row - row.T + squares.mean()) / 2
    values, vectors = np.linalg.eigh(products)
    values, vectors = values[::-1], vectors[:, ::-1]
    axes = vectors[:, :2] * np.sqrt(np.maximum(values[:2], 0))
    farthest = np.abs(axes).argmax(0)
    signs = np.sign(axes[farthest, [0, 1]])
    positive = values[values > 0].sum()
    share = np.maximum(values[:2], 0).sum() / positive if positive > 0 else 1.0
    return Embedding(axes * np.where(signs == 0, 1, signs), float(share))


def _largest_first(groups: np.ndarray) -> np.ndarray:
    """Groups numbered from 1 by size; of equal ones the group of the earlier subject first."""
    numbers, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    renumbered = {numbers[place]: number for number, place in enumerate(order, start=1)}
    return np.array([renumbered[group] for group in groups])
