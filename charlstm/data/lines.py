"""What is read from a file or from standard input: its lines, in blocks as they arrive, or all of it as a prime."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from charlstm.config import Symbols
from charlstm.data.text_file import decoded, decompressed
from charlstm.support.errors import InputError
from charlstm.support.files import user_path

_CHUNK = 1 << 20  # bytes
_MOST_LINES = 4096  # of a block
_LONGEST = 1 << 24  # characters of a line, bytes of a prime


class Lines:
    """The lines of a file, or of standard input for "-", in a model's symbols and without their newlines.

    Characters are read as `TextFiles` reads them, so CRLF ends a line too; of bytes only the newline is taken off.
    Each iteration gives lists of lines as they arrive, in constant memory. Raises InputError if there is nothing to
    read, if it is not text, or at a line that is too long.
    """

    def __init__(self, path: str, symbols: Symbols) -> None:
        self._path = path
        self._symbols: Symbols = symbols

    @property
    def repeatable(self) -> bool:
        """Whether a second iteration gives the same lines."""
        return self._path != "-" and os.path.isfile(os.path.expanduser(self._path))

    def __iter__(self) -> Iterator[list[str]]:
        with _opened(self._path) as (file, name):
            begun, number, rest = False, 1, ""
            for piece in decoded(iter(partial(file.read1, _CHUNK), b""), name, self._symbols):
                begun = begun or bool(piece)
                *lines, rest = (rest + piece).split("\n")
                number += len(lines)
                if len(rest) > _LONGEST:
                    whole = "give a whole text to `charlstm eval --text`"
                    raise InputError(f"line {number} of {name} has more than {_LONGEST:,} {self._symbols}; {whole}")
                yield from (lines[at : at + _MOST_LINES] for at in range(0, len(lines), _MOST_LINES))
            if not begun:
                raise InputError(f"{name} is empty; give it lines of text")
            if rest:
                yield [rest]


def read_prime(path: str, symbols: Symbols) -> str:
    """All of a file, or of standard input for "-": characters as `TextFiles` reads them, bytes as in `os.fsdecode`.

    Raises InputError if it is too long, or is no text and not for a model of bytes.
    """
    with _opened(path) as (file, name):
        content = file.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise InputError(f"{name} has more than {_LONGEST:,} bytes, too many for a prime; give a part of it")
    if symbols == "bytes":
        return content.decode("utf-8", "surrogateescape")
    return "".join(decoded([content], name, symbols))


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, str]]:
    """A file, decompressed, or standard input as a buffered reader of bytes, and its name in messages."""
    if path == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed; give a file")
        if sys.stdin.isatty():
            print("charlstm: reads what is typed here; Ctrl-D ends it", file=sys.stderr)
        yield sys.stdin.buffer, "standard input"
        return
    with decompressed(str(user_path(path))) as (stream, _):
        yield stream, repr(path)
