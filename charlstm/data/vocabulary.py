"""Text <-> ids. A vocabulary is its characters in id order, and is stored as a JSON array of them."""

import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlstm.config import Documents
from charlstm.support.errors import InputError
from charlstm.support.files import write_atomic

_MAX_BYTES = 20_000_000  # all of Unicode takes 17.8 MB as JSON escapes
_SHOWN = 5
_INSTEAD = "replace them, or drop them with --skip-unknown"


@dataclass(frozen=True)
class Vocabulary:
    """The V characters that a model knows: single code points, in strictly ascending order, by id."""

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.characters:
            raise InputError("a vocabulary needs at least one character; the text is empty")
        if wrong := [each for each in self.characters if not isinstance(each, str) or len(each) != 1]:
            raise InputError(f"a vocabulary holds single characters, not {wrong[0]!r:.40}")
        for left, right in pairwise(self.characters):
            if left >= right:
                raise InputError(f"a vocabulary is in code point order, but {named(right)} follows {named(left)}")

    @classmethod
    def of(cls, text: str | Iterable[str]) -> "Vocabulary":
        """The distinct characters of a text, which may come in pieces."""
        seen, new = np.zeros(0x110000, bool), bytes([1]) * 256  # by code point
        for piece in [text] if isinstance(text, str) else text:
            if piece.isascii() and 1 not in piece.encode().translate(new):
                continue  # several times as fast as what follows, as is the way of `encode`
            if not seen.take(codes := _code_points(piece), mode="clip").all():  # far faster than to set each
                seen[codes] = True
            new = (~seen[:256]).tobytes()
        return cls(tuple(map(chr, np.flatnonzero(seen).tolist())))

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def size(self) -> int:
        """V, the number of characters."""
        return len(self.characters)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ids: uint8 for up to 256 characters, uint16 for up to 65,536, int32 for more."""
        return np.dtype(np.uint8 if len(self) <= 1 << 8 else np.uint16 if len(self) <= 1 << 16 else np.int32)

    def encode(self, text: str, *, skip_unknown: bool = False) -> NDArray[Any]:
        """The ids of a text, [N] in `dtype`; InputError if it has unknown characters, unless they are skipped."""
        if text.isascii() and len(self) < 256 and len(self) not in (found := text.encode().translate(self._ascii)):
            return np.frombuffer(found, np.uint8).copy()
        ids = self._look_up(_code_points(text))
        if not (known := ids != len(self)).all():
            if not skip_unknown:
                raise InputError(f"{not_known(self.unknown(text))}; {_INSTEAD}")
            ids = ids[known]
        return ids.astype(self.dtype, copy=False)

    def decode(self, ids: ArrayLike) -> str:
        """The text of ids, [N] of any integer type; ValueError if they are not one row of whole numbers below V."""
        row = np.asarray(ids)
        if row.size == 0:
            return ""
        if row.ndim != 1 or row.dtype.kind not in "iu" or row.min() < 0 or row.max() >= len(self):
            raise ValueError(f"ids must be one row of whole numbers below {len(self)}")
        return self._codes[row].tobytes().decode("utf-32-le", "surrogatepass")

    def newline(self, documents: Documents) -> int | None:
        """The id that ends each of a text's documents; None where it has none. InputError if it is not known."""
        if documents == "lines" and "\n" not in self.characters:
            raise InputError("the text has no line ends; use --data.documents none, or put each document on its line")
        return self.characters.index("\n") if documents == "lines" else None

    def check_known(self, pieces: Iterable[str]) -> None:
        """Raises InputError with all characters of a text in pieces that the vocabulary lacks, if there are any."""
        if unknown := dict.fromkeys(character for piece in pieces for character in self.unknown(piece)):
            raise InputError(f"{not_known(list(unknown))}; {_INSTEAD}")

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of a text that the vocabulary lacks, in order of appearance."""
        codes = _code_points(text)
        return list(dict.fromkeys(map(chr, codes[self._look_up(codes) == len(self)].tolist())))

    def to_json(self) -> bytes:
        """The characters as JSON."""
        return json.dumps(self.characters).encode("ascii")  # escapes carry surrogates too

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the characters as JSON, atomically."""
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Reads what `save` wrote; InputError if the file cannot be read, is too large, or holds no vocabulary."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot read the vocabulary {str(path)!r}: {error.strerror or error}") from None
        try:
            if len(content) > _MAX_BYTES:
                raise InputError(f"it is larger than {_MAX_BYTES:,} bytes")
            characters = json.loads(content.decode("utf-8"))
            if not isinstance(characters, list):
                raise InputError("it must be a JSON array of characters")
            return cls(tuple(characters))
        except (ValueError, RecursionError) as error:
            why = error if isinstance(error, InputError) else "it is not JSON"
            raise InputError(f"{str(path)!r} is not a vocabulary: {why}; restore the file as it was") from None

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        return np.array([ord(each) for each in self.characters], "<u4")

    @cached_property
    def _ids(self) -> NDArray[Any]:
        """Id of each code point, V if it has none; the last entry stands for all code points beyond."""
        table = np.full(ord(self.characters[-1]) + 2, len(self), np.min_scalar_type(len(self)))
        table[self._codes] = np.arange(len(self))
        return table

    @cached_property
    def _ascii(self) -> bytes:
        """Id of each ASCII character, or V, where that is below 256: a table for `bytes.translate`."""
        return self._look_up(np.arange(256)).astype(np.uint8).tobytes()

    def _look_up(self, codes: NDArray[Any]) -> NDArray[Any]:
        return self._ids.take(codes, mode="clip")


def named(character: str) -> str:
    """A character as any terminal can show it: ``'é' (U+00E9)``, ``'\\x00' (U+0000)``."""
    alone = character.isprintable() and not unicodedata.category(character).startswith("M")
    return f"{repr(character) if alone else ascii(character)} (U+{ord(character):04X})"


def not_known(characters: list[str]) -> str:
    """Says that a vocabulary lacks these characters, and names the first of them."""
    shown = ", ".join(map(named, characters[:_SHOWN]))
    rest = f" and {len(characters) - _SHOWN:,} more" if len(characters) > _SHOWN else ""
    return f"not in the vocabulary: {shown}{rest}"


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
