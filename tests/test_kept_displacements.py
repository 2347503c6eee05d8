"""Displacements that a run keeps: their bound, their bits, their room, and what damage does."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cohort
from helpers import smooth_volume, tiny_cohort
from native_cohort import GRIDS, native_run
from small_run import QUICK, decided, part_names

from cohort.data.store import CohortStore
from cohort.engine import room
from cohort.engine.choices import PlanSettings
from cohort.engine.displacements import (
    FOLDER,
    Packed,
    check_kept,
    keep,
    packed,
    read_kept,
    sweep_kept,
)
from cohort.engine.plan import open_run
from cohort.engine.run import run
from cohort.engine.spec import RunSpec
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError, UsageError
from cohort.studies.export import export
from cohort.studies.native_space import Route
from triton_reg.displacement import Displacement

SPACING_MM = (1.0, 2.0, 3.0)


def _displacement(largest: float, seed: int = 0) -> Displacement:
    vectors = torch.cat([smooth_volume((6, 8, 7), seed + axis) for axis in range(3)], dim=1)
    vectors = (vectors - 0.5) * torch.tensor([1.0, 0.1, 0.0]).view(1, 3, 1, 1, 1)
    vectors *= largest / vectors.abs().max()
    return Displacement(vectors, (12, 16, 14), (12, 16, 14))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("store") / "cohort.zarr")


def _run(run_dir: Path, store: CohortStore, which: str | None, tile_size: int = 2) -> RunSpec:
    settings = PlanSettings(QUICK, tile_size=tile_size, keep_displacements=which)
    spec = open_run(run_dir, store, settings)
    run(run_dir, store)
    return spec


@pytest.mark.parametrize("largest", [1e-6, 0.5, 30.0, 4000.0])
def test_no_vector_is_further_away_than_the_bound(tmp_path: Path, largest: float) -> None:
    displacement = _displacement(largest)
    one = packed(displacement, SPACING_MM)
    assert one is not None
    keep(tmp_path, "00000-00000", {("a", "b"): one})
    spec = RunSpec.model_construct(subject_ids=("a", "b"), tile_size=2)
    found = read_kept(tmp_path, spec, "a", "b")
    assert found.displacement.fixed_shape == displacement.fixed_shape
    spacing = torch.tensor(SPACING_MM).view(1, 3, 1, 1, 1)
    away = (found.displacement.vectors.double() - displacement.vectors.double()) * spacing
    largest_mm = float(away.norm(dim=1).max())
    assert found.error_mm == pytest.approx(largest_mm, rel=1e-3, abs=1e-9 * largest)
    assert largest_mm <= found.bound_mm < 1e-4 * largest
    full = (found.displacement.full() - displacement.full()) * spacing
    assert float(full.norm(dim=1).max()) <= found.bound_mm + 1e-6 * largest


def test_sixteen_bits_of_float_would_be_further_away() -> None:
    displacement = _displacement(20.0)
    one = packed(displacement, (1.0, 1.0, 1.0))
    assert one is not None
    as_float16 = (displacement.vectors.half().float() - displacement.vectors).norm(dim=1).max()
    assert one.facts["error_mm"] < float(as_float16) / 8


def test_no_movement_is_kept_as_such_and_nonsense_not_at_all(tmp_path: Path) -> None:
    still = Displacement(torch.zeros(1, 3, 4, 5, 6), (4, 5, 6), (4, 5, 6))
    one = packed(still, SPACING_MM)
    assert one is not None
    assert (one.facts["bound_mm"], one.facts["error_mm"]) == (0.0, 0.0)
    assert packed(replace(still, vectors=still.vectors / 0), SPACING_MM) is None
    keep(tmp_path, "00000-00000", {})
    assert not (tmp_path / FOLDER).exists()


def test_a_run_keeps_the_bits_that_any_pair_has_when_registered_again(
    store: CohortStore, tmp_path: Path
) -> None:
    spec = _run(tmp_path / "run", store, "all")
    plain = _run(tmp_path / "plain", store, None)
    assert spec.plan_digest != plain.plan_digest
    assert decided(tmp_path / "run").equals(decided(tmp_path / "plain"))
    assert not (tmp_path / "plain" / FOLDER).exists()
    assert {path.name for path in (tmp_path / "run" / FOLDER).iterdir()} == {
        name.removesuffix(".parquet") for name in part_names(tmp_path / "run")
    }
    workbench = Workbench.open(tmp_path / "run")
    for fixed, moving in (("sub-00", "sub-01"), ("sub-03", "sub-00")):
        kept = read_kept(tmp_path / "run", spec, fixed, moving)
        with torch.inference_mode():
            vectors = workbench.register(fixed, moving).displacement.vectors[0].numpy()
        assert hashlib.sha256(vectors.tobytes()).hexdigest() == kept.displacement_sha256
        assert kept.displacement.vectors.shape[1:] == vectors.shape
        away = np.linalg.norm(kept.displacement.vectors[0].numpy() - vectors, axis=0).max()
        assert 2 * away <= kept.bound_mm < 0.001  # voxels of 2 mm


def test_a_sample_is_chosen_by_the_keys_of_its_pairs(store: CohortStore, tmp_path: Path) -> None:
    def kept(run_dir: Path, tile_size: int) -> set[tuple[str, str]]:
        spec = _run(run_dir, store, "sample:5", tile_size)
        names = spec.subject_ids
        pairs = [(f, m) for f in names for m in names if f != m]
        found = set()
        for fixed, moving in pairs:
            try:
                read_kept(run_dir, spec, fixed, moving)
            except UsageError:
                continue
            found.add((fixed, moving))
        return found

    first = kept(tmp_path / "a", 2)
    assert len(first) == 5
    assert kept(tmp_path / "b", 3) == first


def test_of_very_many_pairs_about_as_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from cohort.engine import beside

    monkeypatch.setattr(beside, "_EXACT", 0)
    tiles = type("Many", (), {"n_pairs": 100_000})()
    limit = beside.kept_facts("sample:2000", tiles, {}, {})["keep_below"]  # type: ignore[arg-type]
    keys = (hashlib.blake2b(bytes([n % 256, n // 256]), digest_size=16).hexdigest()
            for n in range(50_000))  # fmt: skip
    assert 900 < sum(key <= limit for key in keys) < 1100


def test_what_is_asked_for_is_part_of_the_plan(store: CohortStore, tmp_path: Path) -> None:
    open_run(tmp_path, store, PlanSettings(QUICK, keep_displacements="sample:2"))
    assert open_run(tmp_path, store, PlanSettings()).keep_displacements == "sample:2"
    with pytest.raises(UsageError, match="keep_displacements was sample:2, now all"):
        open_run(tmp_path, store, PlanSettings(keep_displacements="all"))
    with pytest.raises(UsageError, match="keep-displacements is 'some'; need none, all or") as bad:
        open_run(tmp_path / "new", store, PlanSettings(keep_displacements="some"))
    assert bad.value.code == "E_KEEP"


def test_a_run_that_would_fill_its_disk_is_refused_before_it_is_planned(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)
    needed = open_run(tmp_path / "fits", store, PlanSettings(QUICK, keep_displacements="all"))
    assert needed.kept_bytes is not None
    run(tmp_path / "fits", store)
    files = [path for path in (tmp_path / "fits" / FOLDER).rglob("*") if path.is_file()]
    used = sum(path.stat().st_size for path in files)
    assert 0.5 < needed.kept_bytes / used < 2
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: free._replace(free=needed.kept_bytes))
    message = r"would take about \d+\.\d MB, and \d+\.\d MB are free at .*sample:K"
    with pytest.raises(UsageError, match=message) as caught:
        open_run(tmp_path / "run", store, PlanSettings(QUICK, keep_displacements="all"))
    assert (caught.value.code, caught.value.exit_code) == ("E_SPACE", 2)
    assert not (tmp_path / "run").exists()
    open_run(tmp_path / "run", store, PlanSettings(QUICK, keep_displacements="sample:1"))


def test_a_run_for_cards_that_are_elsewhere_is_measured_on_the_processor(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = PlanSettings(QUICK, keep_displacements="sample:3", device="cuda")
    planned = open_run(tmp_path / "run", store, settings)
    on_cpu = open_run(tmp_path / "cpu", store, replace(settings, device="cpu"))
    assert planned.kept_bytes == on_cpu.kept_bytes


def test_pairs_that_cannot_be_registered_do_not_keep_a_run_from_its_plan(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register(*_: object, **__: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(Workbench, "register", register)
    planned = open_run(tmp_path / "run", store, PlanSettings(QUICK, keep_displacements="sample:3"))
    assert planned.kept_bytes == 3 * 3 * np.prod(store.grid.shape) * 2


def _flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 4
    path.write_bytes(content)


def _shard(folder: Path) -> Path:
    return folder / "c" / "0" / "0" / "0" / "0" / "0"


def _rescaled(folder: Path) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"]["cohort"]["pairs"][0]["scale"][0] *= 2
    (folder / "zarr.json").write_text(json.dumps(document))


def _reshaped(folder: Path) -> None:
    document = json.loads((folder / "zarr.json").read_text())
    document["shape"][2] = 10**9
    (folder / "zarr.json").write_text(json.dumps(document))


@pytest.mark.faults
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _flip(_shard(folder), 0.3),
        lambda folder: _shard(folder).write_bytes(_shard(folder).read_bytes()[:-9]),
        lambda folder: _shard(folder).unlink(),
        lambda folder: (folder / "zarr.json").write_text("{"),
        _rescaled,
        _reshaped,
    ],
    ids=["flipped", "truncated", "deleted", "no document", "rescaled", "reshaped"],
)
def test_damage_is_found(tmp_path: Path, damage) -> None:
    pairs: dict[tuple[str, str], Packed] = {}
    for seed, pair in enumerate((("a", "b"), ("b", "a"))):
        one = packed(_displacement(3.0, seed), SPACING_MM)
        assert one is not None
        pairs[pair] = one
    keep(tmp_path, "00000-00000", pairs)
    check_kept(tmp_path, "00000-00000")
    damage(tmp_path / FOLDER / "00000-00000")
    with pytest.raises(StorageError, match=r"displacements\.zarr/00000-00000 is damaged") as caught:
        check_kept(tmp_path, "00000-00000")
    assert caught.value.code == "E_KEPT"


# each writer is a process of its own, forked before zarr has threads
_KILLED_AT_EACH_STEP = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_kept_displacements import SPACING_MM, _displacement
from cohort.engine.displacements import check_kept, keep, packed, read_kept
from cohort.engine.spec import RunSpec

run_dir, left = Path(sys.argv[1]), 0
one, other = (packed(_displacement(size), SPACING_MM) for size in (3.0, 4.0))
spec = RunSpec.model_construct(subject_ids=("a", "b"), tile_size=2)

def forked(work):
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def dying(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

def write():
    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    keep(run_dir, "00000-00000", {("a", "b"): other})
    return 0

def found():
    if not (run_dir / "displacements.zarr/00000-00000").exists():
        return 2
    check_kept(run_dir, "00000-00000")
    kept = read_kept(run_dir, spec, "a", "b")
    return int(kept.displacement_sha256 == other.facts["displacement_sha256"])

for step in range(1, 100):
    forked(lambda: keep(run_dir, "00000-00000", {("a", "b"): one}) or 0)
    left = step
    died = forked(write)
    print(died, forked(found))
    if died == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.faults
def test_a_writer_that_is_killed_leaves_the_older_the_newer_or_none(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _KILLED_AT_EACH_STEP, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    *killed, last = [tuple(map(int, line.split())) for line in shown.stdout.splitlines()]
    assert last == (0, 1)
    assert {died for died, _ in killed} == {-signal.SIGKILL}
    assert {found for _, found in killed} == {0, 1, 2}
    assert list((tmp_path / FOLDER).glob(".*"))
    sweep_kept(tmp_path)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["00000-00000"]


def test_what_an_attempt_left_is_replaced(tmp_path: Path) -> None:
    one, other = packed(_displacement(3.0), SPACING_MM), packed(_displacement(4.0), SPACING_MM)
    assert one is not None
    assert other is not None
    spec = RunSpec.model_construct(subject_ids=("a", "b"), tile_size=2)
    keep(tmp_path, "00000-00000", {("a", "b"): one})
    keep(tmp_path, "00000-00000", {("a", "b"): other})
    found = read_kept(tmp_path, spec, "a", "b")
    assert found.displacement_sha256 == other.facts["displacement_sha256"]
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["00000-00000"]


def test_export_takes_the_kept_one_only_when_asked(cohort: Cohort, tmp_path: Path) -> None:
    workbench = native_run(tmp_path)
    fixed, moving, _ = GRIDS
    once_more = export(workbench, Route(fixed, moving), "learn2reg", tmp_path / "again").facts
    assert "kept_displacements" not in once_more
    with pytest.raises(UsageError, match="keeps no displacement of"):
        export(workbench, Route(fixed, moving, kept=True), "learn2reg", tmp_path / "kept")
    settings = PlanSettings(workbench.spec.method, keep_displacements="all")
    open_run(tmp_path / "keeps", workbench.store, settings)
    run(tmp_path / "keeps", workbench.store)
    pair = ("--fixed", fixed, "--moving", moving, "--to", "learn2reg", "--kept", "--json")
    planned = cohort("plan", workbench.store.path, tmp_path / "keeps", "--no-trial").out
    assert re.search(r"displacements +all, about \d+\.\d MB", planned)
    facts = cohort("export", tmp_path / "keeps", *pair, "--out", tmp_path / "kept").json
    (said,) = facts["kept_displacements"]
    assert 0 < said["error_mm"] <= said["bound_mm"] < 0.01
    paths = [next((tmp_path / name).glob("disp_*.npz")) for name in ("again", "kept")]
    again, kept = (np.load(path)["arr_0"] for path in paths)
    assert not np.array_equal(again, kept)
    spacing = np.array(workbench.store.grid.spacing_mm)[:, None, None, None]
    assert np.linalg.norm((again - kept) * spacing, axis=0).max() <= said["bound_mm"] + 1e-5
    # the cards that a run was made on are not asked for
    plan = tmp_path / "keeps" / "run.json"
    plan.write_text(plan.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    elsewhere = ("export", tmp_path / "keeps", *pair, "--out", tmp_path / "elsewhere")
    assert cohort(*elsewhere).code == 0
    refused = cohort(*(one for one in elsewhere if one != "--kept"))
    assert "E_DEVICE: this run is planned for GPUs and torch finds none here" in refused.err
