"""The folder of a run: its config, vocabulary, text, metrics and samples. Opening one executes nothing in it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from charlstm.config import CELLS, Experiment
from charlstm.data.dataset import Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import check_orbax_path, inside, one_line, read_json, write_atomic, write_json
from charlstm.support.schema import flat, from_dict, to_dict

CONFIG, VOCABULARY, CORPUS, METRICS = "config.json", "vocabulary.json", "corpus.json", "metrics.jsonl"
CHECKPOINTS, SAMPLES, TENSORBOARD = "checkpoints", "samples", "tensorboard"
Kind = TypeVar("Kind")
GRID = "grid.json"
"""The file that makes a folder a comparison's rather than a run's."""
_WRITTEN_BY = "written_by"
"""The key beside the config's own: versions by package, and `program` if a program of its own made the run."""


@dataclass(frozen=True)
class Run:
    """A run on disk, which `Run.create` makes and `Run.open` opens; neither touches its checkpoints."""

    folder: Path
    config: Experiment
    vocabulary: Vocabulary
    fingerprint: Fingerprint
    program: bool = False
    """Whether a program made it with an optimizer, a loss or data of its own, so that it alone can continue it."""

    @property
    def newline(self) -> int | None:
        """The id that ends each document of the run's text; None where the text is one."""
        return self.vocabulary.newline(self.config.data.documents)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the folder holds a run, so that `open` rather than `create` is meant."""
        return os.path.lexists(folder / CONFIG)

    @classmethod
    def create(
        cls, folder: Path, config: Experiment, vocabulary: Vocabulary, fingerprint: Fingerprint, program: bool = False
    ) -> "Run":
        """Makes the folder and its files, config.json last, so that a crash on the way leaves no run."""
        make_folder(folder)
        present = [name for name in (CONFIG, METRICS, CHECKPOINTS, GRID) if os.path.lexists(folder / name)]
        if present:
            raise InputError(f"{folder} already holds {present[0]}; use another --run-dir, or move it away")
        run = cls(folder, config, vocabulary, fingerprint, program)
        with _making(folder):
            _check_links(folder)
            vocabulary.save(folder / VOCABULARY)
            write_json(folder / CORPUS, asdict(fingerprint))
            run._write_config()
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in a folder; raises InputError for what is none, is malformed, or has links that lead out of it."""
        if not os.path.isdir(folder):  # unlike Path.is_dir, no error for a name that is too long
            raise InputError(f"there is no folder {folder}; give the folder of a run, or train one there first")
        if (folder / GRID).exists():
            raise InputError(f"{folder} is a comparison; give one of its runs, such as lstm-1x128/seed-0 in it")
        if not cls.exists(folder):
            raise InputError(f"{folder} has no {CONFIG}, so it is not a run; give the folder that charlstm train named")
        _check_links(folder)
        if not (path := folder / VOCABULARY).is_file():  # a named pipe would block the reader for good
            raise InputError(f"there is no file {path}; put back the run's own file")
        config, program = _read_config(folder / CONFIG)
        vocabulary = Vocabulary.load(path)
        if config.data.symbols == "bytes" and vocabulary.characters[-1] > "\xff":
            raise InputError(f"{path} is malformed: it holds more than bytes; put back the run's own file")
        return cls(folder, config, vocabulary, read_as(Fingerprint, folder / CORPUS), program)

    def extended(self, config: Experiment, program: bool = False) -> "Run":
        """This run as a `config` with more `train.steps`, or with another time loop, continues it; on disk too."""
        run = replace(self, config=continued(self.config, config), program=self.program or program)
        if run != self:
            run._write_config()
        return run

    def check_text(self, fingerprint: Fingerprint, vocabulary: Vocabulary) -> None:
        """Raises InputError if a text or its vocabulary is not the run's; the text's name does not matter."""
        check_text(self.folder, self.fingerprint, fingerprint)
        if vocabulary != self.vocabulary:
            raise InputError(f"{self.folder / VOCABULARY} is not that of the run's text; put back the run's own file")

    def write_sample(self, step: int, text: str) -> Path:
        """Writes samples/STEP.txt, as UTF-8 in which lone surrogates, which a model may draw, stay."""
        path = self.folder / SAMPLES / f"{step}.txt"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, text.encode("utf-8", "surrogatepass"))
        return path

    def _write_config(self) -> None:
        written_by = _versions() | ({"program": True} if self.program else {})
        write_json(self.folder / CONFIG, to_dict(self.config) | {_WRITTEN_BY: written_by})


def _check_links(folder: Path) -> None:
    for name in (CONFIG, VOCABULARY, CORPUS, METRICS, CHECKPOINTS, SAMPLES, TENSORBOARD):
        inside(folder, name)


def make_folder(folder: Path) -> None:
    """Makes a run's folder if it is missing; raises InputError where it cannot be, or could hold no checkpoints."""
    check_orbax_path(folder)
    with _making(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):  # which another folder need not mend
            raise
        why = error.strerror or error
        raise InputError(f"the run folder {folder} cannot be made: {why}; use another --run-dir") from None


@contextmanager
def as_training_errors(folder: Path) -> Iterator[None]:
    """Raises TrainingError where the system fails the block, such as on a full disk."""
    try:
        yield
    except BrokenPipeError:  # of our output, not of a file
        raise
    except OSError as error:
        what = f"{error.filename or folder}: {error.strerror or error}"
        raise TrainingError(f"{what}; mend that, and the same command goes on from the newest checkpoint") from error


def default_folder(name: str) -> Path:
    """``runs/NAME``, the folder of a run that is given none; raises InputError unless the name is that of a folder."""
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise InputError(f"{name!r} cannot name a folder; use --run-dir")
    return Path("runs") / name


def continued(old: Experiment, new: Experiment) -> Experiment:
    """The config with which a run of `old` continues as `new`; a time loop of "auto" leaves the run its own.

    Raises InputError unless only `train.steps` grew, or the time loop changed: all of them compute the same values.
    """
    before, after = flat(old), flat(new)
    free = {"model.recurrence"} | ({"train.steps"} if new.train.steps > old.train.steps else set())
    changed = [name for name in before if before[name] != after[name] and name not in free]
    if changed:
        changes = ", ".join(f"{name} was {before[name]!r} and is {after[name]!r}" for name in changed)
        what = f"the run began with another config: {one_line(changes, 2000)}"
        raise InputError(f"{what}; only a larger train.steps can continue it, so use another --run-dir")
    recurrence = old.model.recurrence if new.model.recurrence == "auto" else new.model.recurrence
    return replace(new, model=replace(new.model, recurrence=recurrence))


def read_as(kind: type[Kind], path: Path, unknown: Literal["forbid", "ignore"] = "forbid") -> Kind:
    """The dataclass in a JSON file; raises InputError, which names the file, where it is missing or malformed."""
    values = read_json(path)
    try:
        return from_dict(values, kind, unknown=unknown)
    except InputError as error:
        raise InputError(f"{path} is malformed: {error}; put back the file that was there") from None


def check_text(folder: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raises InputError if a text is not the one that a folder began with."""
    if (then.sha256, then.characters) != (now.sha256, now.characters):
        had, has = (f"{each.characters:,} characters (SHA-256 {each.sha256[:12]})" for each in (then, now))
        what = f"the text of {one_line(now.corpus)} changed since {folder} began: it had {had}, and has {has}"
        raise InputError(f"{what}; bring the old text back, or use another --run-dir")


def _read_config(path: Path) -> tuple[Experiment, bool]:
    """The config in a file, and whether a program of its own made the run."""
    values = read_json(path)
    if not isinstance(written_by := values.pop(_WRITTEN_BY, {}), dict):
        raise InputError(f"{path} is malformed: {_WRITTEN_BY} must be an object; put back the run's own file")
    try:
        config = from_dict(values, Experiment)
    except InputError as error:
        theirs, ours = (str(each.get("charlstm", "")) for each in (written_by, _versions()))
        if _release(theirs) > _release(ours):
            newer = f"{path} was written by charlstm {one_line(theirs, 40)}, newer than this one ({ours})"
            raise InputError(f"{newer}; upgrade charlstm to read it: {error}") from None
        raise InputError(f"{path} is malformed: {error}; put back the run's own file") from None
    if (cell := config.model.cell) not in CELLS:
        call = f"charlstm.register_cell({one_line(repr(cell), 80)}, ...)"
        how = f"import the file that calls {call} first, as in charlstm --import FILE sample RUN"
        raise InputError(f"the cell of {path} is not registered; {how}")
    return config, written_by.get("program") is True


def _versions() -> dict[str, str | bool]:
    found = dict[str, str | bool]()
    for package in ("charlstm", "jax", "flax", "orbax-checkpoint"):
        with suppress(PackageNotFoundError):  # charlstm, run from a source tree
            found[package] = version(package)
    return found


def _release(text: str) -> list[int]:
    """The numbers of a version such as 1.2.3, without what comes after them."""
    match = re.match(r"\d{1,9}(\.\d{1,9}){0,3}", text)
    return [int(part) for part in match[0].split(".")] if match else []
