"""A method by name, from YAML or from ``--set KEY=VALUE``."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from cohort.config.dio import DioSettings
from cohort.config.pdd_net import PddNetSettings
from cohort.config.voxelopt import VoxelOptSettings
from cohort.errors import UsageError
from triton_reg import Method

Settings = VoxelOptSettings | PddNetSettings | DioSettings
_METHODS: dict[str, type[Settings]] = {
    "voxelopt": VoxelOptSettings,
    "pdd_net": PddNetSettings,
    "dio": DioSettings,
}


class MethodConfig(BaseModel):
    """A method by name with its settings, as a run keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["voxelopt", "pdd_net", "dio"] = "voxelopt"
    settings: Settings = VoxelOptSettings()

    @field_validator("settings", mode="wrap")
    @classmethod
    def _of_the_method(cls, value: Any, _: Any, info: ValidationInfo) -> Settings:
        """Settings are read as those of the named method, so that a fault is told in its words."""
        return _METHODS[info.data["name"]].model_validate(value)

    def for_cohort(self, has_masks: bool, spacing_mm: tuple[float, float, float]) -> "MethodConfig":
        """These settings for a cohort, unless told otherwise.

        With masks VoxelOpt and DIO compare inside them; lengths of PDD-Net and DIO are the same
        along every axis of the working grid; learned features see it as coarse as those that they
        have learned from.
        """
        settings = self.settings
        told: dict[str, Any] = {}
        if not isinstance(settings, PddNetSettings) and has_masks and settings.masked is None:
            told["masked"] = True
        told |= settings.for_spacing(spacing_mm)
        if not told:
            return self
        return MethodConfig(name=self.name, settings=settings.model_copy(update=told))

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """What of each pair the method is told beside the volumes: labels, keypoints."""
        return self.settings.prompt_kinds

    def build(self, *, trust_code: bool = False) -> Method:
        """The method itself: what a worker calls before its first pair.

        ``trust_code`` allows to run code that the settings name. It is none of them, so that a run
        from elsewhere cannot allow it: only the command that would run the code can.

        Raises:
            UsageError: ``E_TRUST`` if that is not allowed, ``E_WEIGHTS`` if a file is of no use.
        """
        return self.settings.build(trust_code=trust_code)


def method_asked(
    name: str | None, file: Path | None, assignments: list[str] | None
) -> MethodConfig | None:
    """What ``--method``, ``--config`` and ``--set`` ask for; None if nothing was said.

    Raises:
        UsageError: as :func:`method_config` does.
    """
    if not (name or file or assignments):
        return None
    return method_config(name or "voxelopt", file, assignments or [])


def method_config(name: str, file: Path | None, assignments: list[str]) -> MethodConfig:
    """Settings from a YAML file, then from ``KEY=VALUE`` assignments.

    Raises:
        UsageError: ``E_METHOD`` for an unknown method, ``E_SETTING`` for a setting that is unknown,
            malformed or out of range; the message lists what is possible.
    """
    if name not in _METHODS:
        raise UsageError("E_METHOD", f"unknown method {name!r}; known: {', '.join(_METHODS)}")
    settings = {} if file is None else _read_yaml(file)
    settings |= dict(_assignment(text) for text in assignments)
    try:
        return MethodConfig.model_validate({"name": name, "settings": settings})
    except ValidationError as error:
        wrong = "; ".join(_fault(dict(one)) for one in error.errors())
        known = ", ".join(_METHODS[name].model_fields)
        message = f"{wrong}. Settings of {name}: {known}"
        raise UsageError("E_SETTING", message) from None


def _fault(error: dict[str, Any]) -> str:
    """One of pydantic's errors, whose place starts with ``settings``, in our words."""
    setting = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {setting!r}"
    needed = error["msg"].removeprefix("Value error, ")
    if not setting:  # two settings that do not go together
        return needed
    return f"{setting}: {needed}, got {error['input']!r}"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError("E_CONFIG", f"{file} cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UsageError("E_CONFIG", f"{file} must hold KEY: VALUE lines, found a {found}")
    return content


def _assignment(text: str) -> tuple[str, Any]:
    """``window=(1, 99)``, ``window=1,99`` and ``window=[1, 99]`` all give a list of numbers."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError("E_SETTING", f"--set needs KEY=VALUE, got {text!r}")
    value = value.strip()
    if value.startswith("(") and value.endswith(")"):
        value = value[1:-1]
    if "," in value and not value.startswith("["):
        value = f"[{value.rstrip(',')}]"
    try:
        return key.strip(), yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError):
        raise UsageError("E_SETTING", f"--set {text!r}: the value cannot be read") from None
