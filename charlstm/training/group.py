"""The loop of `train`, for several seeds of one model together.

A group that was stopped or killed goes on from its newest checkpoint, as a run does. A run whose loss is no longer
finite has diverged: its metrics end there, and the others go on.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charlstm.analysis.evaluate import evaluate
from charlstm.cli import summary
from charlstm.core.size import name_of
from charlstm.core.step import Metrics, TrainState
from charlstm.data.windows import Batches
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Run
from charlstm.runs.metrics import Metrics as MetricsFile
from charlstm.runs.metrics import best_loss, training_record, validation_record
from charlstm.runs.tensorboard import Board
from charlstm.support.errors import InputError, Interrupted
from charlstm.training.begin import Text
from charlstm.training.seeds import Together, keep_better, unstacked
from charlstm.training.train import due, sampled


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
    """What a group's checkpoint holds, stacked; it has no fillers there, so that other devices can go on from it."""

    now: TrainState
    best: TrainState
    """Of each run when its validation loss was lowest; its first state while there is none."""
    diverged: Array
    """[S] int32, the last step whose loss was finite; -1 of a run that has not diverged."""
    devices: Array
    """[] int32, how many shared the rows of a run."""


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
        self._name = name_of(self._config.model)
        self.step = 0
        self.diverged: dict[int, int] = {}

    def train(self, received: Sequence[int], watch: Watch) -> tuple[TrainState, TrainState]:
        """Goes on to the last step, or until no run is left.

        Args:
            received: gets a signal's number when it is time to save and stop.
            watch: is told.

        Returns:
            The stacked states after it, and those with the lowest validation loss.

        Raises:
            Interrupted: it was, and everything is saved.
            TrainingError: a checkpoint cannot be written.
        """
        now, best = self._restore(watch)
        steps, update = self._config.train.steps, self._together.make_steps()
        pending, windows, self._since = None, self._together.windows(self._batches, self.step), time.perf_counter()
        while self.step < steps and len(self.diverged) < len(self._members):
            now, metrics = update(now, windows)
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
                    best = self._validate(now, best, watch)
                if samples:
                    self._sample(now)
                if self.step == steps:
                    self._lose_those_without_numbers(now, watch)
                if saves or received or self.step == steps:
                    self._save(now, best)
                if received:
                    self._checkpoints.wait()
                    raise Interrupted(received[0], self.step, self._name)
                self._since = time.perf_counter()
        self._drain(pending, watch)
        return now, best

    def _restore(self, watch: Watch) -> tuple[TrainState, TrainState]:
        try:
            restored = self._checkpoints.restore_newest(jax.eval_shape(self._first))
        except InputError as error:  # training is a function of the config, so nothing but time is lost
            watch.line(f"{error}; its seeds begin again", "yellow")
            restored = None
        if restored is None:
            now, best = self._first()[:2]
        else:
            for note in restored.notes:
                watch.line(note, "yellow")
            self.step = restored.step
            now, best, diverged, devices = restored.state
            self.diverged = {place: int(step) for place, step in enumerate(diverged) if step >= 0}
            if int(devices) != self._together.row_devices:
                watch.line(summary.other_devices(self.step, int(devices), self._together.row_devices), "yellow")
        self._losses = [best_loss(member.metrics.truncate_after(self.step)) for member in self._members]
        return self._together.put(now), self._together.put(best)

    def _first(self) -> States:
        now = self._together.initial()
        none = jnp.full(len(self._members), -1, jnp.int32)
        return States(now, jax.tree.map(jnp.copy, now), none, jnp.int32(self._together.row_devices))

    def _drain(self, metrics: Metrics | None, watch: Watch) -> None:
        """Writes the metrics of the K updates up to this step."""
        if metrics is None:
            return
        losses, norms, rates = (np.asarray(each, np.float64) for each in metrics)
        chunk, data, now = losses.shape[1], self._config.data, time.perf_counter()
        speed, self._since = chunk * data.batch_size * data.seq_length / (now - self._since), now
        for place, member in self._steady():
            for at in range(chunk):
                step = self.step - chunk + at + 1
                loss, norm = float(losses[place, at]), float(norms[place, at])
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    self._lose(place, step - 1, watch)
                    break
                record = training_record(step, self._batches.epoch(step), loss, norm, float(rates[place, at]), speed)
                member.metrics.append(record)
                member.board.add(step, {f"train/{name}": value for name, value in record.items() if name != "step"})
        if steady := [place for place, _ in self._steady()]:
            watch.advance(self.step, float(losses[steady, -1].mean()), speed * len(self._members))

    def _validate(self, now: TrainState, best: TrainState, watch: Watch) -> TrainState:
        """Measures each run, and gives the best states with those that are better now."""
        if not len(self._text.splits.validation):
            return best
        better, params = np.zeros(self._together.stacked, bool), self._unstacked(now.params)
        for place, member in self._steady():
            loss = evaluate(self._together.model, params[place], self._text.splits.validation).loss
            if not math.isfinite(loss):
                self._lose(place, self.step, watch)
                continue
            member.metrics.append(record := validation_record(self.step, loss))
            member.board.add(self.step, {f"validation/{name}": record[name] for name in ("loss", "bits_per_char")})
            better[place], self._losses[place] = loss < self._losses[place], min(loss, self._losses[place])
        return keep_better(best, now, jnp.asarray(better))

    def _steady(self) -> list[tuple[int, Member]]:
        """The runs that have not diverged, and their places."""
        return [(place, member) for place, member in enumerate(self._members) if place not in self.diverged]

    def _lose(self, place: int, step: int, watch: Watch) -> None:
        self.diverged[place] = step
        seed = self._members[place].run.config.seed
        watch.line(f"{self._name}: seed {seed} diverged; its numbers are not finite after step {step:,}", "yellow")

    def _lose_those_without_numbers(self, now: TrainState, watch: Watch) -> None:
        """The last update has no next one to show that it went wrong."""
        params = self._unstacked(now.params)
        for place, _ in self._steady():
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params[place])):
                self._lose(place, self.step, watch)

    def _sample(self, now: TrainState) -> None:
        params = self._unstacked(now.params)
        for place, member in self._steady():
            member.run.write_sample(self.step, sampled(member.run, self._together.model, params[place]))

    def _unstacked(self, states: Any) -> list[Any]:
        return unstacked(states, len(self._members))

    def _save(self, now: TrainState, best: TrainState) -> None:
        for member in self._members:
            member.metrics.flush()
        diverged = jnp.array([self.diverged.get(place, -1) for place in range(len(self._members))], jnp.int32)
        devices = jnp.int32(self._together.row_devices)
        states = States(self._together.real(now), self._together.real(best), diverged, devices)
        self._checkpoints.save(self.step, states)
