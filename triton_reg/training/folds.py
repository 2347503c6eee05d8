"""Which subjects are held back from training, fold by fold."""

import torch


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
