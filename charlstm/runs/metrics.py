"""metrics.jsonl: a JSON object a line, each with its whole-number "step"; and the same numbers for TensorBoard."""

import itertools
import json
import math
import os
import socket
import statistics
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from charlstm.runs.folder import Run
from charlstm.support.errors import InputError
from charlstm.support.files import number, one_line, write_atomic
from charlstm.support.process import memory

_LONGEST = 2**12
"""Bytes of a line at most; those that are written have about 200."""
_BUFFER = 2**20
"""Bytes of a buffer, more than a second fills, so that who reads a file that grows sees whole lines and events."""
_IN_MEMORY = 600
"""Bytes that a record takes in memory; a quarter of it is left to all of them."""


class Metrics(AbstractContextManager["Metrics"]):
    """Writes a metrics.jsonl from the line after `step` on; lines of later steps and a torn last one are dropped.

    Lines are buffered: `show` lets others read them. Flush before a checkpoint, so that those up to its step are there.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.validations = list[tuple[int, float]]()
        """Steps and losses."""
        stat, kept = path.stat() if path.exists() else None, list[bytes]()
        for line, record in _records(path) if stat else ():
            if record["step"] <= step:
                kept.append(line)
                if "split" in record:
                    self.validations.append((record["step"], finite(record.get("loss"))))
        # A run that was copied as hard links has files that are the other run's too.
        if stat and (sum(map(len, kept)) < stat.st_size or stat.st_nlink > 1):
            write_atomic(path, b"".join(kept))
        self._path, self._file = path, None  # a finished run may be read-only
        # By its descriptor, the folder stays the one that was opened; a link that is put there later is an error.
        self._folder = os.open(path.parent, os.O_RDONLY) if os.open in os.supports_dir_fd else None
        self._flags = 0 if path.is_symlink() else getattr(os, "O_NOFOLLOW", 0)

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line; raises ValueError where a value is NaN or infinite."""
        if not self._file:
            path = self._path if self._folder is None else self._path.name
            self._file = open(path, "ab", _BUFFER, opener=self._open)  # noqa: SIM115
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        if "split" in record:
            self.validations.append((record["step"], record["loss"]))

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return min((loss for _, loss in self.validations), default=math.inf)

    def show(self) -> None:
        """Lets others read every line; a crash of the system may still lose it."""
        if self._file:
            self._file.flush()

    def flush(self) -> None:
        """Returns once every line is on the disk."""
        if self._file:
            _sync(self._file)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | self._flags, 0o666, dir_fd=self._folder)

    def __exit__(self, *_: object) -> None:
        try:
            if self._file:
                _close(self._file)
        finally:
            if self._folder is not None:
                os.close(self._folder)
                self._folder = None


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """Writes a run's event files, in the caller's thread.

    Training continues from `step`; TensorBoard hides what an earlier process wrote after it. tensorboardX's own writers
    have a thread that dies on a full disk, and `close` waits for it forever (2.6.5; cf. tensorflow/tensorboard#6167).
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.proto import event_pb2  # imports protobuf, which takes a while
        from tensorboardX.record_writer import masked_crc32c
        from tensorboardX.summary import scalar

        folder.mkdir(exist_ok=True)
        proto: Any = event_pb2  # protobuf makes its names on import
        self._event, self._scalar, self._crc = proto.Event, scalar, masked_crc32c
        # TensorBoard reads the files in order of their names, whatever the clock says.
        names = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
        numbers = [int(name) for name in names if name.isdecimal() and len(name) < 20]
        number = max(time.time_ns(), *(1 + each for each in numbers), 0)
        self._file = (folder / f"events.out.tfevents.{number}.{socket.gethostname()}").open("xb", _BUFFER)
        self._write(step + 1, file_version="brain.Event:2")
        self._write(step + 1, session_log=proto.SessionLog(status=proto.SessionLog.START))

    def add(self, record: dict[str, Any]) -> None:
        """Writes the numbers of a line of metrics, as train/loss or validation/loss."""
        for name, value in record.items():
            if name not in ("step", "split"):
                self._write(record["step"], summary=self._scalar(f"{record.get('split', 'train')}/{name}", value))

    def _write(self, step: int, **content: Any) -> None:
        data = self._event(step=step, wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(data))  # a TFRecord
        self._file.write(b"".join(part + struct.pack("<I", self._crc(part)) for part in (length, data)))

    def show(self) -> None:
        """Lets others read every event."""
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        _close(self._file)


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, in order; none without the file. A torn last line is left out.

    Raises InputError for a line that is not a JSON object with a step, and where memory is too small for them.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    found, most = list[dict[str, Any]](), memory() // (4 * _IN_MEMORY)
    for _, record in _records(path):
        if len(found) == most:
            raise InputError(f"{path} has over {most:,} lines, and this machine has too little memory for its records")
        found.append(record)
    return found


def last_step(path: Path) -> float:
    """The largest step in the last lines; infinite without any, as a program saves, or where one is malformed."""
    if not path.is_file():
        return math.inf
    with path.open("rb") as file:
        start = file.seek(max(path.stat().st_size - 2 * _LONGEST, 0))
        lines = file.read().split(b"\n")[1 if start else 0 : -1]
    try:
        return max((int(from_json(line)["step"]) for line in lines), default=math.inf)
    except (LookupError, TypeError, ValueError):  # reading all of it says which line is malformed
        return math.inf


def ended_early(run: Run, validations: Sequence[tuple[float, float]], step: int) -> str:
    """A line about a run that `train.patience` ends at a step, given the steps and losses of its validations; or "".

    Whoever changes `train.steps` asks for more, so the validations are counted anew from there.
    """
    if not (train := run.config.train).patience:  # a loop asks before each step
        return ""
    asked = [each.step for each in run.changes if each.field == "train.steps"]
    best = min(validations, key=lambda each: each[1], default=(0, 0))[0]
    if not train.patience <= sum(each > max(best, *asked, 0) for each, _ in validations) or step >= train.steps:
        return ""
    ended = f"it ended early, after step {step:,} of {train.steps:,}"
    return f"{ended}: {train.patience} validations in a row were no better than that of step {int(best):,}"


def finite(value: object) -> float:
    """A number of a record; raises InputError if it is none, or beyond float32, in which everything is measured."""
    if (found := number(value)) is not None:
        return found
    raise InputError(f"a line of metrics holds {one_line(repr(value), 40)} where a finite number belongs; delete it")


def time_taken(records: Sequence[dict[str, Any]], symbols: int) -> tuple[float | None, float | None]:
    """The seconds that updates of so many symbols took, and the median speed; None where a line has no speed."""
    speeds = [record.get("chars_per_second") for record in records if "split" not in record]
    known = [found for speed in speeds if (found := number(speed)) is not None and found > 0]
    if not known or len(known) < len(speeds):
        return None, None
    seconds = sum(symbols / speed for speed in known)
    return (seconds, statistics.median(known)) if 0 < seconds < math.inf else (None, None)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _close(file: BinaryIO) -> None:
    try:
        _sync(file)
    finally:
        with suppress(OSError):  # which the line above has raised; this frees the file all the same
            file.close()


def _records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each complete line, with its newline, and its record."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; move it away")
    with path.open("rb") as file:
        for place in itertools.count(1):
            line = file.readline(_LONGEST)
            if not line.endswith(b"\n"):
                if len(line) == _LONGEST:
                    raise InputError(f"line {place} of {path} has more than {_LONGEST:,} bytes; delete that line")
                return
            try:
                record = from_json(line, allow_inf_nan=False)  # there may be millions
            except ValueError as error:
                raise InputError(f"line {place} of {path} is not JSON: {one_line(error)}; delete that line") from None
            step = record.get("step") if isinstance(record, dict) else None
            if type(step) is not int or not 0 <= step < 2**63:
                raise InputError(f"line {place} of {path} is no JSON object with a whole-number step; delete that line")
            yield line, record
