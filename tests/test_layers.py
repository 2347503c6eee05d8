"""Who may import whom, and what importing costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PROJECT

# what each layer may import of the project besides itself; a name stands for all below it
ALLOWED = {
    "triton_reg.training": {"triton_reg"},
    "triton_reg.methods": {
        "triton_reg.features", "triton_reg.losses", "triton_reg.affine",
        "triton_reg.displacement", "triton_reg.method", "triton_reg.ops", "triton_reg.weights",
    },
    "triton_reg.features": {"triton_reg.weights", "triton_reg.ops"},
    "triton_reg.metrics": {"triton_reg.displacement", "triton_reg.ops"},
    "triton_reg.method": {"triton_reg.displacement"},
    "triton_reg.affine": {"triton_reg.displacement", "triton_reg.ops"},
    "triton_reg.displacement": {"triton_reg.ops"},
    "triton_reg.losses": {"triton_reg.ops"},
    "triton_reg.ops": set(),
    "triton_reg.weights": set(),
    "cohort.cli": {"cohort"},
    "cohort.commands": {
        "cohort.config", "cohort.data", "cohort.engine", "cohort.errors", "cohort.options",
        "cohort.report", "cohort.studies", "cohort.terminal", "triton_reg",
    },
    "cohort.endings": {"cohort.data", "cohort.engine", "cohort.errors", "cohort.terminal"},
    "cohort.options": {"cohort.errors"},
    "cohort.terminal": set(),
    "cohort.studies": {
        "cohort.config", "cohort.data", "cohort.engine", "cohort.errors", "triton_reg",
    },
    "cohort.report": {"cohort.data", "cohort.engine", "cohort.errors", "triton_reg"},
    "cohort.engine": {"cohort.data", "cohort.config", "cohort.errors", "triton_reg"},
    "cohort.config": {"cohort.errors", "triton_reg"},
    "cohort.data": {"cohort.errors", "triton_reg"},
    "cohort.errors": set(),
}  # fmt: skip
# libraries that belong to one place
CONFINED = {
    "zarr": {"cohort.data.arrays", "cohort.data.stacks"},
    "obstore": {"cohort.data.object_client"},
    "fsspec": {"cohort.data.object_client"},
    "dask": {"cohort.engine.cluster"},
    "distributed": {"cohort.engine.cluster"},
    "typer": {"cohort.cli", "cohort.commands", "cohort.options"},
    "rich": {"cohort.terminal"},
    # the script of the other tools runs in their interpreter, this package never imports them
    "SimpleITK": {"cohort.studies.itk_composite", "cohort.studies.bench.peers_tools"},
    "triton": {"triton_reg.ops._triton"},
    "numba": {"triton_reg.ops._cpu"},
}
FOREIGN_TO_TENSORS = {"cohort", "dask", "distributed", "zarr", "nibabel", "pydantic"}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("triton_reg", "cohort"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from cohort import terminal` imports a module, `from x import y` mostly does not
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_within(module: str, layers: set[str]) -> bool:
    return any(module == layer or module.startswith(f"{layer}.") for layer in layers)


MODULES = list(modules())


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_a_module_imports_only_what_its_layer_may(name: str, path: Path) -> None:
    layer = next((layer for layer in ALLOWED if is_within(name, {layer})), None)
    if layer is None:
        assert name in {"triton_reg", "cohort"}, f"{name} belongs to no layer of this test"
        return
    ours = [one for one in imports_of(path) if is_within(one, {"triton_reg", "cohort"})]
    wrong = [one for one in ours if not is_within(one, ALLOWED[layer] | {layer})]
    assert not wrong


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_a_library_stays_in_its_place(name: str, path: Path) -> None:
    roots = {one.partition(".")[0] for one in imports_of(path)}
    assert not [lib for lib in roots & CONFINED.keys() if not is_within(name, CONFINED[lib])]
    if is_within(name, {"triton_reg"}):
        assert not roots & FOREIGN_TO_TENSORS


def test_tensors_need_neither_the_cohort_nor_its_libraries() -> None:
    check = f"import sys, triton_reg; print(sorted(sys.modules.keys() & {FOREIGN_TO_TENSORS}))"
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ((), {"torch", "numpy", "polars", "nibabel"}),
        (("check",), {"torch", "matplotlib", "dask"}),
        (("ingest",), {"torch", "matplotlib", "dask"}),
        (("info",), {"torch", "matplotlib", "dask"}),
        (("status",), {"matplotlib", "distributed"}),
    ],
    ids=["cohort", "check", "ingest", "info", "status"],
)
def test_help_comes_at_once(command: tuple[str, ...], unneeded: set[str]) -> None:
    code = f"""
import sys
from cohort.cli import app
try:
    app([*{command}, "--help"])
finally:
    print(sorted(sys.modules.keys() & {unneeded}))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Usage:" in shown.stdout
    assert shown.stdout.rstrip().endswith("[]")


def test_public_names_are_those_listed() -> None:
    import triton_reg

    public = {name for name in dir(triton_reg) if not name.startswith("_")}
    submodules = {
        "affine", "displacement", "features", "losses", "method", "methods", "metrics", "ops",
        "training", "weights",
    }  # fmt: skip
    assert public - submodules == set(triton_reg.__all__)
