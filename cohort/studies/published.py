"""The template that a run's own template became: what its transforms start from.

The last pass of a template registers everyone to a template whose mean displacement is removed only
afterwards. ``RUN/template.json`` says where the result lies, and ``RUN/template_field.npy`` how to
get from there to what the run registered to.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.errors import StorageError
from cohort.studies.chain import Field

_FACTS, _FIELD = "template.json", "template_field.npy"


@dataclass(frozen=True, eq=False)
class Published:
    """A published template.

    Attributes:
        image: its file. sha256: of that. grid: its grid.
        to_working_mm: ``[4, 4]``: the file's world -> working world.
        field: on the working grid: where a working position of the published template lies on the
            template that the run registered to.
    """

    image: Path
    sha256: str
    grid: Grid
    to_working_mm: np.ndarray
    field: Field

    def save(self, run_dir: Path) -> None:
        """Leave it with a run; raises StorageError."""
        content = io.BytesIO()
        np.save(content, self.field.vectors.astype(np.float32))
        facts = {
            "image": str(self.image.absolute()),
            "sha256": self.sha256,
            "grid": self.grid.to_json(),
            "working_grid": self.field.grid.to_json(),
            "to_working_mm": self.to_working_mm.tolist(),
            "field_sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        }
        write_atomic(run_dir / _FIELD, content.getvalue())
        write_atomic(run_dir / _FACTS, to_json(facts))


def published_template(run_dir: Path) -> Published | None:
    """What a run's template became; None if it is none, or not published yet.

    Raises:
        StorageError: ``E_ATLAS`` if what the run says of it is damaged.
    """
    path = run_dir / _FACTS
    try:
        facts = json.loads(path.read_bytes())
        vectors = _vectors((run_dir / _FIELD).read_bytes(), facts["field_sha256"])
        field = Field(vectors, Grid.from_json(facts["working_grid"]))
        matrix, grid = np.array(facts["to_working_mm"]), Grid.from_json(facts["grid"])
        return Published(Path(facts["image"]), facts["sha256"], grid, matrix, field)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is damaged: {error}. `cohort atlas` with the same arguments mends it"
        raise StorageError("E_ATLAS", message) from error
    except OSError as error:
        raise storage_error(path, error) from error


def is_published(run_dir: Path) -> bool:
    """Whether a run holds what its template became, undamaged."""
    try:
        return published_template(run_dir) is not None
    except StorageError:
        return False


def _vectors(content: bytes, digest: str) -> np.ndarray:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{_FIELD} is not what was written")
    return np.load(io.BytesIO(content), allow_pickle=False)
