"""The text of one file or of several, piece by piece, so that none is ever held as a whole."""

import bz2
import codecs
import glob
import gzip
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any

from charlstm.config import Symbols
from charlstm.support.errors import InputError
from charlstm.support.process import memory

COMPRESSED = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0", ".zst": b"\x28\xb5\x2f\xfd"}
"""How the names of files end that are decompressed, and what such a file begins with."""
_CHUNK = 1 << 22  # bytes
_MOST_FILES = 100_000  # a folder with links to itself has no end
_REMEDIES = {
    **{magic: f"it is compressed, so give a file whose name ends in {ending}" for ending, magic in COMPRESSED.items()},
    b"PK\3\4": "it is a zip archive or a document, so save the text in it to a file first",
    b"%PDF": "it is a PDF, so save the text in it to a file first",
}
"""By what a file begins with, where converting it to UTF-8 would be no help."""
Identity = tuple[int, int, int, int]
"""What differs once a file is another, or is written to: device, inode, bytes, nanoseconds of its last change."""


class TextFiles:
    """The pieces of the text in `find_files(path)`, with `separator` between files. Those without text are left out.

    Each iteration reads the files again and gives the same pieces. A name in .gz, .bz2, .xz or .zst is decompressed.

    Characters: strict UTF-8 without a byte order mark before it, CRLF as LF, and nothing else changed. Bytes: the raw
    bytes, as U+0000 to U+00FF. Raises InputError, which names the file, if one cannot be read, is not text, or has
    changed; if there is no text, and, if `limited`, where there is more than memory could hold.
    """

    def __init__(self, path: str, symbols: Symbols, separator: str = "", *, limited: bool = True) -> None:
        self._path, self._separator, self._limited = path, separator, limited
        self._symbols: Symbols = symbols
        self._first: dict[str, Identity] = {}

    def __iter__(self) -> Iterator[str]:
        files = {path: _identify(path) for path in find_files(self._path)}
        first = self._first = self._first or files
        if changed := [path for path in first | files if first.get(path) != files.get(path)]:
            raise _changed(changed[0])
        length, limit = 0, memory() if self._limited else sys.maxsize
        self._check_size(sum(size for _, _, size, _ in files.values()), limit)  # what comes out may be more
        for path, identity in files.items():
            chunks = _chunks(path, identity)
            pieces = decoded(chunks, repr(path), self._symbols, alone=path == self._path)
            gap = self._separator if length else ""
            for piece in filter(None, pieces):
                length += len(gap) + len(piece)
                self._check_size(length, limit)
                yield gap + piece
                gap = ""
        if not length:
            raise InputError(f"{self._path!r} is empty; give a file with text in it")

    def _check_size(self, length: int, limit: int) -> None:
        if length > limit:
            how = "give a part of it, or train on it with --data.cache True"
            raise InputError(f"{self._path!r} has more bytes than this machine has memory; {how}")


def find_files(path: str) -> list[str]:
    """The file, the files in the folder, or those that match the glob, sorted; InputError where there are none.

    The folders in a folder, and what begins with a dot there, are left out; a glob finds what a shell with globstar
    does. A file of several names counts once.
    """
    if os.path.isdir(path):
        try:
            found = [os.path.join(path, name) for name in os.listdir(path) if not name.startswith(".")]
        except OSError as error:
            raise unreadable(path, error) from None
        none = f"there is no file in the folder {path!r}; a quoted glob, such as '{path}/**/*.txt', reads its folders"
    elif os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    else:
        found = list(islice(glob.iglob(path, recursive=True), _MOST_FILES + 1))
        none = f"no file matches {path!r}; ** stands for any folders, * for any part of one name"
    if len(found) > _MOST_FILES:
        raise InputError(f"{path!r} has more than {_MOST_FILES:,} files; put their texts together first")
    files = {os.path.realpath(each): each for each in sorted(found, reverse=True) if not os.path.isdir(each)}
    if not files:
        raise InputError(none)
    return sorted(files.values())


def unreadable(path: Path | str, error: OSError) -> InputError:
    """The error for a file that cannot be read, with the reason."""
    return InputError(f"cannot read {str(path)!r}: {error.strerror or error}; check the path and its permissions")


def check_regular(path: str, mode: int) -> None:
    """Raises InputError for a pipe, a terminal and their like."""
    if not stat.S_ISREG(mode):
        raise InputError(f"{path!r} is not a regular file, so it cannot be read again; save its text to a file first")


def _identify(path: str, file: int | None = None) -> Identity:
    try:
        found = os.stat(path if file is None else file)
    except OSError as error:
        raise unreadable(path, error) from None
    check_regular(path, found.st_mode)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _changed(path: str) -> InputError:
    return InputError(f"{path!r} changed while it was read; let no one write to it, and start again")


def _chunks(path: str, identity: Identity) -> Iterator[bytes]:
    """The bytes of a file, decompressed."""
    if not identity[2]:  # the system shows some endless streams as files of no bytes
        return
    with decompressed(path) as (stream, file):
        if _identify(path, file.fileno()) != identity:
            raise _changed(path)
        while chunk := stream.read(_CHUNK):
            yield chunk
        if _identify(path, file.fileno()) != identity:
            raise _changed(path)


@contextmanager
def decompressed(path: str) -> Iterator[tuple[Any, Any]]:
    """A reader of a file's bytes, decompressed, and the file itself; InputError where the block cannot read it."""
    module, damage = _decompressor(path)
    try:
        with Path(path).open("rb") as file:
            yield module.open(file) if module else file, file
    except (OSError, EOFError, damage) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        why = f"{path!r} cannot be decompressed ({error})"
        raise InputError(f"{why}; it is damaged, cut short, or not what its name ends in, so get it again") from None


def _decompressor(path: str) -> tuple[Any, type[Exception]]:
    """The module whose `open` decompresses a file of this name, if it is compressed, and what a damaged one raises."""
    match os.path.splitext(path)[1].lower():
        case ".gz":
            return gzip, zlib.error
        case ".bz2":
            return bz2, EOFError
        case ".xz":
            return lzma, lzma.LZMAError
        case ".zst":
            try:
                module = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
            except ImportError:
                how = "pip install 'charlstm[zstd]', or decompress it first"
                raise InputError(f"{path!r} needs the package backports.zstd; {how}") from None
            return module, module.ZstdError
    return None, EOFError


def decoded(chunks: Iterable[bytes], name: str, symbols: Symbols, *, alone: bool = True) -> Iterator[str]:
    """The text of chunks as `TextFiles` gives it; `name` is that of the input in errors, and `alone` if it is all."""
    return (chunk.decode("latin-1") for chunk in chunks) if symbols == "bytes" else _characters(chunks, name, alone)


def _characters(chunks: Iterable[bytes], name: str, alone: bool) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, began, held, head = 0, False, "", b""
    others = "leave it out by a quoted glob, as in '*.txt'"
    way = "train with --data.symbols bytes, which reads any file" if alone else others

    def not_text(what: str) -> InputError:
        remedies = [remedy for magic, remedy in _REMEDIES.items() if head.startswith(magic)]
        return InputError(f"{name} {what}; {remedies[0] if remedies else f'convert it to UTF-8, or {way}'}")

    for chunk in chain(chunks, [b""]):
        head = head or chunk[:8]
        if (nul := chunk.find(b"\0")) >= 0:
            raise not_text(f"has a NUL at byte {offset + nul}, so it is not text")
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise not_text(f"is not UTF-8 at byte {offset - pending + error.start}") from None
        if text and not began:
            text, began = text.removeprefix("\ufeff"), True
        text = held + text
        held = "\r" if chunk and text.endswith("\r") else ""  # its LF may open the next chunk
        text = text.removesuffix(held)
        yield text.replace("\r\n", "\n") if "\r" in text else text  # a search for one character is far faster
        offset += len(chunk)
