"""Runs the chapter and stores it with its outputs: docs/chapter.py -> docs/chapter.ipynb.

python docs/execute.py
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

SCRIPT = Path(__file__).with_name("chapter.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def execute(folder: Path, timeout: int = 600) -> Any:
    """The notebook of the script with its outputs, run in a folder.

    Raises:
        CellExecutionError: a cell raises.
        CellTimeoutError: a cell takes more than `timeout` seconds.
    """
    notebook = jupytext.read(SCRIPT)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random otherwise, and then every run is a change
    NotebookClient(
        notebook, timeout=timeout, record_timing=False, resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings belong to the machine
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(Path(folder)), NOTEBOOK)
    sys.stdout.write(f"{NOTEBOOK}\n")
