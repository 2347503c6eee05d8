"""The store that subjects go into: made with the settings asked for, or opened if they agree."""

from hashlib import sha256
from typing import Any

from cohort.data.align import anchor_mm
from cohort.data.entries import SourceEntry, SourceListing
from cohort.data.geometry import Grid, parse_grid
from cohort.data.ingest_settings import AUTO, IngestSettings
from cohort.data.layout import ROOT
from cohort.data.native import Native, load_native
from cohort.data.nifti import MAX_BYTES
from cohort.data.nifti_bytes import read_file
from cohort.data.places import Where, place_of
from cohort.data.registered import (
    choose_closest,
    drop_reference,
    keep_reference,
    write_reference,
)
from cohort.data.store import CohortStore
from cohort.data.working_grid import (
    choose_reference,
    grid_from_data,
    grid_from_file,
    grid_from_text,
)
from cohort.errors import CohortError, SubjectError, UsageError


def open_or_create(where: Where, listing: SourceListing, settings: IngestSettings) -> CohortStore:
    """The store at ``where``.

    Raises:
        UsageError: if it was made with other settings, or there is nothing to make it from.
    """
    place = place_of(where)
    if place.has(ROOT):
        store = CohortStore.open(where, for_writing=True)
        _check_settings(store, listing, settings)
        if "reference_facts" in store.settings:
            keep_reference(place)  # the process that made the store may have died before it
        return store
    if not listing.entries:
        first = listing.rejected[0]
        raise UsageError(
            "E_SOURCE",
            f"none of {len(listing.rejected)} subjects can be used; the first, "
            f"{first.subject_id!r}: {first.code}: {first.message}",
        )
    reference = _reference(listing, settings)
    grid = _working_grid(listing, settings, reference)
    chosen: dict[str, Any] = {
        "align": settings.align,
        "reference": reference.subject_id,
        "structures": listing.structures,
    }
    if not settings.registers:
        # the anchor is kept, so that subjects that come later are aligned to the same place
        chosen["anchor_mm"] = anchor_mm(reference, settings.align).tolist()
        return CohortStore.create(where, grid, settings=chosen)
    chosen["reference_choice"] = settings.reference
    chosen["align_search_degrees"] = settings.align_search_degrees
    chosen["reference_facts"] = write_reference(place, reference)
    try:
        store = CohortStore.create(where, grid, settings=chosen)
    except CohortError:
        drop_reference(place)
        raise
    keep_reference(place)
    return store


def _reference(listing: SourceListing, settings: IngestSettings) -> Native:
    choices = settings.header_choices
    file = settings.reference_file
    if file is not None:
        try:
            return load_native(SourceEntry(str(file), image=file), choices)
        except SubjectError as error:
            raise UsageError("E_REFERENCE", f"reference {file} cannot be read: {error}") from error
    if settings.registers and settings.reference == AUTO:
        return choose_closest(listing.entries, choices)
    return choose_reference(listing.entries, settings.reference, choices)


def _working_grid(listing: SourceListing, settings: IngestSettings, reference: Native) -> Grid:
    choices = settings.header_choices
    if settings.grid is not None:
        return grid_from_text(settings.grid, reference)
    like = settings.like or settings.reference_file
    if like is not None:
        return grid_from_file(like, choices)
    return grid_from_data(listing.entries, reference, choices)


def _check_settings(store: CohortStore, listing: SourceListing, settings: IngestSettings) -> None:
    kept = store.settings
    if settings.align != kept["align"]:
        raise _other_setting(store, "align", kept["align"], settings.align)
    _check_reference(store, settings)
    if listing.structures and listing.structures != kept["structures"]:
        raise _other_setting(store, "structures", kept["structures"], listing.structures)
    if settings.grid is not None:
        shape, spacing_mm = parse_grid(settings.grid)
        asked = Grid.axis_aligned(shape, spacing_mm, store.grid.center_mm)
        if asked.distance(store.grid) > 1e-3:
            raise _other_setting(store, "grid", _describe(store.grid), settings.grid)
    if settings.like is not None:
        asked = grid_from_file(settings.like, settings.header_choices)
        if asked.distance(store.grid) > 1e-3:
            found = f"{settings.like} with {_describe(asked)}"
            raise _other_setting(store, "grid", _describe(store.grid), found)


def _check_reference(store: CohortStore, settings: IngestSettings) -> None:
    """Nothing, what was asked for before, the subject that was chosen, or the same file."""
    kept = store.settings
    if settings.registers and settings.align_search_degrees != kept["align_search_degrees"]:
        found = (kept["align_search_degrees"], settings.align_search_degrees)
        raise _other_setting(store, "align search", *found)
    if settings.reference in (None, kept["reference"], kept.get("reference_choice")):
        if settings.reference_file is None:
            return
    elif settings.reference_file is None:
        raise _other_setting(store, "reference", kept["reference"], settings.reference)
    if settings.reference_file is not None and settings.reference_file.is_file():
        stored = read_file(settings.reference_file, MAX_BYTES)
        if sha256(stored).hexdigest() == kept["reference_facts"]["image_sha256"]:
            return
    found = f"{settings.reference}, which is not the same file"
    raise _other_setting(store, "reference", kept["reference"], found)


def _other_setting(store: CohortStore, name: str, kept: Any, asked: Any) -> UsageError:
    return UsageError(
        "E_STORE_SETTINGS",
        f"{store.where} was made with {name} {kept}, asked for is {asked}; "
        "use the same, or another store",
    )


def _describe(grid: Grid) -> str:
    shape = "x".join(map(str, grid.shape))
    spacing = "x".join(f"{step:g}" for step in grid.spacing_mm)
    center = ", ".join(f"{position:.1f}" for position in grid.center_mm)
    return f"{shape}@{spacing}mm around ({center})"
