"""How subjects are brought onto one grid."""

from dataclasses import dataclass
from pathlib import Path

from cohort.data.align import Align
from cohort.data.entries import nifti_stem
from cohort.data.geometry import parse_grid
from cohort.data.header_choices import HeaderChoices, Orientation
from cohort.errors import UsageError

AUTO = "auto"
_ALIGNS = ("none", "grid", "center", "rigid", "affine")
_REGISTERED = ("rigid", "affine")
_LEAST_SIZE = 5  # voxels; or changes of volume cannot be measured inside


@dataclass(frozen=True)
class IngestSettings:
    """How subjects are brought onto one grid.

    grid: such as 96x112x96@2mm. like: a NIfTI file whose grid is taken. With neither, an existing
    store keeps its grid and a new one gets it from the data. align: none (as headers say), grid
    (centre of the image), center (of intensity), rigid or affine (registered to the reference).
    reference: the subject aligned to; the first that can be read. With rigid and affine also a
    NIfTI file, which then chooses the working grid, or auto: the subject most like the others.
    assume_orientation: for files that do not say. align_search_degrees: with rigid and affine,
    also try rotations up to this angle about each axis. fix_headers: what to believe of headers in
    doubt: sform or qform where they conflict, units or ignore-units where they are not mm;
    nan-background: voxels that are NaN get the least value of their image.
    """

    grid: str | None = None
    like: Path | None = None
    align: Align = "none"
    reference: str | None = None
    assume_orientation: Orientation | None = None
    align_search_degrees: float = 0.0
    fix_headers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.align not in _ALIGNS:
            raise UsageError(
                "E_ALIGN",
                f"align is {self.align!r}; need none, grid or center, or to register: rigid or "
                "affine",
            )
        HeaderChoices.parse(self.fix_headers, self.assume_orientation)
        if self.grid is not None and self.like is not None:
            raise UsageError("E_GRID", "grid and like both choose the working grid; need one")
        if self.grid is not None:
            shape, _ = parse_grid(self.grid)
            if min(shape) < _LEAST_SIZE:
                raise UsageError(
                    "E_GRID",
                    f"grid {self.grid!r} is too small: need at least {_LEAST_SIZE} voxels along"
                    " each axis",
                )
        self._check_registration()

    @property
    def registers(self) -> bool:
        """Whether subjects are registered to the reference."""
        return self.align in _REGISTERED

    @property
    def header_choices(self) -> HeaderChoices:
        """What to believe of headers in doubt."""
        return HeaderChoices.parse(self.fix_headers, self.assume_orientation)

    @property
    def reference_file(self) -> Path | None:
        """The reference if it is a file and no subject."""
        if self.reference is None or nifti_stem(Path(self.reference).name) is None:
            return None
        return Path(self.reference)

    def _check_registration(self) -> None:
        if not 0 <= self.align_search_degrees <= 180:
            raise UsageError(
                "E_ALIGN",
                f"align search is {self.align_search_degrees:g} degrees; need 0 to 180",
            )
        if self.registers:
            return
        if self.align_search_degrees:
            raise UsageError(
                "E_ALIGN", f"align search needs align rigid or affine, got {self.align}"
            )
        if self.reference_file is not None:
            raise UsageError(
                "E_REFERENCE",
                f"reference {self.reference} is a file, which needs align rigid or affine; "
                f"align {self.align} needs a subject",
            )


def parse_degrees(text: str) -> float:
    """An angle from ``30deg`` or ``30``."""
    try:
        return float(text.strip().removesuffix("deg"))
    except ValueError:
        raise UsageError(
            "E_ALIGN", f"cannot read the angle {text!r}; need degrees, for example 30deg"
        ) from None
