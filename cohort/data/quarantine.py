"""Subjects that were refused, one small JSON file each: who, why, and since when."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.data.subject_ids import id_fault


def write_entry(folder: Path, subject_id: str, code: str, message: str, source: Any) -> None:
    """Record why ``subject_id`` is refused; a newer reason replaces an older one."""
    entry = {
        "subject_id": subject_id,
        "code": code,
        "message": message,
        "source": source,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_atomic(_entry_path(folder, subject_id), to_json(entry))


def remove_entry(folder: Path, subject_id: str) -> None:
    """Forget the entry of ``subject_id``, if there is one."""
    path = _entry_path(folder, subject_id)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def read_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """All entries by subject id, sorted: ``{"code", "message", "source", "time"}``."""
    entries = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            entry = json.loads(path.read_bytes())
            entries[entry.pop("subject_id")] = entry
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error(path, error) from error
        except (ValueError, KeyError, AttributeError, TypeError):
            message = f"{path} is no readable quarantine entry"
            entries[path.stem] = {"code": "E_CORRUPT", "message": message, "source": "", "time": ""}
    return dict(sorted(entries.items()))


def _entry_path(folder: Path, subject_id: str) -> Path:
    # a hostile name is evidence to keep, but not a path to write to
    name = subject_id
    if id_fault(subject_id):
        digest = hashlib.sha256(subject_id.encode("utf-8", "surrogatepass")).hexdigest()
        name = f"invalid-{digest[:16]}"
    return folder / f"{name}.json"
