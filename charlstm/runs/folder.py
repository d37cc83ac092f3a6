"""The folder of a run: its config, vocabulary, text, metrics and samples. Opening one runs nothing that it holds."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charlstm.support.schema import flat, from_dict, to_dict
from charlstm.config import Experiment, check_cell
from charlstm.data.corpora import fingerprint
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import inside, one_line, read_json, check_orbax_path, write_atomic, write_json
from charlstm.data.vocabulary import Vocabulary

CONFIG, VOCABULARY, CORPUS, METRICS = "config.json", "vocabulary.json", "corpus.json", "metrics.jsonl"
CHECKPOINTS, SAMPLES, TENSORBOARD = "checkpoints", "samples", "tensorboard"
GRID = "grid.json"
"""What makes a folder a comparison's, and not a run's."""


@dataclass(frozen=True)
class Fingerprint:
    """Which text a run reads: what it is called, the SHA-256 of its UTF-8, and how many characters it has."""

    corpus: str
    sha256: str
    characters: int

    @classmethod
    def of(cls, corpus: str, text: str) -> "Fingerprint":
        """The fingerprint of a text as `corpora.load` gives it."""
        return cls(corpus, fingerprint(text), len(text))


@dataclass(frozen=True)
class Run:
    """A run on disk. `Run.create` begins one and `Run.open` finds one; neither touches its checkpoints."""

    folder: Path
    config: Experiment
    vocabulary: Vocabulary
    fingerprint: Fingerprint

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a run was begun in the folder: whether `open` rather than `create` is meant."""
        return os.path.lexists(folder / CONFIG)

    @classmethod
    def create(cls, folder: Path, config: Experiment, vocabulary: Vocabulary, fingerprint: Fingerprint) -> "Run":
        """Makes the folder and its files; config.json is the last, so a crash on the way leaves no run.

        Raises:
            InputError: a run, part of one or a comparison is there already, or the folder cannot be made.
        """
        make_folder(folder)
        present = [name for name in (CONFIG, METRICS, CHECKPOINTS, GRID) if os.path.lexists(folder / name)]
        if present:
            raise InputError(f"{folder} already holds {present[0]}; use another --run-dir, or move it away")
        run = cls(folder, config, vocabulary, fingerprint)
        try:
            _refuse_links_out(folder)
            vocabulary.save(folder / VOCABULARY)
            write_json(folder / CORPUS, asdict(fingerprint))
            write_json(folder / CONFIG, to_dict(config))
        except OSError as error:
            raise _cannot_be_made(folder, error) from None
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in a folder.

        Raises:
            InputError: there is no such folder, it is not a run, one of its files is malformed or too large, or a
                symbolic link in it leads out of it.
        """
        if not os.path.isdir(folder):  # unlike Path.is_dir, no error for a name that is too long
            raise InputError(f"there is no folder {folder}; give the folder of a run, or train one there first")
        if not cls.exists(folder):
            raise InputError(f"{folder} has no {CONFIG}, so it is not a run; give the folder that charlstm train named")
        _refuse_links_out(folder)
        if not (folder / VOCABULARY).is_file():  # a named pipe would block the reader for good
            raise InputError(f"there is no file {folder / VOCABULARY}; put back the run's own file")
        path = folder / CONFIG
        values = read_json(path)
        try:
            config = from_dict(values, Experiment)
            check_cell(config.model.cell)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is malformed: {one_line(error)}; put back the run's own file") from None
        vocabulary = Vocabulary.load(folder / VOCABULARY)
        if config.data.symbols == "bytes" and vocabulary.characters[-1] > "\xff":
            raise InputError(
                f"{folder / VOCABULARY} is malformed: it holds more than bytes; put back the run's own file"
            )
        return cls(folder, config, vocabulary, read_fingerprint(folder / CORPUS))

    @property
    def checkpoints(self) -> Path:
        """The folder of `checkpoint.Checkpoints`."""
        return self.folder / CHECKPOINTS

    @property
    def metrics(self) -> Path:
        """The file of `metrics.Metrics`."""
        return self.folder / METRICS

    @property
    def samples(self) -> Path:
        """The folder of sampled text."""
        return self.folder / SAMPLES

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.folder / TENSORBOARD

    def sample(self, step: int) -> Path:
        """The file of the text that was sampled after a step."""
        return self.samples / f"{step}.txt"

    def extended(self, config: Experiment) -> "Run":
        """This run with a config that may have more `train.steps` or another time loop, in config.json too.

        Raises:
            InputError: something else differs, or the steps are fewer.
        """
        config = continued(self.config, config)
        if config != self.config:
            write_json(self.folder / CONFIG, to_dict(config))
        return Run(self.folder, config, self.vocabulary, self.fingerprint)

    def refuse_other_text(self, now: Fingerprint) -> None:
        """Raises InputError if the text is not the one that the run began with; what it is called does not matter."""
        refuse_other_text(self.folder, self.fingerprint, now)

    def refuse_other_vocabulary(self, now: Vocabulary) -> None:
        """Raises InputError if the vocabulary of the run's text is not the one in its folder."""
        if now != self.vocabulary:
            raise InputError(f"{self.folder / VOCABULARY} is not that of the run's text; put back the run's own file")

    def write_sample(self, step: int, text: str) -> Path:
        """Writes samples/STEP.txt, whole or not at all.

        Text is written as UTF-8 with every character as it is, newlines and lone surrogates too ("surrogatepass"): a
        sample that a model may draw is never a reason for a training to stop.
        """
        self.samples.mkdir(exist_ok=True)
        path = self.sample(step)
        write_atomic(path, text.encode("utf-8", "surrogatepass"))
        return path


def make_folder(folder: Path) -> None:
    """Makes a run's folder where it is missing.

    Raises:
        InputError: it cannot be made, or could hold no checkpoints.
    """
    check_orbax_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(folder, error) from None


def _cannot_be_made(folder: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):  # which another folder need not mend
        return error
    return InputError(f"the run folder {folder} cannot be made: {error.strerror or error}; use another --run-dir")


@contextmanager
def goes_on_later(folder: Path) -> Iterator[None]:
    """Raises TrainingError where the system fails the block, such as on a full disk or in a folder that is gone."""
    try:
        yield
    except BrokenPipeError:  # of our output, not of a file
        raise
    except OSError as error:
        raise TrainingError(
            f"{error.filename or folder}: {error.strerror or error}; mend that, and the same command goes on from the"
            " newest checkpoint"
        ) from error


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a run's folder while the block runs, so that no second process trains into it.

    The lock is the system's and lies on the folder itself: it leaves no file behind, and ends with the process however
    that ends.

    Raises:
        InputError: another process holds the folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process trains in {folder}; wait for it, or use another --run-dir") from None
        yield
    finally:
        os.close(handle)


def default_folder(name: str) -> Path:
    """Where a run goes that was given no folder: ``runs/NAME``.

    Raises:
        InputError: the name is not that of one folder.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise InputError(f"{name!r} cannot name a folder; use --run-dir")
    return Path("runs") / name


def changed_fields(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, by dotted name, with the old value and the new."""
    before, after = flat(old), flat(new)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def refuse_changes(old: Experiment, new: Experiment) -> None:
    """Raises InputError unless `new` continues a run of `old`: nothing changed, or `train.steps` grew.

    The time loop may change, so that a run can move between machines: all compute the same values.
    """
    changed = changed_fields(old, new)
    changed.pop("model.recurrence", None)
    if "train.steps" in changed and changed["train.steps"][1] > changed["train.steps"][0]:
        del changed["train.steps"]
    if changed:
        told = ", ".join(f"{name} was {before!r} and is {after!r}" for name, (before, after) in changed.items())
        raise InputError(
            f"the run began with another config: {one_line(told, 2000)}; only a larger train.steps can continue it,"
            " so use another --run-dir"
        )


def continued(old: Experiment, new: Experiment) -> Experiment:
    """What a run of `old` goes on with when `new` is asked for; a time loop that is "auto" leaves the run its own.

    Raises:
        InputError: as `refuse_changes`.
    """
    refuse_changes(old, new)
    open_ = new.model.recurrence == "auto"
    return replace(new, model=replace(new.model, recurrence=old.model.recurrence)) if open_ else new


def _refuse_links_out(folder: Path) -> None:
    for name in (CONFIG, VOCABULARY, CORPUS, METRICS, CHECKPOINTS, SAMPLES, TENSORBOARD):
        inside(folder, name)


def read_fingerprint(path: Path) -> Fingerprint:
    """The fingerprint in a folder's corpus.json.

    Raises:
        InputError: there is no such file, or it is malformed.
    """
    values = read_json(path)
    hints = {"corpus": str, "sha256": str, "characters": int}
    if set(values) != set(hints) or any(type(values[name]) is not hint for name, hint in hints.items()):
        raise InputError(f"{path} is malformed: it must hold {', '.join(hints)}; put back the run's own file")
    return Fingerprint(**values)


def refuse_other_text(folder: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raises InputError if a text is not the one that a folder began with."""
    if (then.sha256, then.characters) != (now.sha256, now.characters):
        raise InputError(
            f"the text of {one_line(now.corpus)} changed since {folder} began: it had {then.characters:,}"
            f" characters (SHA-256 {then.sha256[:12]}), and has {now.characters:,} ({now.sha256[:12]}); bring the"
            " old text back, or use another --run-dir"
        )
