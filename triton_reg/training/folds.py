"""Which subjects are held back from training, and which of their pairs are looked at."""

from itertools import permutations

import torch

MOST_PAIRS = 200  # whose mean is known to a fifteenth of how much pairs differ


def held_back(count: int, folds: int, seed: int) -> list[list[int]]:
    """Rows of ``count`` subjects that each of the folds holds back, in a random order.

    Every fold holds back ``count // folds``; what is left over is in no fold, and always trained
    on.

    Raises:
        ValueError: unless each fold holds back at least two and leaves two to train on.
    """
    size = count // folds if folds > 1 else 0
    if size < 2 or count - size < 2:
        raise ValueError(
            f"held_back: needs at least 2 folds of 2 subjects each, got {count} subjects and "
            f"{folds} folds"
        )
    order = shuffled(count, seed)
    return [order[size * fold : size * (fold + 1)] for fold in range(folds)]


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below ``count`` in a random order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def some_pairs(count: int, seed: int) -> list[tuple[int, int]]:
    """Ordered pairs of ``count`` subjects, ascending: all, or `MOST_PAIRS` of them at random."""
    pairs = list(permutations(range(count), 2))
    if len(pairs) <= MOST_PAIRS:
        return pairs
    return [pairs[at] for at in sorted(shuffled(len(pairs), seed)[:MOST_PAIRS])]
