"""The loop of `train`, for several seeds of one model together.

A group that was stopped or killed goes on from its newest checkpoint, as a run does. A run whose loss is no longer
finite has diverged: its metrics end there, and the others go on.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.batches import Batches
from charlstm.begin import Text
from charlstm.board import Board
from charlstm.checkpoint import Checkpoints
from charlstm.errors import Interrupted
from charlstm.evaluate import evaluate
from charlstm.metrics import Metrics as MetricsFile
from charlstm.metrics import best_loss, read, training_record, validation_record
from charlstm.runs import Run
from charlstm.seeds import Together, keep_better, take
from charlstm.step import Metrics, TrainState
from charlstm.train import due, sampled


class Watch(Protocol):
    """Who is told how a group gets on."""

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        """After a step: the mean loss over the runs, and the characters of all of them in a second."""
        ...

    def line(self, text: str, style: str | None = None) -> None:
        """A line worth telling."""
        ...


class Member(NamedTuple):
    """One run of a group."""

    run: Run
    metrics: MetricsFile
    board: Board


class States(NamedTuple):
    """What a group's checkpoint holds, each stacked."""

    now: TrainState
    best: TrainState
    """Of each run when its validation loss was lowest; its first state while there is none."""


class Group:
    """Runs that train together.

    Args:
        together: their configs.
        members: their folders.
        text: what they read.
        checkpoints: of all their states.

    Attributes:
        step: updates done.
        diverged: the last step whose loss was finite, for each run that diverged, by its place in the group.
    """

    def __init__(self, together: Together, members: Sequence[Member], text: Text, checkpoints: Checkpoints) -> None:
        self._together, self._members, self._text, self._checkpoints = together, members, text, checkpoints
        self._config = together.configs[0]
        self._batches = Batches(text.splits.train, self._config.data.batch_size, self._config.data.seq_length)
        self.step = 0
        self.diverged: dict[int, int] = {}

    def train(self, received: Sequence[int], watch: Watch) -> States:
        """Goes on to the last step, or until no run is left.

        Args:
            received: gets a signal's number when it is time to save and stop.
            watch: is told.

        Raises:
            Interrupted: it was, and everything is saved.
            TrainingError: a checkpoint cannot be written.
        """
        states = self._restore(watch)
        steps, update = self._config.train.steps, self._together.make_steps()
        self._losses = [best_loss(member.run.folder) for member in self._members]
        pending, windows, self._since = None, self._together.windows(self._batches, self.step), time.perf_counter()
        while self.step < steps and len(self.diverged) < len(self._members):
            now, metrics = update(states.now, windows)
            states = states._replace(now=now)
            self._drain(pending, watch)
            self.step += self._together.chunk
            windows = self._together.windows(self._batches, self.step)
            pending = metrics
            train = self._config.train
            validates = due(self.step, train.validate_every) or self.step == steps
            saves, samples = due(self.step, train.checkpoint_every), due(self.step, train.sample_every)
            if validates or saves or samples or received:
                self._drain(pending, watch)
                pending = None
                if validates:
                    states = states._replace(best=self._validate(states))
                if samples:
                    self._sample(states)
                if saves or received or self.step == steps:
                    self._save(states)
                if received:
                    self._checkpoints.wait()
                    raise Interrupted(received[0], self.step)
                self._since = time.perf_counter()
        self._drain(pending, watch)
        return states

    def _restore(self, watch: Watch) -> States:
        if not self._checkpoints.steps():
            states = self._together.initial()
            for member in self._members:
                member.metrics.truncate_after(0)
            return States(states, jax.tree.map(jnp.copy, states))
        like = jax.eval_shape(lambda: States(*[self._together.initial()] * 2))
        restored = self._checkpoints.restore_newest(like)
        assert restored is not None  # there are checkpoints, and were none of them whole, it would have raised
        for note in restored.notes:
            watch.line(note, "yellow")
        self.step = restored.step
        for number, member in enumerate(self._members):
            member.metrics.truncate_after(self.step)
            last = max((each["step"] for each in read(member.run.folder) if "split" not in each), default=0)
            if last < self.step:
                self.diverged[number] = last
        return States(*map(self._together.put, restored.state))

    def _drain(self, metrics: Metrics | None, watch: Watch) -> None:
        """Writes the metrics of the K updates up to this step."""
        if metrics is None:
            return
        losses, norms, rates = (np.asarray(each, np.float64) for each in metrics)
        chunk, data, now = losses.shape[1], self._config.data, time.perf_counter()
        speed, self._since = chunk * data.batch_size * data.seq_length / (now - self._since), now
        for number, member in enumerate(self._members):
            if number in self.diverged:
                continue
            for at in range(chunk):
                step = self.step - chunk + at + 1
                loss, norm = losses[number, at], norms[number, at]
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    self._lost(number, step - 1, watch)
                    break
                epoch = self._batches.epoch(step)
                record = training_record(step, epoch, float(loss), float(norm), float(rates[number, at]), speed)
                member.metrics.append(record)
                member.board.add(step, {f"train/{name}": value for name, value in record.items() if name != "step"})
        alive = [number for number in range(len(self._members)) if number not in self.diverged]
        if alive:
            watch.advance(self.step, float(losses[alive, -1].mean()), speed * len(self._members))

    def _validate(self, states: States) -> TrainState:
        """Measures each run, and gives the best states with those that are better now."""
        if not len(self._text.splits.validation):
            return states.best
        better = np.zeros(self._together.stacked, bool)
        for number, member in enumerate(self._members):
            if number in self.diverged:
                continue
            loss = evaluate(self._together.model, take(states.now.params, number), self._text.splits.validation).loss
            if not math.isfinite(loss):
                continue  # it is no better, and if it has diverged, its next update will show that
            member.metrics.append(record := validation_record(self.step, loss))
            member.board.add(self.step, {f"validation/{name}": record[name] for name in ("loss", "bits_per_char")})
            better[number], self._losses[number] = loss < self._losses[number], min(loss, self._losses[number])
        return keep_better(states.best, states.now, jnp.asarray(better))

    def _lost(self, number: int, step: int, watch: Watch) -> None:
        self.diverged[number] = step
        seed = self._members[number].run.config.seed
        watch.line(f"seed {seed} diverged: after step {step:,} its loss or gradient is not finite", "yellow")

    def _sample(self, states: States) -> None:
        for number, member in enumerate(self._members):
            if number not in self.diverged:
                params = take(states.now.params, number)
                member.run.write_sample(self.step, sampled(member.run, self._together.model, params))

    def _save(self, states: States) -> None:
        for member in self._members:
            member.metrics.flush()
        self._checkpoints.save(self.step, states)
