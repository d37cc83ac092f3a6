"""Scalars as TensorBoard event files, through tensorboardX."""

import socket
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """Writes a run's event files, in the caller's thread; without a folder it writes nothing.

    Training continues from `step`; TensorBoard hides what an earlier process wrote after it. tensorboardX's own writers
    have a thread that dies on a full disk, and `close` waits for it forever (2.6.5; cf. tensorflow/tensorboard#6167).
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            from tensorboardX import RecordWriter  # imports protobuf, which takes a while
            from tensorboardX.proto import event_pb2
            from tensorboardX.summary import scalar

            folder.mkdir(exist_ok=True)
            proto: Any = event_pb2  # protobuf makes its names on import
            self._event, self._scalar = proto.Event, scalar
            # TensorBoard reads the files in order of their names, whatever the clock says. The path is absolute since
            # tensorboardX takes what comes before a colon for a kind of store.
            names = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
            numbers = [int(name) for name in names if name.isdecimal() and len(name) < 20]
            number = max(time.time_ns(), *(1 + each for each in numbers), 0)
            name = f"events.out.tfevents.{number}.{socket.gethostname()}"
            self._writer = RecordWriter(str(folder.absolute() / name))
            self._write(step + 1, file_version="brain.Event:2")
            self._write(step + 1, session_log=proto.SessionLog(status=proto.SessionLog.START))

    def add(self, step: int, scalars: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._write(step, summary=self._scalar(name, value))

    def _write(self, step: int, **content: Any) -> None:
        assert self._writer is not None
        self._writer.write(self._event(step=step, wall_time=time.time(), **content).SerializeToString())

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            try:
                self._writer.flush()
            finally:
                with suppress(OSError):  # the flush has raised it, and this frees the file all the same
                    self._writer.close()
