"""F15: files that would run code, exhaust the stack or be formulas: refused, and nothing ran."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cohort
from helpers import tiny_cohort
from small_cohort import write_cohort
from small_run import planned

from cohort.config.method import method_config
from cohort.data import registered
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine import uncertainty
from cohort.errors import CohortError, StorageError, UsageError

pytestmark = pytest.mark.faults
SETTINGS = IngestSettings(grid="12x14x10@2mm")
DEEP = "[" * 100_000 + "]" * 100_000


class Evil:
    """Unpickled, it makes the file that must not be there."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def _npy(marker: Path) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    return content.getvalue()


def _npz(marker: Path, *names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name in names:
            packed.writestr(f"{name}.npy", _npy(marker))
    return content.getvalue()


def _torch(marker: Path) -> bytes:
    content = io.BytesIO()
    torch.save({"model": Evil(marker)}, content)
    return content.getvalue()


def test_these_files_do_what_they_are_said_to(marker: Path) -> None:
    """Else the tests below would show nothing."""
    (opened,) = np.load(io.BytesIO(_npy(marker)), allow_pickle=True)
    opened.close()
    assert marker.exists()
    marker.unlink()
    torch.load(io.BytesIO(_torch(marker)), weights_only=False)["model"].close()
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["evil.pt", "evil.pth", "evil.pkl", "evil.npy", "evil.safetensors"]
)
@pytest.mark.parametrize("features", ["obelisk", "learned", "torchscript"])
@pytest.mark.parametrize("make", [_torch, lambda marker: pickle.dumps(Evil(marker)), _npy])
def test_weights_run_no_code(
    tmp_path: Path, marker: Path, name: str, features: str, make: Callable[[Path], bytes]
) -> None:
    (tmp_path / name).write_bytes(make(marker))
    with pytest.raises(UsageError) as caught:
        method_config(
            "voxelopt" if features != "obelisk" else "pdd_net",
            None,
            [f"features={features}", f"weights={tmp_path / name}"],
        ).build()
    assert caught.value.code in {"E_WEIGHTS", "E_TRUST", "E_SETTING", "E_CONFIG"}
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x05", b"{" * 100, b"\0" * 1000])
def test_weights_that_are_nothing_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    chosen = method_config("pdd_net", None, ["features=obelisk", f"weights={tmp_path}/w.pt"])
    with pytest.raises(UsageError, match=r"w\.pt is no weights of OBELISK: it is d") as caught:
        chosen.build()
    assert "torch.load" not in caught.value.message
    assert caught.value.code == "E_WEIGHTS"


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "levels: !!python/object/new:type [x, [], {{}}]",
        "levels: !!python/name:os.system",
        "a: &a [*a, *a]",
        DEEP,
        "{deep}",
    ],
    ids=["call", "new", "name", "itself", "deep list", "deep map"],
)
def test_a_configuration_runs_no_code(
    cohort: Cohort, tmp_path: Path, marker: Path, text: str
) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2)
    file = tmp_path / "evil.yaml"
    file.write_text(text.format(marker=marker, deep="{a: " * 20_000) if "{" in text else text)
    shown = cohort("plan", store.path, tmp_path / "run", "--config", file)
    assert shown.code == 2
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


def test_a_reference_and_what_was_kept_run_no_code(tmp_path: Path, marker: Path) -> None:
    source = write_cohort(tmp_path / "source")
    ingest(source, tmp_path / "s", IngestSettings(align="rigid"))
    (tmp_path / "s/reference.npz").write_bytes(_npz(marker, "volume", "affine", "mask"))
    (source / "images/d.nii.gz").write_bytes((source / "images/b.nii.gz").read_bytes())
    registered._kept_reference.cache_clear()
    with pytest.raises(StorageError) as caught:
        ingest(source, tmp_path / "s", IngestSettings(align="rigid"))
    assert caught.value.code == "E_REFERENCE"
    (tmp_path / "run/uncertainty").mkdir(parents=True)
    for content in (_npz(marker, "fixed", "moving"), b"", b"PK", _npy(marker)):
        (tmp_path / "run/uncertainty/00000-00000.npz").write_bytes(content)
        with pytest.raises(StorageError, match=r"00000-00000\.npz is damaged") as caught:
            uncertainty.kept(tmp_path / "run", "a", "b")
        assert caught.value.code == "E_KEPT"
    assert not marker.exists()


@pytest.mark.parametrize("name", ["zarr.json", "subjects/sub-01/commit.json", "quarantine/x.json",
                                  "subjects/sub-01/image/zarr.json"])  # fmt: skip
def test_documents_of_great_depth_are_damage(tmp_path: Path, name: str) -> None:
    store = tiny_cohort(tmp_path / "s", 2)
    (tmp_path / "s" / name).write_text(DEEP)
    if name == "zarr.json":
        with pytest.raises(StorageError, match="E_SCHEMA"):
            CohortStore.open(store.path)
    elif name.startswith("quarantine"):
        assert store.quarantined["x"]["code"] == "E_CORRUPT"
    else:
        with pytest.raises(CohortError, match="E_CORRUPT: subject sub-01"):
            store.read("sub-01")
        assert store.read("sub-00").labels is not None


def test_a_run_and_names_of_structures_of_great_depth_are_damage(
    cohort: Cohort, tmp_path: Path
) -> None:
    store = tiny_cohort(tmp_path / "s", 2)
    planned(tmp_path / "run", store)
    (tmp_path / "run/run.json").write_text(DEEP)
    shown = cohort("status", tmp_path / "run")
    assert (shown.code, "E_RUN" in shown.err) == (4, True)
    source = write_cohort(tmp_path / "source")
    (source / "structures.json").write_text(DEEP)
    shown = cohort("check", source)
    assert (shown.code, "structures.json cannot be used" in shown.err) == (2, True)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_names_that_spreadsheets_would_run_are_refused(
    cohort: Cohort, tmp_path: Path, start: str
) -> None:
    source = write_cohort(tmp_path / "source")
    (source / "structures.json").write_text(json.dumps({"1": f"{start}cmd|' /C calc'!A0"}))
    shown = cohort("ingest", source, tmp_path / "s")
    assert shown.code == 2
    assert "structures.json cannot be used" in shown.err
    (source / "structures.json").unlink()
    table = f'subject,image\na,images/a.nii.gz\n"{start}b",images/b.nii.gz\n'
    (source / "t.csv").write_text(table, newline="")
    report = ingest(source / "t.csv", tmp_path / "s", SETTINGS)
    # space around a cell is no part of the id
    assert report.ingested == (("a", "b") if start.isspace() else ("a",))
