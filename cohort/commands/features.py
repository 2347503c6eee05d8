"""``features``: which features tell this cohort's voxels apart."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from cohort import terminal
from cohort.config.features import FeatureSettings
from cohort.config.method import method_config
from cohort.data.storage import write_atomic
from cohort.data.store import CohortStore
from cohort.engine.discrimination import compare_features, overlap_of_run, spread
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from cohort.options import Json, Store, TrustCode, local_path
from cohort.report.entropy_figure import entropy_figure
from triton_reg import FeatureExtractor

_COMPARED = ["features=local", "features=mind", "features=intensity"]


def features(
    store: Store,
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="Folder for tables and maps.")
    ] = Path("features"),
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Settings of one extractor, such as 'features=mind mind_radius=2'; repeatable."
            " [default: features=local, =mind and =intensity]"
        ),
    ] = None,
    subjects: Annotated[int, typer.Option(min=1, help="How many, spread over the cohort.")] = 20,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="A run on this store, whose overlap is set against entropy; repeatable."),
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Compare feature extractors on a cohort without registering it.

    Each volume is matched with itself, shifted by one voxel. Features that single out the right
    displacement have low entropy; where all displacements look alike it is 1.
    """
    opened = CohortStore.open(store)
    specs = {path: RunSpec.load(path) for path in run or []}
    runs = {path: _settings_of(spec) for path, spec in specs.items()}
    extractors = {said: _extractor(said, opened, trust_code) for said in compare or _COMPARED}
    for path, said in runs.items():
        own = specs[path].method.settings.build(trust_code=trust_code)
        extractors.setdefault(said, own.features)
    chosen = spread(list(opened.inventory().subject_digests), subjects)
    if not chosen:
        raise UsageError("E_EMPTY", f"{store} holds no subjects")
    out.mkdir(parents=True, exist_ok=True)  # now: it must not fail when the work is done
    with terminal.progress_bar("comparing", quiet=json) as update:
        found = compare_features(
            opened, extractors, chosen, lambda done, all_: update(done, all_, 0)
        )
    write_atomic(out / "entropy.csv", found.subjects.write_csv().encode())
    write_atomic(out / "histogram.csv", found.histograms.write_csv().encode())
    write_atomic(out / "entropy.png", entropy_figure(found))
    overlaps = {
        str(path): overlap_of_run(path, opened, found.subjects.filter(extractor=said))
        for path, said in runs.items()
    }
    if json:
        terminal.say_json({"ranking": found.ranking.to_dicts(), "runs": overlaps, "out": out})
    else:
        _say(out, found.ranking, overlaps)


def _settings_of(spec: RunSpec) -> str:
    """What of a run's settings concerns its features: with VoxelOpt as --compare would say it, with
    others after the method's name."""
    settings = spec.method.settings
    given = settings.model_dump(exclude_none=True)
    # the size of voxels is that of the store which is looked at here
    names = [name for name in FeatureSettings.model_fields if name in given and name != "voxel_mm"]
    said = {name: _plain(given[name]) for name in names if given[name] != "default"}
    if spec.method.name != "voxelopt" or not said:
        said = {"features": settings.extractor} | said
    text = " ".join(f"{name}={value}" for name, value in said.items())
    return text if spec.method.name == "voxelopt" else f"{spec.method.name}: {text}"


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _extractor(said: str, store: CohortStore, trust_code: bool) -> FeatureExtractor:
    config = method_config("voxelopt", None, said.split())
    on_grid = config.for_cohort(has_masks=False, spacing_mm=store.grid.spacing_mm)
    return on_grid.settings.build(trust_code=trust_code).features


def _say(out: Path, ranking: pl.DataFrame, overlaps: dict[str, dict[str, float]]) -> None:
    rows: dict[str, object] = {
        one[
            "extractor"
        ]: f"mean {one['mean']:.3f}, middle 80 % {one['p10']:.3f} to {one['p90']:.3f}"
        for one in ranking.iter_rows(named=True)
    }
    rows |= {
        path: f"Dice {one['dice_mean']:.3f} over {one['pairs']:.0f} pairs,"
        f" rank correlation with entropy {one['spearman']:+.2f}"
        for path, one in overlaps.items()
    }
    terminal.say_table(f"{out / 'entropy.png'}, entropy in units of ln 27", rows)
