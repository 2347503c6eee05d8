"""The settings of a template, chosen once and kept in ``OUT/atlas.json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cohort.config.atlas import AtlasSettings
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.errors import StorageError, UsageError

FILE = "atlas.json"


def checked_settings(said: dict[str, Any]) -> AtlasSettings:
    """The settings that a user asks for; raises :class:`cohort.errors.UsageError` ``E_SETTING``."""
    try:
        return AtlasSettings.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        needed = first["msg"].removeprefix("Value error, ")
        said_so = f"{where}: {needed}, got {first['input']!r}" if where else needed
        raise UsageError("E_SETTING", said_so) from None


def save_settings(out: Path, settings: AtlasSettings) -> None:
    """Write ``OUT/atlas.json``; raises StorageError."""
    write_atomic(out / FILE, to_json(settings.model_dump(mode="json", exclude_none=True)))


def load_settings(out: Path) -> AtlasSettings | None:
    """What a template was begun with, with all who were added since; None if none was.

    Raises:
        StorageError: ``E_ATLAS`` if its file is damaged.
    """
    path = out / FILE
    try:
        settings = AtlasSettings.model_validate_json(path.read_bytes())
        added = [json.loads(one.read_bytes())["added"] for one in out.glob("*-added-*/pass.json")]
        everyone = tuple(name for names in added for name in names)
        return settings.with_more(everyone) if everyone else settings
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    except ValidationError as error:
        message = f"{path} is damaged or of another version: {error.errors()[0]['msg']}"
        raise StorageError("E_ATLAS", message) from None


def check_same(out: Path, existing: AtlasSettings, asked: AtlasSettings) -> None:
    """Refuse to go on with a template that was begun otherwise.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with what differs.
    """
    before, now = (one.model_dump(mode="json", exclude_none=True) for one in (existing, asked))
    said = [_difference(key, before.get(key), now.get(key)) for key in now
            if before.get(key) != now.get(key)]  # fmt: skip
    if said:
        raise UsageError(
            "E_PLAN_MISMATCH",
            f"{out} holds a template that was begun otherwise: {'; '.join(said)}. Choose another"
            " folder, or --add subjects to it",
        )


def check_addition(out: Path, asked: AtlasSettings, subjects: Sequence[str]) -> None:
    """Refuse to add subjects otherwise than the template was made; their weights are their own.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with what differs.
    """
    existing = load_settings(out) or asked
    before, now = (
        {name: weight for name, weight in one.weights.items() if name not in subjects}
        for one in (existing, asked)
    )
    check_same(
        out,
        existing.model_copy(update={"weights": before}),
        asked.model_copy(update={"weights": now}),
    )


def _difference(key: str, before: Any, now: Any) -> str:
    if key == "subjects":
        changed = sorted(set(before) ^ set(now))
        return f"subjects differ by {', '.join(changed[:5])}" + (", ..." if changed[5:] else "")
    return f"{key} was {before}, now {now}"
