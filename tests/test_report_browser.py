"""The report in a browser: nothing fails, pictures appear, sorting, switching and keys work."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from command_line import Cohort

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium; `.ci/run` installs it"),
]

# runs in the page after it has loaded; what it finds becomes the text of one element
PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
addEventListener("load", async () => {
  const found = { errors };
  try {
    const pictures = Array.from(document.images);
    found.pictures = pictures.length;
    found.broken = pictures.filter((one) => !one.naturalWidth).length;
    found.unnamed = pictures.filter((one) => one.alt.trim().length < 10).length;

    const table = document.querySelector("#subjects").closest("section").querySelector("table");
    const rows = table.tBodies[0].rows;
    const column = () => Array.from(rows, (row) => Number(row.cells[1].dataset.value));
    const head = table.tHead.rows[0].cells[1];
    head.querySelector("button").click();
    found.rising = column();
    head.querySelector("button").click();
    found.falling = column();
    found.sorted = head.getAttribute("aria-sort");

    const views = document.querySelector(".views");
    const shown = () => Array.from(views.querySelectorAll("img")).findIndex((one) => !one.hidden);
    const buttons = Array.from(views.querySelectorAll("button"));
    found.names = buttons.map((one) => one.textContent.trim());
    found.first = shown();
    buttons[3].click();
    found.third = [shown(), buttons[3].getAttribute("aria-pressed")];
    const flicker = buttons.at(-1);
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    flicker.click();
    found.turns = [shown()];
    await wait(700); found.turns.push(shown());
    await wait(600); found.turns.push(shown());
    flicker.click();
    found.rest = shown();
    await wait(700); found.still = shown();

    const reachable = Array.from(document.querySelectorAll("button, a[href], [tabindex='0']"));
    const refuses = (one) => { one.focus(); return document.activeElement !== one; };
    found.unreachable = reachable.filter(refuses).length;
    found.reached = reachable.length;
  } catch (error) { errors.push(String(error)); }
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four small synthetic subjects, as the commands make it."""
    from cohort.data.ingest import IngestSettings, ingest
    from cohort.data.store import CohortStore
    from cohort.data.synth import SynthSettings, synthesise_population
    from cohort.engine.choices import PlanSettings
    from cohort.engine.plan import open_run
    from cohort.engine.run import run
    from cohort.report.page import write_report

    folder = tmp_path_factory.mktemp("report")
    synthesise_population(
        folder / "nifti", SynthSettings(subjects=4, shape=(32, 36, 32), spacing_mm=5.0)
    )
    ingest(folder / "nifti", folder / "cohort.zarr", IngestSettings(grid="32x36x32@5mm"))
    store = CohortStore.open(folder / "cohort.zarr")
    open_run(folder / "run", store, PlanSettings())
    run(folder / "run", store)
    return write_report(folder / "run")


@pytest.fixture(scope="module")
def found(page: Path) -> dict:
    """What the probe finds in the page."""
    probed = page.with_name("probed.html")
    html = page.read_text()
    assert html.count("</head>") == 1
    probed.write_text(html.replace("</head>", PROBE + "</head>"))
    return json.loads(probe_of(probed))


def probe_of(page: Path) -> str:
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
    ]
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    match = re.search(r'<pre id="probe">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert match, shown.stderr[-2000:]
    return unescape(match[1])


def test_the_page_loads_without_errors(found: dict) -> None:
    assert found["errors"] == []


def test_every_picture_appears_and_has_words(found: dict) -> None:
    assert found["pictures"] >= 60
    assert found["broken"] == found["unnamed"] == 0


def test_tables_sort_both_ways(found: dict) -> None:
    assert found["rising"] == sorted(found["rising"])
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["sorted"] == "descending"


def test_views_switch_and_flicker(found: dict) -> None:
    assert found["names"] == [
        "all three", "fixed", "warped", "checkerboard", "volume change", "grid", "flicker",
    ]  # fmt: skip
    assert found["first"] == 0
    assert found["third"] == [3, "true"]
    assert found["turns"] == [1, 2, 1]
    assert found["rest"] == found["still"] == 2


def test_everything_is_reached_by_keys(found: dict) -> None:
    assert found["reached"] > 10
    assert found["unreachable"] == 0


def test_the_page_is_small_and_needs_nothing_else(page: Path, cohort: Cohort) -> None:
    del cohort
    assert page.stat().st_size < 20e6
    assert not re.search(r'(?:src|href)="(?!data:|#)', page.read_text())
