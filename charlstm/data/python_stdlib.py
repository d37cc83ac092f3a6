"""The source of the standard library of the Python that runs, as a text that every machine has.

It differs between versions of Python, and where a distribution leaves parts out: a figure on it needs its SHA-256.
"""

import platform
import sysconfig
import tokenize
from pathlib import Path

from charlstm.support.errors import InputError

NAME = "python_stdlib"
TITLE = f"Source of Python {platform.python_version()}'s standard library, without its tests"
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def folder() -> Path:
    """Where the library is."""
    return Path(sysconfig.get_path("stdlib"))


def text() -> str:
    """All modules, by path; InputError where there is no source. What was generated for this machine is left out."""
    root, found = folder(), list[str]()
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(paths):
        parts = name.split("/")
        generated = parts[-1].startswith("_sysconfigdata") or parts[0].startswith("config-")
        if not generated and _LEFT_OUT.isdisjoint(parts[:-1]):
            try:
                with tokenize.open(paths[name]) as file:  # in the encoding that the module names
                    found.append(file.read())
            except (OSError, SyntaxError) as error:
                raise InputError(f"cannot read {str(paths[name])!r}: {error}; choose another --data.corpus") from None
    if not any(found):
        raise InputError(f"there is no source of the standard library in {str(root)!r}; choose another --data.corpus")
    return "".join(each if each.endswith("\n") else f"{each}\n" for each in found if each)
