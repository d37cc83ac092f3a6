"""The folder of a run: its config, vocabulary, text, metrics and samples. Opening one executes nothing in it."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from charlstm.config import Experiment
from charlstm.data.dataset import Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.config_file import (
    WRITTEN_BY,
    Change,
    Origin,
    Story,
    Versions,
    changes,
    continued,
    id_of,
    installed,
    newer,
    read_config,
)
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import check_orbax_path, inside, json_text, one_line, read_json, write_atomic, write_json
from charlstm.support.schema import from_dict, to_dict

CONFIG, VOCABULARY, CORPUS, METRICS = "config.json", "vocabulary.json", "corpus.json", "metrics.jsonl"
CHECKPOINTS, SAMPLES, TENSORBOARD = "checkpoints", "samples", "tensorboard"
Kind = TypeVar("Kind")
GRID = "grid.json"
"""The file that makes a folder a comparison's rather than a run's."""


@dataclass(frozen=True)
class Run:
    """A run on disk, which `Run.create` makes and `Run.open` opens; neither touches its checkpoints."""

    folder: Path
    config: Experiment
    vocabulary: Vocabulary
    fingerprint: Fingerprint
    program: bool = False
    """Whether a program made it with an optimizer, a loss or data of its own, so that it alone can continue it."""
    id: str = field(default="", compare=False)
    """Tells its checkpoints from those of a run that began otherwise; empty where an earlier version made it."""
    init_from: Origin | None = None
    """The run whose parameters it began with, if not with fresh ones."""
    changes: tuple[Change, ...] = ()
    """What was changed when it went on, so that its config holds from there on only."""
    backend: str = ""
    """What ran its model when it began; empty where an earlier version made it, which had no native core."""
    versions: Versions = field(default_factory=lambda: installed(), compare=False)
    """The packages that wrote it last."""
    before: tuple[Versions, ...] = field(default=(), compare=False)
    """Those that wrote it earlier, each up to a "step"."""

    @property
    def newer(self) -> str:
        """A line about a run that a newer charlstm wrote; "" for others."""
        return newer(self.folder / CONFIG, self.versions)

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
        cls,
        folder: Path,
        config: Experiment,
        vocabulary: Vocabulary,
        fingerprint: Fingerprint,
        *,
        program: bool = False,
        init_from: Origin | None = None,
        backend: str = "",
    ) -> "Run":
        """Makes the folder and its files, config.json last, so that a crash on the way leaves no run."""
        make_folder(folder)
        check_vacant(folder, (CONFIG, METRICS, CHECKPOINTS, SAMPLES, TENSORBOARD, GRID))
        id_ = id_of(config, fingerprint, init_from)
        run = cls(folder, config, vocabulary, fingerprint, program, id_, init_from, backend=backend)
        with _making(folder):
            _check_links(folder)
            # What a crash on the way left is what is written now; anything else is the user's own.
            texts = {VOCABULARY: vocabulary.to_json(), CORPUS: json_text(asdict(fingerprint))}
            check_vacant(folder, [name for name, text in texts.items() if not _holds(folder / name, text)])
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
            first = next((f", such as {each.parent}" for each in sorted(folder.glob(f"*/*/{CONFIG}"))), "")
            raise InputError(f"{folder} is a comparison; give one of its runs{first}, or use `charlstm compare`")
        if not cls.exists(folder):
            raise InputError(f"{folder} has no {CONFIG}, so it is not a run; give the folder that charlstm train named")
        _check_links(folder)
        if not (path := folder / VOCABULARY).is_file():  # a named pipe would block the reader for good
            raise InputError(f"there is no file {path}; put back the run's own file")
        found = read_config(folder / CONFIG)
        vocabulary = Vocabulary.load(path)
        if found.config.data.symbols == "bytes" and vocabulary.characters[-1] > "\xff":
            raise InputError(f"{path} is malformed: it holds more than bytes; put back the run's own file")
        fingerprint = read_as(Fingerprint, folder / CORPUS)
        made = found._asdict()
        return cls(folder, made.pop("config"), vocabulary, fingerprint, **made)

    def extended(self, config: Experiment, step: int, *, program: bool = False, allow_change: bool = False) -> "Run":
        """This run as `config` continues it after `step`; on disk too. Raises InputError as `continued` does."""
        config = continued(self.config, config, step, allow_change=allow_change, name=f"the run in {self.folder}")
        # Where newer checkpoints were lost, what changed after them changes here.
        kept = tuple(replace(each, step=min(each.step, step)) for each in self.changes)
        made = kept + changes(self.config, config, step)
        run = replace(self, config=config, program=self.program or program, changes=made)
        if (now := installed()) != self.versions and step < config.train.steps:
            run = replace(run, versions=now, before=(*self.before, self.versions | {"step": step}))
        if run != self or run.before != self.before:
            run._write_config()
        return run

    def check_text(self, fingerprint: Fingerprint, vocabulary: Vocabulary) -> None:
        """Raises InputError if a text or its vocabulary is not the run's; the text's name does not matter."""
        check_text(self.folder, self.fingerprint, fingerprint)
        if vocabulary != self.vocabulary:
            raise InputError(f"{self.folder / VOCABULARY} is not that of the run's text; put back the run's own file")

    def write_sample(self, step: int, text: str) -> Path:
        """Writes samples/STEP.txt, as UTF-8 in which lone surrogates, which a model may draw, stay."""
        path = inside(self.folder, SAMPLES) / f"{step}.txt"  # a link may have been put there since it was opened
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, text.encode("utf-8", "surrogatepass"))
        return path

    def _write_config(self) -> None:
        written_by = self.versions | ({"run": self.id} if self.id else {}) | ({"program": True} if self.program else {})
        written_by |= {name: value for name, value in (("backend", self.backend), ("before", self.before)) if value}
        story = to_dict(Story(init_from=self.init_from, changes=self.changes))
        told = {name: value for name, value in story.items() if value}
        write_json(self.folder / CONFIG, to_dict(self.config) | {WRITTEN_BY: written_by} | told)


def _check_links(folder: Path) -> None:
    for name in (CONFIG, VOCABULARY, CORPUS, METRICS, CHECKPOINTS, SAMPLES, TENSORBOARD):
        inside(folder, name)


def make_folder(folder: Path) -> None:
    """Makes a run's folder if it is missing; raises InputError where it cannot be, or could hold no checkpoints."""
    check_orbax_path(folder)
    with _making(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_vacant(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError if a folder in which something begins holds a file or folder of one of these names."""
    if present := [name for name in names if os.path.lexists(folder / name)]:
        raise InputError(f"{folder} already holds {present[0]}; use another --run-dir, or move it away")


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


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
    except OSError as error:
        what = f"{error.filename or folder}: {error.strerror or error}"
        raise TrainingError(f"{what}; mend that, and the same command goes on from the newest checkpoint") from error


def read_as(kind: type[Kind], path: Path, unknown: Literal["forbid", "ignore"] = "forbid") -> Kind:
    """The dataclass in a JSON file; raises InputError, which names the file, where it is missing or malformed."""
    values = read_json(path)
    try:
        return from_dict(values, kind, unknown=unknown)
    except InputError as error:
        raise InputError(f"{path} is malformed: {error}; put back the file that was there") from None


def check_text(folder: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raises InputError if a text is not the one that a folder began with."""
    if not then.is_of(now):
        had, has = (f"{each.characters:,} characters (SHA-256 {each.sha256[:12]})" for each in (then, now))
        what = f"the text of {one_line(now.corpus)} changed since {folder} began: it had {had}, and has {has}"
        raise InputError(f"{what}; give the text that it had, or train on this one in another --run-dir")
