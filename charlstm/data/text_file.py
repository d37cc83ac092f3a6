"""The text of one file, piece by piece, so that no file is ever held as a whole."""

import codecs
import os
from collections.abc import Iterator
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
        self._path, self._symbols = path, symbols
        self._first: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            with self._path.open("rb") as file:
                self._check(file)
                length = 0
                as_bytes = iter(lambda: file.read(_CHUNK).decode("latin-1"), "")
                for piece in as_bytes if self._symbols == "bytes" else _characters(file, self._path):
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


def _characters(file: BufferedReader, path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, held, chunk = 0, "", b" "
    while chunk:
        chunk = file.read(_CHUNK)
        if (nul := chunk.find(b"\0")) >= 0:
            raise _not_text(path, f"has a NUL at byte {offset + nul}, so it is not text")
        pending = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_text(path, f"is not UTF-8 at byte {offset - pending + error.start}") from None
        text = text if offset else text.removeprefix("\ufeff")
        held = "\r" if chunk and text.endswith("\r") else ""  # its LF may open the next chunk
        yield text.removesuffix(held).replace("\r\n", "\n")
        offset += len(chunk)


def _not_text(path: Path, what: str) -> InputError:
    return InputError(f"{str(path)!r} {what}; convert it to UTF-8, or use --data.symbols bytes, which reads any file")
