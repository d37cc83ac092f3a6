"""The text of one file, piece by piece, so that no file is ever held as a whole."""

import codecs
import os
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path

from charlstm.config import Symbols
from charlstm.support.errors import InputError
from charlstm.support.process import memory

_CHUNK = 1 << 22  # bytes


class TextFile:
    """The pieces of a file's text. Each iteration reads the file again and gives the same pieces.

    Characters: strict UTF-8 without its byte order mark, CRLF as LF, and nothing else changed. Bytes: the raw bytes, as
    U+0000 to U+00FF. Raises InputError if the file cannot be read, is empty, is not text, or has changed.
    """

    def __init__(self, path: Path, symbols: Symbols) -> None:
        self._path = path
        self._symbols: Symbols = symbols
        self._first: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            with self._path.open("rb") as file:
                self._check(file)
                length = 0
                for piece in decoded(partial(file.read, _CHUNK), repr(str(self._path)), self._symbols):
                    length += len(piece)
                    yield piece
                self._check(file, length)
        except OSError as error:
            raise unreadable(self._path, error) from None

    def _check(self, file: BufferedReader, length: int = 1) -> None:
        stat = os.fstat(file.fileno())
        now = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._first not in (None, now):
            raise InputError(f"{str(self._path)!r} changed while it was read; let no one write to it, and start again")
        if not stat.st_size or not length:  # the system shows some endless streams as files of no bytes
            raise InputError(f"{str(self._path)!r} is empty; give a file with text in it")
        if stat.st_size > memory():
            raise InputError(f"{str(self._path)!r} has more bytes than this machine has memory; give a part of it")
        self._first = now


def unreadable(path: Path | str, error: OSError) -> InputError:
    """The error for a file that cannot be read, with the reason."""
    return InputError(f"cannot read {str(path)!r}: {error.strerror or error}; check the path and its permissions")


def decoded(read: Callable[[], bytes], name: str, symbols: Symbols) -> Iterator[str]:
    """The text of chunks, of which b"" is the last, as `TextFile` gives it; `name` is that of the input in errors."""
    return iter(lambda: read().decode("latin-1"), "") if symbols == "bytes" else _characters(read, name)


def _characters(read: Callable[[], bytes], name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, began, held, chunk = 0, False, "", b" "
    while chunk:
        chunk = read()
        if (nul := chunk.find(b"\0")) >= 0:
            raise _not_text(name, f"has a NUL at byte {offset + nul}, so it is not text")
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_text(name, f"is not UTF-8 at byte {offset - pending + error.start}") from None
        if text and not began:
            text, began = text.removeprefix("\ufeff"), True
        text = held + text
        held = "\r" if chunk and text.endswith("\r") else ""  # its LF may open the next chunk
        yield text.removesuffix(held).replace("\r\n", "\n")
        offset += len(chunk)


def _not_text(name: str, what: str) -> InputError:
    return InputError(f"{name} {what}; convert it to UTF-8, or use --data.symbols bytes, which reads any file")
