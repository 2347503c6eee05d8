"""Stores on object storage: one commit point, conditional puts, whose fault a fault is."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from object_server import ObjectServer, object_server
from small_cohort import GRID, labels, volume

from cohort.data import object_place
from cohort.data.layout import commit_key
from cohort.data.object_client import ObstoreClient, service_error
from cohort.data.places import place_of
from cohort.data.store import CohortStore, Subject
from cohort.errors import RunActiveError, StorageError, SubjectError, UsageError


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def url(server: ObjectServer) -> str:
    return f"{server.bucket()}/lab/cohort.zarr"


def _subject(subject_id: str = "a", seed: int = 0) -> Subject:
    points = np.random.default_rng(seed).random((4, 3))
    return Subject(subject_id, volume(seed), labels=labels(seed), keypoints_mm=points)


@pytest.fixture
def store(url: str) -> CohortStore:
    store = CohortStore.create(url, GRID, settings={"align": "none"})
    store.commit(_subject(), {"source": {"image": "a.nii"}})
    return store


def _keys(store: CohortStore, folder: str = "") -> list[str]:
    return sorted(entry.key for entry in ObstoreClient(store.address).entries(folder))


def _is_same(found: Subject, expected: Subject) -> bool:
    return all(
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("volume", "labels", "keypoints_mm")
    )


def test_a_subject_comes_back_as_it_was_committed(store: CohortStore, tmp_path: Path) -> None:
    again = CohortStore.open(store.address)
    assert again.subject_ids == ("a",)
    assert _is_same(again.read("a"), _subject())
    assert (again.settings, again.has_labels) == ({"align": "none"}, True)
    local = CohortStore.create(tmp_path / "s", GRID, settings={})
    local.commit(_subject(), {})
    assert again.digest == local.digest
    with pytest.raises(SubjectError, match="has no subject 'b'"):
        again.read("b")


def test_the_objects_are_an_array_that_any_zarr_opens(store: CohortStore) -> None:
    import obstore.store
    import zarr.storage

    own = obstore.store.from_url(store.address, client_options={"allow_http": True})
    folder = f"versions/a/{store.record('a')['version']}"
    group = zarr.open_group(zarr.storage.ObjectStore(own), path=folder, mode="r")
    np.testing.assert_array_equal(group["image"][...], volume(0))
    assert group.attrs["ome"]["version"] == "0.5"


def test_only_an_empty_prefix_becomes_a_store_and_only_once(store: CohortStore) -> None:
    with pytest.raises(UsageError, match="is a store already"):
        CohortStore.create(store.address, GRID, settings={})
    assert not place_of(store.address).make_root(b"{}")
    with pytest.raises(UsageError, match=r"not empty .it holds cohort\.zarr"):
        CohortStore.create(store.address.rpartition("/")[0], GRID, settings={})
    with pytest.raises(UsageError, match="is no cohort store"):
        CohortStore.open(f"{store.address}/elsewhere")


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_service_that_ignores_conditions_gets_no_store(
    url: str, monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    put_if = ObstoreClient.put_if

    def careless(client: ObstoreClient, key: str, content: bytes, tag: dict | None) -> bool:
        if (tag is None) == (ignored == "If-None-Match"):
            client.put(key, content)
            return True
        return put_if(client, key, content, tag)

    monkeypatch.setattr(ObstoreClient, "put_if", careless)
    with pytest.raises(UsageError, match="overwrites what it is told to leave") as caught:
        CohortStore.create(url, GRID, settings={})
    assert caught.value.code == "E_STORE"
    assert not list(ObstoreClient(url).entries(""))


class _Forbidding(BaseHTTPRequestHandler):
    """A service that gives nobody a right, and says what it should not."""

    def do_GET(self) -> None:
        said = b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>anybody</AWSAccessKeyId></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.faults
def test_missing_rights_are_no_subjects_fault_and_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forbidding) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{service.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anybody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        for call in (
            lambda: CohortStore.open("s3://bucket/cohort.zarr"),
            lambda: place_of("s3://bucket/cohort.zarr").write("x", b""),
            lambda: place_of("s3://bucket/cohort.zarr").subject_ids(),
        ):
            with pytest.raises(StorageError, match=r"s3://bucket/cohort\.zarr.*Denied") as caught:
                call()
            assert "anybody" not in caught.value.message
        service.shutdown()


def test_quarantine_and_removal_are_objects_too(store: CohortStore) -> None:
    store.quarantine("b", "E_CONSTANT", "b.nii is 0 everywhere", "b.nii")
    store.quarantine("../x", "E_ID", "hostile", "line 3")
    assert {name: one["code"] for name, one in store.quarantined.items()} == {
        "b": "E_CONSTANT", "../x": "E_ID",
    }  # fmt: skip
    store.commit(_subject("b"), {})
    assert set(store.quarantined) == {"../x"}
    store.remove("b")
    store.remove("b")
    assert store.subject_ids == ("a",)


def test_a_reader_of_the_older_version_goes_on_reading_it(store: CohortStore) -> None:
    older = store.record("a")
    store.commit(_subject(seed=1), {})
    assert store.record("a")["version"] != older["version"]
    assert store.place.array("a", older, "image")
    assert _is_same(store.read("a"), _subject(seed=1))


def test_versions_that_nobody_names_are_swept_after_an_hour(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(_subject("b"), {})
    store.commit(_subject(seed=1), {})
    ObstoreClient(store.address).put("versions/c/abandoned/zarr.json", b"{}")
    before = _keys(store)
    CohortStore.open(store.address, for_writing=True)
    assert _keys(store) == before
    now = object_place.time.time()
    monkeypatch.setattr(object_place.time, "time", lambda: now + 7200)
    CohortStore.open(store.address, for_writing=True)
    kept = {tuple(key.split("/")[1:3]) for key in _keys(store, "versions")}
    assert kept == {(name, store.record(name)["version"]) for name in ("a", "b")}
    assert _is_same(store.read("a"), _subject(seed=1))
    assert len(_keys(store)) < len(before)


@pytest.mark.parametrize("subject_id", ["a", "new"])
def test_of_two_writers_of_a_subject_one_wins_and_the_other_is_told(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch, subject_id: str
) -> None:
    rival = CohortStore.open(store.address)
    packed = object_place.packed

    def overtaken(*arguments):
        monkeypatch.setattr(object_place, "packed", packed)
        rival.commit(_subject(subject_id, seed=2), {})
        return packed(*arguments)

    monkeypatch.setattr(object_place, "packed", overtaken)
    with pytest.raises(RunActiveError, match=f"committed {subject_id} to s3://") as caught:
        store.commit(_subject(subject_id, seed=1), {})
    assert (caught.value.code, caught.value.exit_code) == ("E_CONFLICT", 3)
    assert _is_same(store.read(subject_id), _subject(subject_id, seed=2))


def test_a_commit_whose_answer_was_lost_counts(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_if = ObstoreClient.put_if

    def lost(*arguments):
        put_if(*arguments)
        return put_if(*arguments)  # as its library tries again

    monkeypatch.setattr(ObstoreClient, "put_if", lost)
    store.commit(_subject("b"), {})
    store.commit(_subject("a", seed=1), {})
    assert _is_same(store.read("a"), _subject(seed=1))


# each writer and each reader is a process of its own, forked before anything has threads
_KILLED_AT_EACH_PUT = """
import os, signal, sys
sys.path.insert(0, "tests")
from cohort.data.object_client import ObstoreClient
from cohort.data.store import CohortStore
from test_object_store import _is_same, _subject

def forked(work):
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def commit(left):
    real = ObstoreClient._put
    def put(*arguments):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    ObstoreClient._put = put
    CohortStore.open(sys.argv[1]).commit(_subject(seed=1), {})
    return 0

def seed_read():
    found = CohortStore.open(sys.argv[1]).read("a")
    return next(seed for seed in (0, 1) if _is_same(found, _subject(seed=seed)))

for put in range(1, 10):
    print(forked(lambda: commit(put)), forked(seed_read))
"""


@pytest.mark.slow
@pytest.mark.faults
def test_a_writer_that_is_killed_at_any_put_leaves_the_older_subject(store: CohortStore) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _KILLED_AT_EACH_PUT, store.address],
        capture_output=True,
        text=True,
        check=True,
    )
    # the group, two documents for each of three arrays, the record; then none is left to die at
    killed, whole = f"{-signal.SIGKILL} 0", "0 1"
    assert shown.stdout.splitlines() == [killed] * 8 + [whole]


def _changed(key: str, change: Callable[[bytes], bytes]):
    def damage(store: CohortStore) -> None:
        folder = f"versions/a/{store.record('a')['version']}"
        client = ObstoreClient(store.address)
        path = key.format(version=folder)
        client.put(path, change(client.get(path)))

    return damage


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def _with(name: str, value: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | {name: value}).encode()


def _deleted(store: CohortStore) -> None:
    key = next(key for key in _keys(store, "versions/a") if key.endswith("image/c/0/0/0"))
    ObstoreClient(store.address).delete([key])


_IMAGE = "{version}/image/c/0/0/0"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_changed(_IMAGE, _flipped), "array image in s3://.*/versions/a/.*/image"),
        (_changed("{version}/labels/c/0/0/0", _flipped), "array labels"),
        (_changed(_IMAGE, lambda content: content[:-20]), "array image"),
        (_changed(_IMAGE, lambda _: b""), "array image"),
        (_deleted, r"data file c/0/0/0 is missing"),
        (_changed("{version}/image/zarr.json", _with("shape", [10**7] * 3)), r"\[10000000, "),
        (_changed("{version}/image/zarr.json", _with("data_type", "float64")), "float64"),
        (_changed(commit_key("a"), _with("version", "../../b")), r"names the version '\.\./"),
        (_changed(commit_key("a"), _with("version", "0" * 32)), "digest is that of another"),
        (_changed("{version}/image/zarr.json", lambda _: b""), "array image"),
        (_changed(commit_key("a"), lambda _: b"{"), r"record in s3://.*commit\.json"),
    ],
)
def test_damage_is_found_and_is_the_subjects_own(
    store: CohortStore, damage: Callable[[CohortStore], None], message: str
) -> None:
    store.commit(_subject("b", seed=1), {})
    damage(store)
    with pytest.raises(SubjectError, match=message) as caught:
        store.read("a")
    assert caught.value.code == "E_CORRUPT"
    assert _is_same(store.read("b"), _subject("b", seed=1))


@pytest.mark.faults
def test_a_bucket_that_is_gone_is_no_subjects_fault(server: ObjectServer) -> None:
    url = f"{server.bucket()}-elsewhere/cohort.zarr"
    bucket = url.split("/")[2]
    for call in (
        lambda: CohortStore.open(url),
        lambda: CohortStore.create(url, GRID, settings={}),
        lambda: place_of(url).commit("a", b"", {}, {}),
    ):
        with pytest.raises(StorageError, match=f"s3://{bucket}/.*NoSuchBucket") as caught:
            call()
        assert (caught.value.code, caught.value.exit_code) == ("E_STORAGE", 4)
        assert "Debug" not in caught.value.message


@pytest.mark.faults
def test_a_store_that_was_deleted_is_no_missing_subject(store: CohortStore) -> None:
    ObstoreClient(store.address).delete(_keys(store))
    for call in (store.read, store.record):
        with pytest.raises(StorageError, match=r"is gone: it has no zarr\.json any more"):
            call("a")
    with pytest.raises(StorageError, match="is gone"):
        _ = store.subject_ids


@pytest.mark.slow
@pytest.mark.faults
def test_an_endpoint_that_is_gone_is_no_subjects_fault() -> None:
    with object_server() as server:
        store = CohortStore.create(f"{server.bucket()}/s", GRID, settings={})
        store.commit(_subject(), {})
        server.stop()
        with pytest.raises(StorageError, match="error sending request"):
            store.read("a")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
def test_an_endpoint_without_its_scheme_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "127.0.0.1:9000")
    with pytest.raises(UsageError, match=rf"{name} is '127.0.0.1:9000'; need .* http://") as caught:
        CohortStore.open("s3://bucket/cohort.zarr")
    assert caught.value.code == "E_STORE"


def test_credentials_that_nobody_gave_are_said_to_be_missing() -> None:
    asked = "Error performing PUT http://169.254.169.254/latest/api/token in 2ms: 403 Forbidden"
    said = service_error("s3://bucket/a", RuntimeError(asked)).message
    assert said.startswith("s3://bucket/a: there are no credentials: neither AWS_ACCESS_KEY_ID and")


def test_a_local_store_that_was_copied_is_read(url: str, tmp_path: Path) -> None:
    local = CohortStore.create(tmp_path / "s", GRID, settings={})
    local.commit(_subject(), {})
    client = ObstoreClient(url)
    for path in (tmp_path / "s").rglob("*"):
        if path.is_file():
            client.put(str(path.relative_to(tmp_path / "s")), path.read_bytes())
    copied = CohortStore.open(url, for_writing=True)
    assert copied.digest == local.digest
    assert _is_same(copied.read("a"), _subject())
    copied.commit(_subject(seed=1), {})
    assert _is_same(copied.read("a"), _subject(seed=1))


def test_what_fsspec_alone_reaches_is_read_and_never_written(tmp_path: Path) -> None:
    local = CohortStore.create(tmp_path / "s", GRID, settings={})
    local.commit(_subject(), {})
    local.quarantine("b", "E_X", "x", "")
    found = CohortStore.open(f"local://{tmp_path}/s", for_writing=True)
    assert found.subject_ids == ("a",)
    assert found.digest == local.digest
    assert _is_same(found.read("a"), _subject())
    assert set(found.quarantined) == {"b"}
    with pytest.raises(UsageError, match="can be read alone: commits need writes"):
        found.commit(_subject(seed=1), {})
    shutil.rmtree(tmp_path / "s" / "subjects" / "a" / "image" / "c")
    with pytest.raises(SubjectError, match="is missing"):
        found.read("a")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("memory://cohort.zarr", "would end with this process"),
        ("s3://key:secret@bucket/cohort.zarr", "holds a password, which runs would keep"),
        ("s3:///cohort.zarr", "names no bucket; need s3://BUCKET/NAME"),
        (Path("s3://bucket/cohort.zarr"), "looks like a URL that lost a slash"),
        ("nonsense://bucket/cohort.zarr", "cannot be opened"),
    ],
)
def test_places_where_no_store_can_be_are_refused(where: str | Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        place_of(where)
    assert caught.value.code == "E_STORE"
    assert "secret" not in caught.value.message


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    assert place_of(f"file://{tmp_path}/a%20b").where == tmp_path / "a b"


def test_without_obstore_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"needs obstore: pip install 'triton-reg\[object\]'"):
        place_of("s3://bucket/cohort.zarr")
