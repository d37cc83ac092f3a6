"""Builds the pages of the public API from its docstrings.

python docs/api.py [FOLDER]
"""

import sys
from pathlib import Path

import pdoc

import charlstm

FOLDER = Path("build", "api")


def build(folder: Path) -> None:
    """Writes one HTML page for the names of `charlstm.__all__`."""
    for name in charlstm.__all__:
        setattr(charlstm, name, getattr(charlstm, name))  # imported lazily, and pdoc reads what is there
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("charlstm", output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
