"""Scalars become TensorBoard event files, through tensorboardX."""

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Board:
    """The writer of a run's event files; without a folder it writes nothing.

    It writes in the caller's thread. tensorboardX's own SummaryWriter does it in another: on a full disk that one dies
    with a traceback, and the program then waits for it for good.

    Args:
        folder: where the files go.
        step: of the state that training goes on from; TensorBoard hides what an earlier process wrote after it.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            # protobuf takes a while to import, and it is optional
            from tensorboardX import RecordWriter
            from tensorboardX.proto import event_pb2
            from tensorboardX.summary import scalar

            folder.mkdir(exist_ok=True)
            proto: Any = event_pb2  # whose names protobuf makes when it is imported
            self._event, self._scalar = proto.Event, scalar
            # TensorBoard reads all files of the folder in the order of their names, so a clock that jumped back may not
            # give the number. The path is absolute: tensorboardX takes what is before a colon for a kind of store.
            number = max([time.time_ns(), *(1 + number for number in _numbers(folder))])
            path = folder.absolute() / f"events.out.tfevents.{number}.{socket.gethostname()}"
            self._writer = RecordWriter(str(path))
            self._write(step + 1, file_version="brain.Event:2")
            self._write(step + 1, session_log=proto.SessionLog(status=proto.SessionLog.START))

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Values by name, at a step."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._write(step, summary=self._scalar(name, value))

    def _write(self, step: int, **content: Any) -> None:
        assert self._writer is not None
        self._writer.write(self._event(step=step, wall_time=time.time(), **content).SerializeToString())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            try:
                self._writer.flush()
            finally:
                with suppress(OSError):  # the flush has raised it, and this frees the file all the same
                    self._writer.close()


def _numbers(folder: Path) -> list[int]:
    """Of the event files that are there."""
    names = [path.name.split(".") for path in folder.glob("events.out.tfevents.*")]
    return [int(parts[3]) for parts in names if parts[3].isdecimal() and len(parts[3]) < 20]
