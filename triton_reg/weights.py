"""Trained weights: read safely, checked by name and shape, known by their content."""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
        ValueError: if it is damaged, or holds what is not tensors.
    """
    if path.suffix == ".safetensors":
        # here, so that registration needs it only where such a file is read
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"it is damaged or no safetensors file ({error})") from None
    content = _checkpoint(path)
    for key in ("net", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise TypeError(f"{path} must hold tensors by name, found a {found}")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # torch's own words tell people how to trust the file
        raise ValueError(
            f"it is damaged or holds more than tensors ({type(error).__name__})"
        ) from None


def write_kept(
    path: Path,
    tensors: Mapping[str, Tensor],
    form: str,
    settings: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Write tensors, their settings and what is to be known of them as one file.

    Args:
        path: a ``.safetensors`` file, replaced if it is there.
        tensors: by name.
        form: what the file is, which :func:`read_kept` asks for.
        settings, card: anything that JSON can hold.
    """
    # here, so that registration needs it only where such a file is written
    from safetensors.torch import save

    metadata = {
        "format": form, "settings": json.dumps(dict(settings)), "card": json.dumps(dict(card)),
    }  # fmt: skip
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # a file under its own name is whole, also after a power cut and with two writers at once
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(save(content, metadata))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Kept(NamedTuple):
    """What :func:`write_kept` wrote."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    card: dict[str, Any]


def read_kept(path: Path, form: str) -> Kept:
    """The content of a file of that format.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None
    if metadata.get("format") != form:
        found = metadata.get("format", "none")
        raise ValueError(f"{path} must be of format {form!r}, its metadata says {found}")
    with whole_settings(path):
        return Kept(tensors, json.loads(metadata["settings"]), json.loads(metadata["card"]))


@contextmanager
def whole_settings(path: Path) -> Iterator[None]:
    """Settings that lack something, or have another form, are a damaged file: ``ValueError``."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its settings are damaged ({error})") from None
