"""Where a NIfTI header places its voxels: the rule for its two forms, and for its units.

The sform counts if its axes are orthogonal, else the qform. Two forms that disagree are refused
unless a `HeaderChoices` names the one to believe; what was needed of the choices is kept.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

from cohort.data.affine_checks import MAX_SHEAR, affine_fault
from cohort.data.geometry import Grid
from cohort.data.header_choices import ORIENTATION, HeaderChoices
from cohort.errors import SubjectError

_MAX_DISTANCE_VOXELS = 0.1
_FORMS = ("sform", "qform")
_UNITS = {1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("micrometres", 1e-3)}


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the voxels lie, in mm.

    form: ``sform``, ``qform`` or ``assumed``. fixed: the choices of the user that were needed.
    """

    grid: Grid
    form: str
    fixed: tuple[str, ...] = ()


class _Refused(Exception):
    """A code, and a sentence that goes on after the path of the file."""


def place(
    fields: Nifti1Header, shape: tuple[int, int, int], choices: HeaderChoices, path: Path
) -> Placement:
    """Where the voxels of the file at ``path`` lie.

    Raises:
        SubjectError: E_ORIENT without any form, E_AFFINE_ZERO, E_AFFINE_SINGULAR, E_AFFINE_NAN or
            E_QFORM for a form that places no voxels, E_SHEAR for axes that are not orthogonal,
            E_MIRROR for forms of opposite handedness, E_FORM for others that disagree, E_UNITS
            for metres and micrometres; each unless ``choices`` decide.
    """
    try:
        codes = {form: int(fields[f"{form}_code"]) for form in _FORMS}
        if max(codes.values()) <= 0:
            placement = _assumed(fields, shape, choices)
        else:
            placement = _by_forms(fields, shape, codes, choices)
        return _in_mm(placement, int(fields["xyzt_units"]) & 7, choices)
    except _Refused as refused:
        code, found = refused.args
        raise SubjectError(code, f"{path} {found}") from refused


def unit_name(fields: Nifti1Header) -> str:
    """The unit of length that a header names."""
    return _UNITS.get(int(fields["xyzt_units"]) & 7, ("unknown", 1.0))[0]


def _by_forms(
    fields: Nifti1Header, shape: tuple[int, int, int], codes: dict[str, int], choices: HeaderChoices
) -> Placement:
    found: dict[str, Grid | _Refused] = {}
    for form in _FORMS:
        if codes[form] > 0:
            try:
                found[form] = _form_grid(fields, shape, form)
            except _Refused as refused:
                found[form] = refused
    try:
        return _agreed(found, codes)
    except _Refused:
        believed = found.get(choices.form) if choices.form else None
        if choices.form and isinstance(believed, Grid):
            return Placement(believed, choices.form, (choices.form,))
        raise


def _agreed(found: dict[str, Grid | _Refused], codes: dict[str, int]) -> Placement:
    """The placement by the rule, if nothing stands against it."""
    broken = next((form for form in found if isinstance(found[form], _Refused)), None)
    if broken is not None:
        raise _broken(broken, found)
    sform, qform = (found.get(form) for form in _FORMS)
    if not isinstance(sform, Grid):
        assert isinstance(qform, Grid)
        return Placement(qform, "qform")
    sheared = sform.shear > MAX_SHEAR
    if not isinstance(qform, Grid):
        if sheared:
            raise _sheared(sform, None)
        return Placement(sform, "sform")
    if sform.is_right_handed != qform.is_right_handed:
        raise _mirrored(sform, qform)
    distance = sform.distance(qform)
    if distance > _MAX_DISTANCE_VOXELS:
        raise _sheared(sform, distance) if sheared else _apart(sform, qform, codes)
    return Placement(qform, "qform") if sheared else Placement(sform, "sform")


def _form_grid(fields: Nifti1Header, shape: tuple[int, int, int], form: str) -> Grid:
    if form == "sform":
        affine = fields.get_sform()
    else:
        if fields["pixdim"][0] == 0:  # the standard takes this for 1
            fields = fields.copy()
            fields["pixdim"][0] = 1
        try:
            affine = fields.get_qform()
        except (ValueError, HeaderDataError) as error:
            raise _Refused("E_QFORM", f"has a qform that is no rotation: {error}") from error
    return _checked(np.asarray(affine, dtype=np.float64), shape, form)


def _assumed(
    fields: Nifti1Header, shape: tuple[int, int, int], choices: HeaderChoices
) -> Placement:
    if choices.assume_orientation is None:
        raise _Refused(
            "E_ORIENT",
            "does not say how it is oriented (sform code 0, qform code 0); need one of the "
            "two, or --assume-orientation RAS if you know that its axes run right, front, up",
        )
    spacing_mm = np.abs(np.asarray(fields["pixdim"][1:4], dtype=np.float64))
    grid = _checked(np.diag([*spacing_mm, 1.0]), shape, "pixdim")
    return Placement(grid.centered_on((0.0, 0.0, 0.0)), "assumed", (ORIENTATION,))


def _in_mm(placement: Placement, unit: int, choices: HeaderChoices) -> Placement:
    """Lengths in mm; units that hardly any file means are believed on request only."""
    name, to_mm = _UNITS.get(unit, ("unknown", 1.0))
    if to_mm == 1:
        return placement
    grid = Grid(placement.grid.shape, np.diag([to_mm, to_mm, to_mm, 1.0]) @ placement.grid.affine)
    if choices.units is None:
        voxel = " x ".join(f"{step:g}" for step in grid.spacing_mm)
        plain = " x ".join(f"{step:g}" for step in placement.grid.spacing_mm)
        raise _Refused(
            "E_UNITS",
            f"says that its lengths are {name} (xyzt_units {unit}), so that a voxel is {voxel} mm; "
            f"many programs take it for {plain} mm. Need --fix-headers units to believe it, "
            "--fix-headers ignore-units to take the numbers for mm, or the unit mm in the header",
        )
    fixed = (*placement.fixed, choices.units)
    return replace(
        placement, grid=grid if choices.units == "units" else placement.grid, fixed=fixed
    )


def _checked(affine: np.ndarray, shape: tuple[int, int, int], source: str) -> Grid:
    fault = affine_fault(affine)
    if fault:
        raise _Refused(fault.code, f"has a {source} that places no voxels: {fault.found}")
    return Grid(shape, affine)


def _broken(broken: str, found: dict[str, Grid | _Refused]) -> _Refused:
    """The fault of one form, and the way out if the other is sound."""
    refused = found[broken]
    assert isinstance(refused, _Refused)
    code, text = refused.args
    other = next((form for form in found if isinstance(found[form], Grid)), None)
    way_out = f"; --fix-headers {other} takes its {other} instead" if other else ""
    return _Refused(code, text + way_out)


def _mirrored(sform: Grid, qform: Grid) -> _Refused:
    axes = {"sform": sform.axcodes, "qform": qform.axcodes}
    return _Refused(
        "E_MIRROR",
        f"has an sform (axes {axes['sform']}) and a qform (axes {axes['qform']}) that are mirror "
        "images of each other: with the wrong one left and right are exchanged. Look at a side "
        "that you know, then give --fix-headers sform or --fix-headers qform",
    )


def _sheared(sform: Grid, qform_voxels: float | None) -> _Refused:
    degrees = np.degrees(np.arcsin(min(sform.shear, 1.0)))
    if qform_voxels is None:
        other, ways = "there is no qform", "--fix-headers sform to take it as it is"
    else:
        other = f"the qform lies {qform_voxels:.2f} voxels away"
        ways = "--fix-headers qform, or --fix-headers sform to take it with its shear"
    return _Refused(
        "E_SHEAR",
        f"has an sform whose axes are {degrees:.2f} degrees off right angles, as a tilted gantry "
        f"or an affine registration leaves them, and {other}. Need orthogonal axes (cosines below "
        f"{MAX_SHEAR:g}), a qform within {_MAX_DISTANCE_VOXELS} voxel, or {ways}",
    )


def _apart(sform: Grid, qform: Grid, codes: dict[str, int]) -> _Refused:
    return _Refused(
        "E_FORM",
        f"places its voxels twice, {sform.distance(qform):.2f} voxels apart: sform (code "
        f"{codes['sform']}) {sform.affine[:3].tolist()} and qform (code {codes['qform']}) "
        f"{qform.affine[:3].tolist()}; need one position, or two within {_MAX_DISTANCE_VOXELS} "
        "voxel, or --fix-headers sform or --fix-headers qform for the one to believe",
    )
