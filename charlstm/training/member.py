"""One of the runs that train together: its files, open, and the state that it goes on from."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import jax

from charlstm.core.step import TrainState
from charlstm.runs.checkpoint import Checkpoints, Restored
from charlstm.runs.folder import CHECKPOINTS, METRICS, TENSORBOARD, Run
from charlstm.runs.metrics import Metrics, TensorBoard, last_step
from charlstm.support.errors import InputError
from charlstm.support.files import move_aside, one_line


@dataclass
class Member:
    """A run whose files are open."""

    run: Run
    checkpoints: Checkpoints
    metrics: Metrics
    tensorboard: TensorBoard | None
    diverged_after: int | None = None
    """The last step whose numbers were finite, of a run whose later ones are not."""

    def write(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics."""
        self.metrics.append(record)
        if self.tensorboard:
            self.tensorboard.add(record)

    def show(self) -> None:
        """Lets others read all that was written."""
        self.metrics.show()
        if self.tensorboard:
            self.tensorboard.show()


def open_member(
    run: Run,
    first: Callable[[], TrainState],
    devices: int,
    line: Callable[..., None],
    stack: ExitStack,
    *,
    restart: bool = False,
) -> tuple[Member, TrainState]:
    """Opens a run's files until `stack` closes them, and restores its newest checkpoint that can be used.

    Args:
        first: makes the state before the first update.
        devices: how many will share the rows of a batch.
        line: is told what is odd about the checkpoints.
        restart: begin again where there are checkpoints and none can be used, instead of raising InputError.
    """
    train, restored = run.config.train, None
    folder = run.folder / CHECKPOINTS
    checkpoints = stack.enter_context(Checkpoints(folder, train.keep_checkpoints, run=run.id))
    last = last_step(run.folder / METRICS)
    try:
        restored = checkpoints.restore_newest(jax.eval_shape(first), last) if checkpoints.steps() else None
    except InputError as error:
        if not restart:
            raise
        line(f"{error}; it begins again", "yellow")
    _, state, notes, before = restored or Restored(0, first(), (), None)
    step = int(state.step)
    if restored and restored.step != step:
        raise InputError(f"checkpoint {restored.step} in {folder} holds the state after step {step}; move it away")
    for note in notes:
        line(note, "yellow")
    if before and before != devices and not train.deterministic_sums:
        line(
            f"up to step {step:,} this run had {before} device{'s' if before > 1 else ''}, and now it has {devices}:"
            " its losses agree with those of an unbroken run to about 1e-5, not to the bit",
            "yellow",
        )
    if not restored and last < math.inf:
        aside = one_line(move_aside(run.folder / METRICS))
        line(f"there is no checkpoint to go on from, so it begins again; its metrics are now {aside}", "yellow")
    metrics = stack.enter_context(Metrics(run.folder / METRICS, step))
    if restored and step in (losses := dict(metrics.validations)):  # a kill may have come between the two
        checkpoints.record_loss(step, losses[step])
    board = stack.enter_context(TensorBoard(run.folder / TENSORBOARD, step)) if train.tensorboard else None
    return Member(run, checkpoints, metrics, board), state
