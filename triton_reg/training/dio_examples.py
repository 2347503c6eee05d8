"""One side of a pair in training: its volume, structures and mask, and how they are changed."""

from typing import NamedTuple

import torch
from torch import Tensor

from triton_reg.training.augment import random_elastic, transformed


class Example(NamedTuple):
    """One side of a pair: ``volume`` in source units, ``classes`` and ``mask``, ``[1, 1, ...]``."""

    volume: Tensor
    classes: Tensor
    mask: Tensor


def changed(
    example: Example, matrix: Tensor, generator: torch.Generator, elastic: float = 0.0
) -> Example:
    """A subject under an affine matrix and, on top, a smooth random deformation.

    Args:
        example: the subject.
        matrix: see :func:`triton_reg.training.augment.random_affine`.
        generator: of the deformation.
        elastic: its standard deviation in voxels.
    """
    offsets = random_elastic(generator, example.volume, elastic) if elastic else None
    volume, classes = transformed(example.volume, example.classes, matrix, offsets)
    _, mask = transformed(example.volume, example.mask, matrix, offsets)
    return Example(volume, classes, mask)


def structure_masks(
    target: Example, source: Example, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One channel for each structure that both subjects have, ``[1, M, ...]``.

    Args:
        target, source: the subjects.
        most: so many of the structures, at random; 0 for all.
        generator: of the choice.
    """
    found = [one.classes.unique() for one in (target, source)]
    shared = found[0][torch.isin(found[0], found[1]) & (found[0] > 0)]
    if most:
        order = torch.randperm(len(shared), generator=generator)
        shared = shared[order[:most].to(shared.device)]
    numbers = shared.view(1, -1, 1, 1, 1)
    of_fixed, of_moving = ((one.classes == numbers).float() for one in (target, source))
    return of_fixed, of_moving
