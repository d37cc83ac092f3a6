"""Scalars become TensorBoard event files, through tensorboardX."""

from pathlib import Path
from typing import Self


class Board:
    """The writer of a run's event files; without a folder it writes nothing.

    Args:
        folder: where the files go.
        step: of the state that training goes on from; TensorBoard hides what an earlier process wrote after it.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            from tensorboardX import SummaryWriter  # protobuf takes a while to import, and it is optional

            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Values by name, at a step."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
