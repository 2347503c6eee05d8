"""Size of the report of a run of 100,000 pairs, and seconds to write and to open it.

    PYTHONPATH=. taskset -c 0 python benchmarks/report_size.py

Brings 12 synthetic heads of 96 x 112 x 96 voxels of 2 mm into a store under the names of 317
subjects and plans all ordered pairs of them. The rows are made up: Dice of 36 structures before and
after, and eight measures of the pair, each a mean with effects of both subjects and noise; so are
the events of the tiles. ``write_s`` is what the report takes then, pictures of the ten worst pairs
with all their views included, which are registered again for them. ``open_s`` is the time from the
start of navigation to the load event in headless Chromium, the median of five, each with a fresh
profile; empty where there is none. Rows are appended to ``benchmarks/results/report_size.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.aggregate import STRUCTURES, part
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.report.page import write_report
from cohort.studies.bench.machine import cpu_name

RESULTS = Path(__file__).parent / "results" / "report_size.csv"
COLUMNS = ["pairs", "subjects", "structures", "page_mb", "pictures", "write_s", "open_s",
           "browser", "cpu", "date"]  # fmt: skip
HEADS, SUBJECTS, SHAPE, SPACING_MM = 12, 317, (96, 112, 96), 2.0
PART_ROWS, TILE_S = 1024, 60
PROBE = """<script>addEventListener("load", () => {
  const said = document.createElement("pre");
  said.id = "probe";
  said.textContent = performance.now();
  document.body.append(said);
});</script>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subjects", type=int, default=SUBJECTS)
    subjects = parser.parse_args().subjects
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder:
        run_dir = planned_run(Path(folder), subjects)
        write_rows(run_dir, names(subjects))
        began = time.perf_counter()
        page = write_report(run_dir)
        written = time.perf_counter() - began
        html = page.read_text()
        opened = statistics.median(open_s(browser, page) for _ in range(5)) if browser else None
    row = {
        "pairs": subjects * (subjects - 1),
        "subjects": subjects,
        "structures": STRUCTURES,
        "page_mb": f"{len(html.encode()) / 1e6:.2f}",
        "pictures": html.count("<img "),
        "write_s": f"{written:.1f}",
        "open_s": "" if opened is None else f"{opened:.2f}",
        "browser": version(browser) if browser else "",
        "cpu": cpu_name(threads=len(os.sched_getaffinity(0))),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    print(row)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


def names(subjects: int) -> list[str]:
    return [f"sub-{number:05d}" for number in range(subjects)]


def planned_run(folder: Path, subjects: int) -> Path:
    """A run of all ordered pairs; the heads take turns in being the subjects."""
    settings = SynthSettings(subjects=HEADS, shape=SHAPE, spacing_mm=SPACING_MM)
    synthesise_population(folder / "heads", settings)
    images = sorted((folder / "heads" / "images").iterdir())
    lines = ["subject,image,labels"]
    for number, name in enumerate(names(subjects)):
        image = images[number % HEADS].name
        lines.append(f"{name},heads/images/{image},heads/labels/{image}")
    (folder / "subjects.csv").write_text("\n".join(lines) + "\n")
    grid = f"{'x'.join(map(str, SHAPE))}@{SPACING_MM:g}mm"
    ingest(folder / "subjects.csv", folder / "cohort.zarr", IngestSettings(grid=grid))
    open_run(folder / "run", CohortStore.open(folder / "cohort.zarr"), PlanSettings())
    return folder / "run"


def write_rows(run_dir: Path, subject_ids: list[str]) -> None:
    """Parts with a row of every pair, and the events of their tiles."""
    rng = np.random.default_rng(0)
    fixed, moving = np.divmod(np.arange(len(subject_ids) ** 2), len(subject_ids))
    apart = np.flatnonzero(fixed != moving)
    effects = 0.02 * rng.standard_normal((len(subject_ids), STRUCTURES))
    ids = pa.array(subject_ids)
    done_at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    events = [{"time": done_at.isoformat(), "event": "run_started"}]
    (run_dir / "parts").mkdir(exist_ok=True)
    for start in range(0, len(apart), PART_ROWS):
        rows = apart[start : start + PART_ROWS]
        noise = 0.01 * rng.standard_normal((len(rows), STRUCTURES))
        values = 0.7 + effects[fixed[rows]] + effects[moving[rows]] + noise
        table = part(ids.take(fixed[rows]), ids.take(moving[rows]), values)
        pq.write_table(table, run_dir / "parts" / f"{start:06d}.parquet", compression="zstd")
        done_at += datetime.timedelta(seconds=TILE_S)
        events.append({"time": done_at.isoformat(), "event": "tile_done", "pairs": len(rows)})
    (run_dir / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))


def open_s(browser: str, page: Path) -> float:
    """Seconds until the page has loaded."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</head>", f"{PROBE}</head>", 1))
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--dump-dom", probed.as_uri(),
        ]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r'<pre id="probe">([0-9.]+)</pre>', shown.stdout)
    if found is None:
        raise SystemExit(f"the page did not load: {shown.stderr[-2000:]}")
    return float(found[1]) / 1000


def version(browser: str) -> str:
    said = subprocess.run([browser, "--version"], capture_output=True, text=True, check=True)
    return " ".join(said.stdout.split()[:2])


if __name__ == "__main__":
    main()
