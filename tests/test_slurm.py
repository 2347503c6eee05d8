"""The SLURM script without SLURM: a stand-in for `srun` starts the tasks on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import tiny_cohort
from small_run import decided, planned

from cohort.engine.run import run

SCRIPT = Path(__file__).parents[1] / "workflows" / "slurm" / "run.sbatch"
SRUN = """#!/usr/bin/env bash
trap 'kill $(jobs -p); exit' TERM
echo "$1" > "$COHORT_PRIVATE/srun.txt"
shift
for task in 1 2; do "$@" & done
wait
"""
# what the script starts, without the work: workers note how they were started
DASK = """#!/usr/bin/env bash
[ "$1" = worker ] && { echo "$@" > "$COHORT_PRIVATE/worker.txt"; exit; }
while [ "$1" != --scheduler-file ]; do shift; done
echo '{}' > "$2"
exec sleep 60
"""
COHORT = """#!/usr/bin/env bash
until [ -s "$COHORT_PRIVATE/worker.txt" ]; do sleep 0.05; done
"""
FAILS = "#!/usr/bin/env bash\nexit 127\n"
HANGS = "#!/usr/bin/env bash\nexec sleep 60\n"
SCONTROL = '#!/usr/bin/env bash\necho "$@" > scontrol.txt\n'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a job with two tasks, in a folder of its own."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    stand_in(tmp_path, srun=SRUN, scontrol=SCONTROL)
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
    path = f"{stand_ins}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment | {"PATH": path, "COHORT_PRIVATE": str(tmp_path)}


def stand_in(folder: Path, **commands: str) -> None:
    """Scripts that the job finds before the commands of those names."""
    for name, content in commands.items():
        (folder / "bin" / name).write_text(content)
        (folder / "bin" / name).chmod(0o755)


def start(run_dir: Path, environment: dict[str, str]) -> subprocess.Popen:
    command = [str(SCRIPT), str(run_dir.parent / "cohort.zarr"), str(run_dir)]
    return subprocess.Popen(
        command, cwd=run_dir.parent, env=environment, start_new_session=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_does_the_run_over_tls_and_cleans_up(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr")
    here, job = (planned(tmp_path / name, store) for name in ("here", "job"))
    run(here, store)
    process = start(job, environment)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert decided(job).equals(decided(here))
    assert "tls://" in said
    assert "tcp://" not in said
    assert not list(tmp_path.glob(".cohort-job-*"))
    assert not (tmp_path / "scontrol.txt").exists()


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_queued_again(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 12)
    job = planned(tmp_path / "job", store, tile_size=1)
    process = start(job, environment)
    deadline = time.monotonic() + 120
    while not any((job / "parts").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
    assert 0 < len(decided(job)) < 132
    run(job, store)
    assert len(decided(job)) == 132


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends_in", "squeue", "expected"),
    [
        ("86400", "echo INVALID", 85800),
        (None, "echo 1-02:03:04", 93184),
        (None, "echo 10:00", 600),
        (None, "echo UNLIMITED", 365 * 86400 - 600),
        (None, "exit 1", None),
    ],
)
def test_workers_leave_before_the_end_of_their_own_job(
    tmp_path: Path, environment: dict[str, str], ends_in: str | None, squeue: str,
    expected: int | None,
) -> None:  # fmt: skip
    stand_in(tmp_path, dask=DASK, cohort=COHORT, squeue=f"#!/usr/bin/env bash\n{squeue}\n")
    environment.pop("SLURM_JOB_END_TIME", None)
    if ends_in:
        environment["SLURM_JOB_END_TIME"] = str(int(time.time()) + int(ends_in))
    process = start(tmp_path / "run", environment)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert (tmp_path / "srun.txt").read_text() == "--cpus-per-task=3\n"
    told = (tmp_path / "worker.txt").read_text()
    assert "--memory-limit 0 " in told
    lifetime = told.split("--lifetime ")[1].split(" --")[0]
    if expected is None:
        assert lifetime == "230 minutes"
    else:
        assert expected - 30 <= int(lifetime.removesuffix(" seconds")) <= expected


@pytest.mark.slow
def test_a_job_whose_workers_fail_stops_for_good(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    stand_in(tmp_path, dask=DASK, srun=FAILS, cohort=HANGS)
    process = start(tmp_path / "run", environment)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 5, said
    assert "the workers failed, see above; the job stops and is not queued again" in said
    assert not (tmp_path / "scontrol.txt").exists()
    assert not list(tmp_path.glob(".cohort-job-*"))


@pytest.mark.slow
def test_a_run_that_is_done_although_workers_failed_is_done(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    ends = "#!/usr/bin/env bash\ntrap 'kill $!; exit 0' TERM\nsleep 60 & wait\n"
    stand_in(tmp_path, dask=DASK, srun=FAILS, cohort=ends)
    process = start(tmp_path / "run", environment)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "asked"),
    [(signal.SIGUSR1, 143, "requeue 7\n"), (signal.SIGTERM, 143, None), (None, 5, None)],
    ids=["time-is-up", "cancelled", "no-scheduler"],
)
def test_a_job_that_ends_before_its_driver_leaves_nothing(
    tmp_path: Path, environment: dict[str, str], sent: signal.Signals | None, code: int,
    asked: str | None,
) -> None:  # fmt: skip
    stand_in(tmp_path, dask=HANGS if sent else FAILS)
    process = start(tmp_path / "run", environment)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".cohort-job-*/cert.pem")) and time.monotonic() < deadline:
        time.sleep(0.05)
    if sent:
        process.send_signal(sent)
    # a process that is left would hold the pipe for a minute
    _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert not list(tmp_path.glob(".cohort-job-*"))
    told = tmp_path / "scontrol.txt"
    assert (told.read_text() if told.exists() else None) == asked
