"""Subjects that were refused, one small JSON file each: who, why, and since when."""

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cohort.data.layout import REFUSED
from cohort.data.storage import storage_error, to_json
from cohort.data.subject_ids import id_fault

if TYPE_CHECKING:
    from cohort.data.places import Place


def write_entry(place: "Place", subject_id: str, code: str, message: str, source: Any) -> None:
    """Record why ``subject_id`` is refused; a newer reason replaces an older one."""
    entry = {
        "subject_id": subject_id,
        "code": code,
        "message": message,
        "source": source,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    place.write(_entry_key(subject_id), to_json(entry))


def remove_entry(place: "Place", subject_id: str) -> None:
    """Forget the entry of ``subject_id``, if there is one."""
    place.remove(_entry_key(subject_id))


def read_entries(place: "Place") -> dict[str, dict[str, Any]]:
    """All entries by subject id, sorted: ``{"code", "message", "source", "time"}``."""
    entries = {}
    names = [name for name in place.names(REFUSED) if not name.startswith(".")]
    for name in sorted(name for name in names if name.endswith(".json")):
        path = place.name(f"{REFUSED}/{name}")
        try:
            entry = json.loads(place.read(f"{REFUSED}/{name}"))
            entries[entry.pop("subject_id")] = entry
        except FileNotFoundError:
            continue
        except OSError as error:
            raise storage_error(path, error) from error
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            message = f"{path} is no readable quarantine entry"
            stem = name.removesuffix(".json")
            entries[stem] = {"code": "E_CORRUPT", "message": message, "source": "", "time": ""}
    return dict(sorted(entries.items()))


def _entry_key(subject_id: str) -> str:
    # a hostile name is evidence to keep, but not a path to write to
    name = subject_id
    if id_fault(subject_id):
        digest = hashlib.sha256(subject_id.encode("utf-8", "surrogatepass")).hexdigest()
        name = f"invalid-{digest[:16]}"
    return f"{REFUSED}/{name}.json"
