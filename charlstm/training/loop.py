"""The training loop: S runs that differ in their seeds alone; `train` is S = 1.

Nothing that a step depends on lives outside `TrainState` and the text. Metrics are on disk before the checkpoint that
follows them, so that a run that continues from it has the lines of all its steps.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np

from charlstm.analysis.evaluate import Evaluation, evaluate
from charlstm.analysis.sample import text_stream
from charlstm.config import Experiment
from charlstm.core.network import Model, Params
from charlstm.core.sharding import Layout, on_one
from charlstm.core.step import Metrics, TrainState
from charlstm.data.windows import Window
from charlstm.runs.folder import Run
from charlstm.runs.metrics import training_record, validation_record
from charlstm.support.errors import Interrupted
from charlstm.training.member import Member
from charlstm.training.seeds import Program
from charlstm.training.signals import Received

Callback = Callable[[int, TrainState, Metrics], object]


class Watch:
    """Hears how a training gets on. This one keeps silent; the command line's draw bars and print lines."""

    def line(self, text: str, style: str | None = None) -> None:
        """A line worth telling."""

    def begin(self, run: Run, data: Any, model: Model, step: int, layout: Layout) -> None:
        """A run is open, at a step; its first update follows."""

    def bar(self, step: int, steps: int) -> AbstractContextManager[None]:
        """Surrounds the updates from one step to another."""
        return nullcontext()

    def advance(self, step: int, loss: float, chars_per_second: float) -> None:
        """After a step: the mean loss over the runs, and the characters of all of them in a second."""

    def validated(self, run: Run, step: int, found: Evaluation) -> None:
        """A run was measured on its validation split."""

    def end(self, run: Run, data: Any, model: Model, params: Params, found: Evaluation | None, trained: bool) -> None:
        """A run has made its last update, now or (where it was not `trained`) before."""


class Loop:
    """Updates, and what is due after them. Metrics are read one call late, so that the devices never wait for the host.

    The S members have states of one step. `diverged` is called with a run whose numbers are no longer finite, and what
    was not; the others go on. Callbacks are for one run alone.
    """

    def __init__(
        self,
        members: Sequence[Member],
        program: Program,
        model: Model,
        data: Any,
        states: Sequence[TrainState],
        watch: Watch,
        diverged: Callable[[Member, str], None],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.members, self.model, self.step = members, model, int(states[0].step)
        self.validation: Evaluation | None = None
        self._program, self._data, self._watch, self._callbacks = program, data, watch, callbacks
        self._config: Experiment = members[0].run.config
        self._validation_ids = np.asarray(getattr(data, "validation", ()))
        self._cursor, self._on_diverged = int(states[0].cursor), diverged
        self._states = program.put(states)
        self._pending: tuple[int, Metrics] | None = None
        self._since = time.perf_counter()
        self._owed = [place for place in range(len(members)) if self.step > 0 and self._was_left(members[place])]
        self.was_finished = self.step >= self._config.train.steps and not self._owed

    def run(self, received: Received) -> list[TrainState]:
        """Train to the last step, or until every run has diverged, and give the states after it.

        Raises:
            Interrupted: a signal came, and everything is saved.
            TrainingError: a checkpoint cannot be written.
        """
        steps = self._config.train.steps
        with self._watch.bar(self.step, steps):
            self._since = time.perf_counter()
            if self._owed:
                self._do_what_is_due(self._owed, received)
                self._owed = []
            stream: Iterator[Window] = iter(self._data.train.windows(self._cursor))
            windows = self._program.put_windows(stream) if self.step < steps else None
            while self.step < steps and self._steady():
                if windows is None:
                    raise ValueError(f"the data ended after {self._cursor:,} windows, and training takes {steps:,}")
                self._states, metrics = self._program.update(self._states, windows)
                self.step, self._cursor = self.step + self._program.chunk, self._cursor + self._program.chunk
                # The next windows are on their way while the devices still work on these.
                windows = self._program.put_windows(stream) if self.step < steps else None
                self._drain()
                self._pending = self.step, metrics
                for callback in self._callbacks:
                    callback(self.step, self._states, metrics)
                if received:
                    self._stop(received)
                self._do_what_is_due(self._steady(), received)
            self._drain()
            for member in self.members:
                member.checkpoints.wait()  # while a signal still waits for it
        return self._program.take(self._states)

    def _steady(self) -> list[int]:
        return [place for place, member in enumerate(self.members) if member.diverged_after is None]

    def _due(self) -> tuple[bool, bool, bool]:
        """Whether a sample, a validation and a checkpoint are due after this step, in this order."""
        train, last = self._config.train, self.step == self._config.train.steps
        validates = len(self._validation_ids) > 0 and (last or _is_due(self.step, train.validate_every))
        return _is_due(self.step, train.sample_every), validates, last or _is_due(self.step, train.checkpoint_every)

    def _was_left(self, member: Member) -> bool:
        """Whether a signal stopped the run at this step before all that was due after it was done."""
        samples, validates, _ = self._due()
        if validates:  # which comes last
            return all(record["step"] != self.step for record in member.validations)
        return samples and not member.run.sample(self.step).exists()

    def _do_what_is_due(self, places: Sequence[int], received: Received) -> None:
        samples_due, validates, saves = self._due()
        if not (samples_due or validates or saves):
            return
        self._drain()
        places = [place for place in places if self.members[place].diverged_after is None]
        states, samples, found = self._program.take(self._states), dict[int, str](), dict[int, Evaluation]()
        # A signal need not wait for what changes nothing; the run does it first of all when it goes on.
        for place in places:
            run, params = self.members[place].run, states[place].params
            if samples_due and (text := received.unless(partial(sample_of, run, self.model, params))) is not None:
                samples[place] = text
            if validates and (each := received.unless(partial(evaluate, self.model, params, self._validation_ids))):
                found[place] = each
        for place, text in samples.items():
            self.members[place].run.write_sample(self.step, text)
        if received:
            self._stop(received)
        improved = [self._record_validation(self.members[place], each) for place, each in found.items()]
        if self.step == self._config.train.steps:
            self._check_last(places, states)
        if saves or any(improved):
            for place in places:
                if self.members[place].diverged_after is None:
                    self._save(place, states[place], found.get(place))
        self._since = time.perf_counter()

    def _record_validation(self, member: Member, found: Evaluation) -> bool:
        """Writes a run's validation loss, and says whether it is the lowest so far."""
        if not math.isfinite(found.loss):
            self._diverge(member, self.step, f"the validation loss is not finite at step {self.step:,}")
            return False
        self.validation = found
        member.metrics.append(record := validation_record(self.step, found.loss))
        member.tensorboard.add(self.step, {f"validation/{name}": record[name] for name in ("loss", "bits_per_char")})
        self._watch.validated(member.run, self.step, found)
        improved, member.best = found.loss < member.best, min(found.loss, member.best)
        return improved

    def _check_last(self, places: Sequence[int], states: Sequence[TrainState]) -> None:
        """The last update has no next one to show that it went wrong."""
        for place in places:
            member, leaves = self.members[place], jax.device_get(jax.tree.leaves(states[place].params))
            if member.diverged_after is None and not all(np.isfinite(leaf).all() for leaf in leaves):
                self._diverge(member, self.step, f"the parameters are not finite after step {self.step:,}")

    def _save(self, place: int, state: TrainState, found: Evaluation | None = None) -> None:
        """The metrics first; of a step that is on disk already, its loss first: its line says that nothing is owed."""
        member, loss = self.members[place], None if found is None else found.loss
        if place not in self._owed:
            member.metrics.flush()
        member.checkpoints.save(self.step, state, loss, devices=self._program.row_devices)
        if place in self._owed:
            member.metrics.flush()

    def _drain(self) -> None:
        """Waits for the metrics of the call before, and writes them."""
        if self._pending is None:
            return
        (last, metrics), self._pending = self._pending, None
        chunk, runs, data = self._program.chunk, len(self.members), self._config.data
        # A program with fillers has more rows than runs.
        losses, norms, *rates = (np.asarray(each, np.float64).reshape(-1, chunk) for each in jax.tree.leaves(metrics))
        windows, now = getattr(self._data.train, "windows_per_epoch", None), time.perf_counter()
        speed, self._since = chunk * data.batch_size * data.seq_length / (now - self._since), now
        for place, member in enumerate(self.members):
            for at in range(chunk):
                step, loss, norm = last - chunk + 1 + at, float(losses[place, at]), float(norms[place, at])
                if member.diverged_after is not None:
                    break
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    what = "gradient" if math.isfinite(loss) else "loss"
                    self._diverge(member, step - 1, f"the {what} is not finite at step {step:,}")
                    break
                rate = float(rates[0][place, at]) if rates else None
                epoch = windows and (self._cursor - self.step + step) / windows
                record = training_record(step, epoch, loss, norm, rate, speed)
                member.metrics.append(record)
                scalars = {f"train/{name}": value for name, value in record.items() if name != "step"}
                member.tensorboard.add(step, scalars)
        if steady := self._steady():
            self._watch.advance(last, float(losses[steady, -1].mean()), speed * runs)

    def _diverge(self, member: Member, step: int, what: str) -> None:
        member.diverged_after = step
        self._on_diverged(member, what)

    def _stop(self, received: Received) -> NoReturn:
        self._drain()
        states = self._program.take(self._states)
        for place in self._steady():
            self._save(place, states[place])
        for member in self.members:
            member.checkpoints.wait()
        raise Interrupted(received[0], self.step)


def sample_of(run: Run, model: Model, params: Params) -> str:
    """A text as the run's own config asks for it; characters of the prime that the vocabulary lacks are left out."""
    pieces = text_stream(
        model, on_one(params), run.vocabulary, run.config.data.symbols, run.config.sample, skip_unknown=True
    )
    return "".join(pieces)


def _is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps, or never for 0, happens after this one."""
    return every > 0 and step % every == 0
