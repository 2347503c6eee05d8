"""Trained weights: read safely, checked by name and shape, known by their content."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name, and a sha256 of names, shapes and values that stands for them.

    The digest alone is shown, so that the fingerprint of a method with weights is that of their
    content.
    """

    tensors: Mapping[str, Tensor]
    digest: str

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Weights":
        """Weights from tensors; they are taken as they are, not copied."""
        content = hashlib.sha256()
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous()
            content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            content.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
        return cls(dict(tensors), content.hexdigest())

    def __repr__(self) -> str:
        return f"Weights({self.digest})"

    def checked(self, shapes: Mapping[str, tuple[int, ...]]) -> "Weights":
        """These weights, if they are exactly the named ones.

        Raises:
            ValueError: listing every name that is missing, not wanted or of another shape.
        """
        faults = [f"{name} is missing" for name in shapes if name not in self.tensors]
        faults += [f"{name} is not wanted" for name in self.tensors if name not in shapes]
        faults += [
            f"{name} has shape {list(tensor.shape)} instead of {list(shapes[name])}"
            for name, tensor in self.tensors.items()
            if name in shapes and tuple(tensor.shape) != tuple(shapes[name])
        ]
        if faults:
            raise ValueError(f"weights do not fit the network: {'; '.join(faults)}")
        return self


def load_weights(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a ``.safetensors`` file or a PyTorch checkpoint, on the CPU.

    Checkpoints are read with ``weights_only=True``: nothing in them is executed. A checkpoint that
    keeps its tensors one level down, under ``net``, ``state_dict`` or ``model``, is unpacked.

    Raises:
        TypeError: if the file holds no tensors by name.
    """
    if path.suffix == ".safetensors":
        # here, so that registration needs it only where such a file is read
        from safetensors.torch import load_file

        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("net", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise TypeError(f"{path} must hold tensors by name, found a {found}")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}
