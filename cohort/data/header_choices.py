"""What a user decides where files are in doubt; without a decision they are refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cohort.errors import UsageError

Orientation = Literal["RAS"]
Form = Literal["sform", "qform"]
Units = Literal["units", "ignore-units"]
Nan = Literal["nan-background"]
ORIENTATION = "orientation"
NAN_BACKGROUND: Nan = "nan-background"
_FIXES: dict[str, str] = {
    "sform": "form",
    "qform": "form",
    "units": "units",
    "ignore-units": "units",
    NAN_BACKGROUND: "nan",
}


@dataclass(frozen=True)
class HeaderChoices:
    """What to believe of a file in doubt, mostly of its header; None refuses it.

    assume_orientation: how the axes of a file without sform and qform run. form: which of the two
    places the voxels when they conflict. units: whether lengths that are said to be in metres or
    micrometres are scaled to mm (``units``) or are mm all the same (``ignore-units``). nan: whether
    voxels of an image that are no number are its background, as SPM writes it.
    """

    assume_orientation: Orientation | None = None
    form: Form | None = None
    units: Units | None = None
    nan: Nan | None = None

    @classmethod
    def parse(
        cls, fix_headers: tuple[str, ...] = (), assume_orientation: str | None = None
    ) -> "HeaderChoices":
        """The choices that go by these names.

        Raises:
            UsageError: if a name is unknown, or two names answer one question.
        """
        if assume_orientation not in (None, "RAS"):
            raise UsageError(
                "E_ORIENT", f"assume orientation is {assume_orientation!r}; need RAS or nothing"
            )
        chosen: dict[str, str] = {}
        for name in fix_headers:
            question = _FIXES.get(name)
            if question is None:
                raise UsageError(
                    "E_FIX_HEADERS",
                    f"fix headers has {name!r}; need some of {', '.join(_FIXES)}",
                )
            if chosen.setdefault(question, name) != name:
                raise UsageError(
                    "E_FIX_HEADERS",
                    f"fix headers has both {chosen[question]} and {name}; need one of them",
                )
        return cls(assume_orientation, **chosen)  # type: ignore[arg-type]

    @property
    def names(self) -> tuple[str, ...]:
        """The choices that were made, as files record those that they needed."""
        assumed = ORIENTATION if self.assume_orientation else None
        return tuple(filter(None, (assumed, self.form, self.units, self.nan)))


def of_header(fixed: Iterable[str]) -> tuple[str, ...]:
    """Those choices that say where voxels lie, of the names of some."""
    return tuple(name for name in fixed if name != NAN_BACKGROUND)


def parse_fixes(text: str) -> tuple[str, ...]:
    """Names of choices from ``qform,units``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
