"""Files of a run folder, which may be a stranger's: bounded reads, atomic writes, no link out of the folder."""

import errno
import itertools
import json
import math
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from charlstm.support.errors import InputError

LIMIT = 16 * 2**20
"""Bytes of a run's JSON file at most; a vocabulary's limit is its own."""
_STORES = ("gs", "s3", "az", "hf")
"""Orbax's path library takes /gs/..., /s3/... and so on for the addresses of buckets."""
_DEEPEST = 32
"""Levels of nested lists and objects at most; what charlstm writes has five."""


def one_line(text: object, length: int = 300) -> str:
    """Text for a terminal: one printable line, cut where it is longer than `length`."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= length else line[:length] + "..."


def printable(text: str) -> str:
    """Replaces control characters, which a terminal would obey, with U+FFFD; newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a person gave, with ~ as the home folder; raises InputError for one that no file can have."""
    found = Path(path)
    try:
        found = Path(os.path.expanduser(path))
        found.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # whoever needs the file says so
        if found.parts[:1] and found.parts[0].startswith("~") and isinstance(error, FileNotFoundError):
            what = f"{one_line(found.parts[0])} is no one's home folder"
            raise InputError(f"{what}; write ./{one_line(found)} for a path that begins so") from None
    except (OSError, ValueError) as error:
        raise InputError(f"no file can be called {str(path)!r}: {error.args[-1]}") from None
    return found


def check_orbax_path(folder: Path, characters: str = "[]*?\\") -> None:
    """Raises InputError for a path that Orbax takes for a pattern, or TensorStore for another path."""
    path = str(folder.absolute())
    found = [each for each in characters if each in path] + ["gs:/"] * ("gs:/" in path)
    found += [part for part in folder.absolute().parts[1:2] if part in _STORES]
    if found:
        raise InputError(f"{path} cannot hold a checkpoint, as {found[0]} is in its name; move it to another path")


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`; raises InputError where a symbolic link there leads out of the folder."""
    path = folder / name
    try:
        resolved = path.resolve()
        # Python 3.13 resolves a loop of links to one of them, and older ones raise.
        stays = resolved.is_relative_to(folder.resolve()) and not resolved.is_symlink()
    except (OSError, RuntimeError):
        stays = False
    if not stays:
        raise InputError(f"{path} is a symbolic link that leads out of the run's folder; put the file itself there")
    return path


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another that takes its name; None where there is none, or no longer."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def find_foreign(folder: Path, most: float = math.inf) -> str | None:
    """Describes a link, a pipe or such inside of a folder, or that its files are larger than `most` together, if so."""
    waiting, size = [str(folder)], 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    what = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                    return f"{one_line(os.path.relpath(entry.path, folder))} is {what}"
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return f"its files have {size:,} bytes, and more than {most:,} are not read" if size > most else None


def move_aside(path: Path) -> Path:
    """Renames what is in the way to a name beside it that is free."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.moved-aside{f'-{number}' if number > 1 else ''}")
        if not os.path.lexists(aside):
            return path.rename(aside)
    raise AssertionError


def remove_tree(path: Path) -> None:
    """Removes a folder; a thread of Orbax's that a failed save left may still add a file meanwhile."""
    for wait in (0.05, 0.1, 0.2, 0.4, 0.8, 0):
        try:
            shutil.rmtree(path)
            break
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not wait:
                raise
            time.sleep(wait)


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text; raises ValueError if it is not UTF-8, not JSON, nested too deep, or has NaN in it."""
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(_DEEPEST):  # what can be parsed is still too deep for a message that shows it
        lists = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [inner for each in lists for inner in each]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def number(value: object, most: float = 3.4e38) -> float | None:
    """A value as a float; None if it is not a number, or beyond `most`, by default what float32 holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= most else None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises InputError where the file is missing, too large, or holds no JSON object."""
    if not path.is_file():  # which a named pipe is not either
        raise InputError(f"there is no file {path}")
    if (size := path.stat().st_size) > LIMIT:
        raise InputError(f"{path} has {size} bytes, and more than {LIMIT} are not read; put the run's own file there")
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is malformed: {one_line(error)}; put back the run's own file") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is malformed: it holds no JSON object; put back the run's own file")
    return value


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file such that a reader, and a crash at any moment, see all of the old bytes or all of the new."""
    temporary = path.parent / f".{path.name}.tmp"
    try:
        temporary.unlink(missing_ok=True)  # left by a crash; and "x" follows no link that someone put there
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # which must not hide the first one
            temporary.unlink(missing_ok=True)  # on a full disk, half a file is space that others need
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def json_text(value: object) -> bytes:
    """A JSON value as it is written: indented, its keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes its JSON escape


def write_json(path: Path, value: object) -> None:
    """Writes a JSON value atomically."""
    write_atomic(path, json_text(value))
