"""A stored subject as tensors: what methods and measures take."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cohort.data.store import Subject
from triton_reg.metrics.label_surfaces import Surfaces, label_surfaces
from triton_reg.ops.resize import Shape, resize, resize_nearest


@dataclass(frozen=True, eq=False)
class Scan:
    """A subject as tensors with a batch of one: ``[1, 1, D, H, W]``, truth ``[1, 3, D, H, W]``.

    ``mask`` is all ones where the subject has none, which ``is_masked`` tells. ``keypoints_mm`` are
    ``[K, 3]`` float64 in RAS mm of the working space; ``to_native_mm [4, 4]`` leads from there to
    the subject's own world.
    """

    volume: Tensor
    mask: Tensor
    labels: Tensor | None = None
    to_template: Tensor | None = None
    from_template: Tensor | None = None
    is_masked: bool = False
    keypoints_mm: Tensor | None = None
    to_native_mm: Tensor | None = None

    @classmethod
    def of(cls, subject: Subject, to_native_mm: np.ndarray | None = None) -> "Scan":
        """The tensors of a stored subject; labels as int32, the mask as float32."""
        volume = _tensor(subject.volume[None])
        mask, labels, points = subject.mask, subject.labels, subject.keypoints_mm
        return cls(
            volume,
            torch.ones_like(volume) if mask is None else _tensor(mask[None].astype(np.float32)),
            None if labels is None else _tensor(labels[None].astype(np.int32)),
            None if subject.to_template is None else _tensor(subject.to_template),
            None if subject.from_template is None else _tensor(subject.from_template),
            mask is not None,
            None if points is None else torch.from_numpy(points),
            None if to_native_mm is None else torch.from_numpy(to_native_mm),
        )

    @property
    def size_bytes(self) -> int:
        """Memory held by the tensors, and by the surfaces once they are made."""
        held = [*vars(self).values(), *vars(self).get("surfaces", ())]
        return sum(value.nbytes for value in held if isinstance(value, Tensor))

    @cached_property
    def surfaces(self) -> Surfaces:
        """Of every structure; made once, whatever the subject is paired with. Needs labels."""
        assert self.labels is not None
        found = self.labels.unique()
        return label_surfaces(self.labels[0, 0], found[found > 0])

    def on_grid(self, shape: Shape) -> "Scan":
        """The scan on a coarser grid over the same extent: linear, labels and mask nearest."""
        if tuple(self.volume.shape[2:]) == shape:
            return self
        return Scan(
            resize(self.volume, shape),
            resize_nearest(self.mask, shape),
            None if self.labels is None else resize_nearest(self.labels, shape),
            None if self.to_template is None else _resized_vectors(self.to_template, shape),
            None if self.from_template is None else _resized_vectors(self.from_template, shape),
            self.is_masked,
            self.keypoints_mm,
            self.to_native_mm,
        )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)[None]


def _resized_vectors(vectors: Tensor, shape: Shape) -> Tensor:
    """Voxel vectors on another grid, in that grid's voxels."""
    factors = [(new - 1) / (old - 1) for new, old in zip(shape, vectors.shape[2:], strict=True)]
    return resize(vectors, shape) * vectors.new_tensor(factors).view(1, 3, 1, 1, 1)
