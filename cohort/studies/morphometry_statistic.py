"""Student's t of the columns of a design at every voxel, from a 4D file that is read once.

The general linear model Y = X B + E by least squares. Sums over subjects are taken one volume at a
time, so that memory does not depend on how many there are. There is no correction for the number of
voxels: that takes permutations, by FSL's randomise or PALM.
"""

from collections.abc import Iterable

import numpy as np

from cohort.studies.morphometry_design import Design

_LEAST = 1e-12  # variance left, as a share of all; below it is rounding


def t_maps(volumes: Iterable[np.ndarray], design: Design) -> dict[str, np.ndarray]:
    """Of each column but the intercept, float32 ``[D, H, W]``; 0 where nothing varies.

    Args:
        volumes: ``[D, H, W]`` each, in the order of the design's rows.
        design: of more rows than columns.
    """
    products: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0
    for row, volume in zip(design.matrix, volumes, strict=True):
        values = volume.astype(np.float64)
        products = products + row[:, None, None, None] * values
        squares = squares + values**2
    inverse = np.linalg.inv(design.matrix.T @ design.matrix)
    coefficients = np.tensordot(inverse, products, axes=1)
    explained = (coefficients * products).sum(axis=0)
    freedom = design.matrix.shape[0] - design.matrix.shape[1]
    left = np.maximum(squares - explained, 0.0)
    varies = left > _LEAST * squares
    error = np.sqrt(left / freedom)
    found = {}
    for number, name in enumerate(design.columns[1:], start=1):
        spread = error * np.sqrt(inverse[number, number])
        values = np.divide(coefficients[number], spread, out=np.zeros_like(spread), where=varies)
        found[name] = values.astype(np.float32)
    return found
