"""A pair of a run in native space: its chain of transforms, and the grids of both subjects' files.

The way is native (fixed) -> working -> displacement -> working -> native (moving). Ingest's
alignments and the displacement are kept apart and composed at each position, so that nothing is
resampled twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from cohort.data.align import recorded_to_native
from cohort.data.geometry import Grid
from cohort.data.header_choices import ORIENTATION, HeaderChoices, of_header
from cohort.data.keypoints import file_grid
from cohort.data.one_thread import one_thread
from cohort.engine.displacements import read_kept
from cohort.engine.plan import tiles_of
from cohort.engine.tiles import Tiles
from cohort.engine.workbench import Workbench
from cohort.errors import SubjectError, UsageError
from cohort.studies.chain import Chain, Field
from cohort.studies.published import Published, published_template
from triton_reg import Displacement


@dataclass(frozen=True, eq=False)
class NativeSubject:
    """Where a subject came from.

    grid: of its image file, in the file's own axis order. to_native_mm: ``[4, 4]``, working world
    -> native world. image: the file, where it was when it was ingested. sha256: of all its files,
    by role. choices: what was believed of headers in doubt, which holds for other files of its
    world too. fixed: those that the image's header needed.
    """

    subject_id: str
    grid: Grid
    to_native_mm: np.ndarray
    image: Path
    sha256: dict[str, str]
    choices: HeaderChoices
    fixed: tuple[str, ...] = ()

    @classmethod
    def of(cls, workbench: Workbench, subject_id: str) -> "NativeSubject":
        """From the record of a subject of a run.

        Raises:
            SubjectError: ``E_NATIVE`` if the subject did not come from a file.
        """
        template = _template(workbench, subject_id)
        if template:
            to_native_mm, files = np.linalg.inv(template.to_working_mm), {"image": template.sha256}
            return cls(
                subject_id, template.grid, to_native_mm, template.image, files, HeaderChoices()
            )
        record = workbench.store_of(subject_id).record(subject_id)
        provenance = record["provenance"]
        try:
            chosen = provenance["settings"].get("header_choices", [])
            fixes = tuple(name for name in chosen if name != ORIENTATION)
            assumed = "RAS" if ORIENTATION in chosen else None
            return cls(
                subject_id,
                file_grid(provenance["header"]),
                recorded_to_native(provenance),
                Path(record["source"]["image"]["path"]),
                {role: file["sha256"] for role, file in record["source"].items()},
                HeaderChoices.parse(fixes, assumed),
                of_header(provenance.get("fixed", {}).get("image", ())),
            )
        except (KeyError, TypeError) as error:
            raise SubjectError(
                "E_NATIVE",
                f"the record of {subject_id} says nothing of a file that it came from; need a"
                " subject that `cohort ingest` brought in",
            ) from error


@dataclass(frozen=True)
class Route:
    """Which displacements lead from one subject to another.

    fixed, moving: the ends. via: subjects between them, in this order from fixed to moving.
    inverse: whether it is gone backwards, from moving to fixed, through inverted displacements.
    kept: whether the displacements are those that the run kept, rather than registered once more.
    """

    fixed: str
    moving: str
    via: tuple[str, ...] = ()
    inverse: bool = False
    kept: bool = False

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs ``(fixed, moving)`` to register, from fixed to moving."""
        stops = (self.fixed, *self.via, self.moving)
        return tuple(pairwise(stops))

    def check(self, subject_ids: Sequence[str]) -> None:
        """Refuse subjects that are not in the run, and steps from a subject to itself."""
        for subject_id in (self.fixed, *self.via, self.moving):
            if subject_id not in subject_ids:
                known = ", ".join(subject_ids[:5]) + (", ..." if len(subject_ids) > 5 else "")
                raise UsageError(
                    "E_PAIRS", f"the run has no subject {subject_id!r}; it has {known}"
                )
        for fixed, moving in self.pairs:
            if fixed == moving:
                raise UsageError("E_PAIRS", f"need two subjects, got {fixed!r} as both")


@dataclass(frozen=True, eq=False)
class NativePair:
    """A route of a run, ready to be applied.

    chain: from the world of ``onto`` to that of ``of``. onto: on whose grid images arrive. of:
    whose images are resampled. residual_voxels: the largest and the mean distance that is left of
    a trip back and forth through the inverted displacements, the worst of them; None without any.
    """

    route: Route
    chain: Chain
    onto: NativeSubject
    of: NativeSubject
    residual_voxels: tuple[float, float] | None

    @property
    def direction(self) -> str:
        """What the chain does, as a sentence for people."""
        onto, of = self.onto.subject_id, self.of.subject_id
        between = f" through {', '.join(self.route.via)}" if self.route.via else ""
        inverted = ", by the inverted displacement" if self.route.inverse else ""
        return (
            f"resamples images of {of} onto {onto} and maps points of {onto} to {of}"
            f"{between}{inverted}"
        )


def native_pair(workbench: Workbench, route: Route) -> NativePair:
    """Register what a route needs once more and put its chain together.

    Raises:
        UsageError: ``E_PAIRS`` if the route names other subjects than those of the run.
        SubjectError: if one of the subjects is broken, has changed or did not come from a file.
    """
    route.check(workbench.spec.subject_ids)
    links = [_link(workbench, route, fixed, moving) for fixed, moving in route.pairs]
    if route.inverse:
        links.reverse()
    chain = links[0][0]
    for link, _ in links[1:]:
        chain = chain.then(link)
    return NativePair(
        route,
        chain,
        onto=NativeSubject.of(workbench, chain.source),
        of=NativeSubject.of(workbench, chain.target),
        residual_voxels=max(residual for _, residual in links) if route.inverse else None,
    )


def pairs_with(workbench: Workbench, moving: str | None) -> list[tuple[str, str]]:
    """The run's pairs with one moving subject, which may be left out if the run has one only.

    Raises:
        UsageError: ``E_PAIRS`` if it has several, or none with this one.
    """
    tiles = tiles_of(workbench.run_dir, workbench.spec)
    known = [] if moving in tiles.subject_ids else _first_movings(tiles, 6)
    if moving is None and len(known) == 1:
        (moving,) = known
    near = tiles.around(moving) if moving in tiles.subject_ids else ()
    found = sorted(pair for tile in near for pair in tile.pairs if pair[1] == moving)
    if not found:
        known = known or _first_movings(tiles, 6)
        names = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        asked = "none was named" if moving is None else f"got {moving!r}"
        raise UsageError("E_PAIRS", f"need a moving subject of the run, {names}; {asked}")
    return found


def _first_movings(tiles: Tiles, most: int) -> list[str]:
    """Some moving subjects of a run, or all if they are so few: its pairs may be millions."""
    found: set[str] = set()
    for tile in tiles:
        found.update(moving for _, moving in tile.pairs)
        if len(found) >= most:
            break
    return sorted(found)[:most]


def _link(
    workbench: Workbench, route: Route, fixed: str, moving: str
) -> tuple[Chain, tuple[float, float]]:
    """The chain of one pair, and the residual of its inverse."""
    here, there = NativeSubject.of(workbench, fixed), NativeSubject.of(workbench, moving)
    residual = (0.0, 0.0)
    with one_thread(), torch.inference_mode():
        if route.kept:
            kept = read_kept(workbench.run_dir, workbench.spec, fixed, moving)
            displacement = kept.displacement
        else:
            displacement = workbench.register(fixed, moving).displacement
        if route.inverse:
            found = displacement.inverse()
            displacement, here, there = found.displacement, there, here
            residual = found.residual_max.item(), found.residual_mean.item()
        vectors = displacement.full()[0].numpy(force=True)
    # a displacement between two sizes keeps corners on corners: only its unit has to be the grid's
    scale = [
        (new - 1) / (old - 1)
        for new, old in zip(displacement.fixed_shape, displacement.moving_shape, strict=True)
    ]
    vectors = vectors * np.array(scale, dtype=np.float32).reshape(3, 1, 1, 1)
    grid = workbench.store.grid.resampled(displacement.fixed_shape)
    before, after = _to_template(workbench, here, 1), _to_template(workbench, there, -1)
    fields = (*before, Field(vectors, grid), *after)
    still = [np.eye(4)] * (len(fields) - 1)
    matrices = (np.linalg.inv(here.to_native_mm), *still, there.to_native_mm)
    return Chain(here.subject_id, there.subject_id, matrices, fields), residual


def _to_template(workbench: Workbench, end: NativeSubject, direction: int) -> tuple[Field, ...]:
    """From a published template to what the run registered to, or back; nothing for a subject."""
    template = _template(workbench, end.subject_id)
    if template is None:
        return ()
    if direction > 0:
        return (template.field,)
    shape = template.field.grid.shape
    field = Displacement(torch.from_numpy(template.field.vectors)[None], shape, shape)
    with one_thread(), torch.inference_mode():
        back = field.inverse(iterations=60, tolerance=1e-3).displacement.vectors[0].numpy()
    return (Field(back, template.field.grid),)


def _template(workbench: Workbench, subject_id: str) -> Published | None:
    """The published template, if that is what the subject of a run is."""
    is_it = subject_id == workbench.spec.atlas
    return published_template(workbench.run_dir) if is_it else None
