"""The ids of a text that memory does not hold: a file in the platform's cache folder, of which pages are read."""

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.support.cache import cache_folder
from charlstm.support.errors import InputError

FOLDER = "ids"
_STALE = 3600.0
"""Seconds without a write after which an unfinished file is taken for a killed process's."""


def map_ids(
    sha256: str,
    count: int,
    dtype: np.dtype[Any],
    pieces: Iterable[NDArray[Any]],
    samples: Iterable[tuple[int, NDArray[Any]]],
    tell: Callable[[str], object],
) -> NDArray[Any]:
    """The ids [N] of a text, mapped from the file that is called after its SHA-256.

    It is written where it is missing, or is not that file: has another size, or other ids at the samples.

    Args:
        sha256: of the text, from which its ids follow.
        count, dtype: N, and that of the vocabulary.
        pieces: the ids, one part after the other; iterated over where they must be written.
        samples: some of the ids, each with the place of the first; to read all of a large file would take too long.
        tell: is given a line before the ids are written.

    Raises:
        InputError: the cache folder is missing, cannot be written to, or has too little room; nothing was written.
        OSError: the file cannot be written, such as on a full disk; what there is of it is gone.
    """
    if (cache := cache_folder()) is None:
        raise InputError("there is no home folder to keep the ids of data.cache in; set HOME, or leave it False")
    folder, size = cache / FOLDER, count * dtype.itemsize
    path = folder / f"{sha256}.{dtype}"
    if not (path.is_file() and path.stat().st_size == size and _has(path, samples)):
        needs = f"the ids of this text take {_in_words(size)} in {folder}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            how = "set XDG_CACHE_HOME to a folder that can be, or leave data.cache False"
            raise InputError(f"{needs}, which cannot be written to ({error.strerror}); {how}") from None
        _remove_stale(folder)
        if size > (free := shutil.disk_usage(folder).free):
            how = "free some, set XDG_CACHE_HOME to a folder of a larger disk, or train on a part of the text"
            raise InputError(f"{needs}, and {_in_words(free)} are free there; {how}")
        tell(f"{needs}; delete them when no run needs them")
        _write(path, pieces)
    return np.memmap(path, dtype, "r", shape=(count,))


def forget(ids: NDArray[Any]) -> None:
    """Takes pages of mapped ids out of this process's memory; the system keeps them for as long as it has room."""
    mapped: Any = getattr(ids, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _has(path: Path, samples: Iterable[tuple[int, NDArray[Any]]]) -> bool:
    """Whether ids are in the file; read, as each page of a map that is looked at counts as this process's memory."""
    with path.open("rb", buffering=0) as file:
        return all(
            file.seek(place * ids.itemsize) >= 0 and file.read(ids.nbytes) == ids.tobytes() for place, ids in samples
        )


def _write(path: Path, pieces: Iterable[NDArray[Any]]) -> None:
    """Atomically; of two processes that write the same ids, the last one's remain."""
    number, name = tempfile.mkstemp(".tmp", dir=path.parent)
    try:
        with open(number, "wb") as file:
            for piece in pieces:
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)  # on a full disk, half a file is space that others need
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def _remove_stale(folder: Path) -> None:
    for left in folder.glob("*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10**9 else f"{size / 1e6:,.1f} MB"
