"""A YAML file of choices for a script, over the one that comes with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cohort.errors import UsageError


def read_choices(path: Path, defaults: Path) -> dict[str, Any]:
    """What a file chooses; what it leaves out is as in ``defaults``, which has all keys there are.

    One value does for a list of one, and a list for text with commas between.

    Raises:
        UsageError: ``E_CONFIG`` if the file cannot be read, has a key that is unknown, or a value
            of another kind than the one that comes with it.
    """
    known = _mapping(defaults)
    return _over(known, _mapping(path), str(path))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError("E_CONFIG", f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(content or {}, dict):
        found = type(content).__name__
        raise UsageError("E_CONFIG", f"{path}: need KEY: VALUE lines, got a {found}")
    return content or {}


def _over(known: Mapping[str, Any], chosen: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = dict(known)
    for name, value in chosen.items():
        if name not in known:
            possible = ", ".join(known)
            raise UsageError("E_CONFIG", f"{where}: unknown key {name}; possible: {possible}")
        if isinstance(known[name], dict):
            if not isinstance(value or {}, dict):
                message = f"{where}: {name} needs KEY: VALUE lines, got {value!r}"
                raise UsageError("E_CONFIG", message)
            found[name] = _over(known[name], value or {}, f"{where}, {name}")
        elif isinstance(known[name], list):
            values = value if isinstance(value, list) else [] if value is None else [value]
            for one in values:
                _check_kind(known[name], one, f"{where}: {name}")
            found[name] = values
        else:
            found[name] = ",".join(map(str, value)) if isinstance(value, list) else value
            if value is not None:
                _check_kind([known[name]], found[name], f"{where}: {name}")
    return found


def _check_kind(known: list[Any], value: Any, where: str) -> None:
    """Refuse a value whose kind is none of what comes with the script; text takes numbers too."""
    kinds = {type(one) for one in known}
    if kinds == {bool}:
        needed, good = "true or false", isinstance(value, bool)
    elif kinds == {int}:
        needed, good = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif kinds == {float}:
        needed = "a number"
        good = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        needed, good = "a name or a number", dict in kinds or not isinstance(value, dict | list)
    if not good:
        raise UsageError("E_CONFIG", f"{where} needs {needed}, got {value!r}")
