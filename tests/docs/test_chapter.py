"""The chapter runs from top to bottom in its time, and the notebook that is stored is the script's."""

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest

jupytext = pytest.importorskip("jupytext")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECONDS = 180


def module(name: str) -> Any:
    """A module of the folder docs, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_notebook_has_the_cells_of_the_script():
    stored, script = (jupytext.read(DOCS / f"chapter.{ending}") for ending in ("ipynb", "py"))
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]


def test_the_notebook_has_its_outputs():
    stored = jupytext.read(DOCS / "chapter.ipynb")
    outputs = [output for cell in stored.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_the_chapter_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # with XLA's full optimizer, as a student runs it
    started = time.perf_counter()
    module("execute").execute(tmp_path)
    assert time.perf_counter() - started < SECONDS
