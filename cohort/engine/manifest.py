"""``RUN/compacted/manifest.json``: which tiles' rows lie in which larger file.

A tile that it lists is committed; a part of that tile that is still there does not count. Rows of a
file whose tile the manifest no longer lists there do not count either.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.errors import StorageError

FOLDER = "compacted"
_SCHEMA = 1


@dataclass(frozen=True)
class Compacted:
    """One file of several tiles' rows.

    Attributes:
        name: within the folder.
        sha256: of its bytes.
        rows: that it has.
        tiles: whose rows count.
    """

    name: str
    sha256: str
    rows: int
    tiles: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What the larger files hold."""

    files: tuple[Compacted, ...] = field(default=())

    @property
    def tiles(self) -> set[str]:
        """All tiles whose rows are in one of the files."""
        return {tile for file in self.files for tile in file.tiles}

    def without(self, tile_ids: set[str]) -> "Manifest":
        """With some tiles' rows counted no more; a file stays, also if none of its rows counts."""
        return Manifest(
            tuple(
                replace(file, tiles=tuple(tile for tile in file.tiles if tile not in tile_ids))
                for file in self.files
            )
        )

    def write(self, run_dir: Path) -> None:
        """Make this the manifest of a run, in one step."""
        said = {"schema": _SCHEMA, "files": [asdict(file) for file in self.files]}
        path = manifest_path(run_dir)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
        write_atomic(path, to_json({**said, "sha256": _sha256(said)}))


def manifest_path(run_dir: Path) -> Path:
    """Where a run's manifest lies, if it has one."""
    return run_dir / FOLDER / "manifest.json"


def load_manifest(run_dir: Path) -> Manifest:
    """The manifest of a run; an empty one if there is none.

    Raises:
        StorageError: ``E_MANIFEST`` if it is damaged, ``E_STORAGE`` if it cannot be read.
    """
    path = manifest_path(run_dir)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} is damaged ({error}); `cohort repair {run_dir}` makes it anew"
        raise StorageError("E_MANIFEST", message) from error


def _parse(content: bytes) -> Manifest:
    said = json.loads(content)
    if said.pop("sha256") != _sha256(said) or said["schema"] != _SCHEMA:
        raise ValueError("its checksum is another one")
    return Manifest(
        tuple(Compacted(**{**one, "tiles": tuple(one["tiles"])}) for one in said["files"])
    )


def _sha256(said: dict[str, object]) -> str:
    return hashlib.sha256(to_json(said)).hexdigest()
