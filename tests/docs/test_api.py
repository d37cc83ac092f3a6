"""Every public name says what it is, and the pages of the API can be built."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import charlstm

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_there_are_at_most_twenty_names():
    assert len(charlstm.__all__) <= 20
    assert len(set(charlstm.__all__)) == len(charlstm.__all__)


def test_no_name_is_that_of_a_subpackage():
    folder = Path(charlstm.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & set(charlstm.__all__)


@pytest.mark.parametrize("name", [name for name in charlstm.__all__ if not name.startswith("__")])
def test_public_names_have_docstrings(name: str):
    value = getattr(charlstm, name)
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__  # not that of a base class
    assert own, name
    assert not own.startswith(f"{name}("), f"{name} has the signature that dataclass or NamedTuple writes"
    assert own.split("\n\n")[0].rstrip().endswith("."), f"{name}: a docstring begins with a sentence"


@pytest.mark.parametrize("name", [name for name in charlstm.__all__ if not name.startswith("__")])
def test_public_methods_have_docstrings(name: str):
    value = getattr(charlstm, name)
    methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else []
    lacking = [
        method.__qualname__
        for _, method in methods
        if method.__module__.startswith("charlstm.") and not method.__name__.startswith("_") and not method.__doc__
    ]
    assert not lacking


def test_pages_are_built(tmp_path: Path):
    pytest.importorskip("pdoc")
    built = subprocess.run([sys.executable, DOCS / "api.py", tmp_path], capture_output=True, text=True, env=os.environ)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "charlstm.html").read_text("utf-8")
    for name in charlstm.__all__:
        assert f'id="{name}"' in page, name
