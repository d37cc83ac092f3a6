"""The training loop: S runs that differ in their seeds alone; `train` is S = 1.

Nothing that a step depends on lives outside `TrainState` and the text. Metrics are on disk before the checkpoint that
follows them, so that a run that continues from it has the lines of all its steps.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax
import numpy as np

from charlstm.analysis.evaluate import Evaluation, evaluate
from charlstm.config import Experiment
from charlstm.core.loss import bits
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.step import Metrics, TrainState
from charlstm.data.windows import Window
from charlstm.runs.folder import SAMPLES, Run, as_training_errors
from charlstm.runs.loading import TrainedRun
from charlstm.runs.metrics import ended_early
from charlstm.support.clock import Clock
from charlstm.training.member import Member
from charlstm.training.peers import Peers
from charlstm.training.seeds import Program
from charlstm.training.signals import Received

Callback = Callable[[int, TrainState, Metrics], object]
_LIVE = 1.0
"""Seconds after which others can read what was written."""


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

    def end(self, run: TrainedRun, data: Any, found: Evaluation | None, trained: bool) -> None:
        """A run has made its last update, now or (where it was not `trained`) before; `found` is of its best step."""


class Loop:
    """Updates, and what is due after them. Metrics are read one call late, so that no fast device waits for the host.

    The S members have states of one step. `diverged` is called with a run whose numbers are no longer finite, and what
    was not; the others go on. Callbacks are for one run alone, and so are `peers`, of whom only the leader has files.
    """

    def __init__(
        self,
        members: Sequence[Member],
        program: Program,
        data: Any,
        states: Sequence[TrainState],
        watch: Watch,
        diverged: Callable[[Member, str], None],
        callbacks: Sequence[Callback] = (),
        peers: Peers | None = None,
    ) -> None:
        self.members, self.step, self._peers = members, int(states[0].step), peers or Peers(Received())
        self._program, self._data, self._watch, self._callbacks = program, data, watch, callbacks
        self._config: Experiment = members[0].run.config
        self._validation_ids = np.asarray(getattr(data, "validation", ()))
        self._cursor, self._on_diverged = int(states[0].cursor), diverged
        self._states = program.put(states)
        self._pending: tuple[int, Metrics] | None = None
        self._clock, self._shown = Clock(), -math.inf
        self._saved = self.step
        # Earlier versions let a signal leave what was due after a step for later.
        with self._turn() as told:
            if self._peers.leads:
                left = [place for place, member in enumerate(members) if self.step > 0 and self._was_left(member)]
                told.update(left=left)
        self._left: list[int] = told["left"]
        self.was_finished = not self._left and (self.step >= self._config.train.steps or bool(self.early))

    def run(self, received: Received) -> list[TrainState]:
        """Train to the last step, until every run has diverged or patience ends, and give the states after it.

        Raises:
            Interrupted: a signal came, and everything is saved.
            TrainingError: a checkpoint cannot be written.
        """
        steps = self._config.train.steps
        with self._watch.bar(self.step, steps), self._clock:
            looked = self._since = self._clock()
            self._stop_if(received)
            self._do_what_is_due(self._left)
            stream: Iterator[Window] = self._program.windows(self._data.train, self._cursor)
            windows = self._program.put_windows(stream) if self.step < steps else None
            while self.step < steps and self._steady() and not self.early:
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
                before, looked = looked, self._clock()
                self._peers.took(looked - before)
                if self._peers.slow:
                    self._drain()
                self._do_what_is_due(self._steady())
                self._stop_if(received)
            self._drain()
            with self._turn():
                self._wait()  # while a signal still waits for it
        return self._program.take(self._states)

    @contextmanager
    def _turn(self) -> Iterator[dict[str, Any]]:
        """Surrounds what the leader alone does with its files, and tells the others what came of it."""
        with self._peers.turn() as told, as_training_errors(self.members[0].run.folder):
            yield told
            if self._peers.leads:
                told.update(early=self._ended_early(), saved=self._saved)
        self.early: str = told["early"]
        """Why training stops before its last step, where `train.patience` says so: a function of what is on disk."""
        self._saved = told["saved"]

    def _ended_early(self) -> str:
        return ended_early(self.members[0].run, self.members[0].metrics.validations, self.step)

    @property
    def validation(self) -> Evaluation | None:
        """The lowest loss so far of a single run, if there is one."""
        best = self.members[0].metrics.best
        return Evaluation(best, len(self._validation_ids)) if math.isfinite(best) else None

    def _steady(self) -> list[int]:
        return [place for place, member in enumerate(self.members) if member.diverged_after is None]

    def _due(self) -> tuple[bool, bool, bool]:
        """Whether a sample, a validation and a checkpoint are due after this step."""
        train, last = self._config.train, self.step == self._config.train.steps
        validates = len(self._validation_ids) > 0 and (last or _is_due(self.step, train.validate_every))
        return _is_due(self.step, train.sample_every), validates, last or _is_due(self.step, train.checkpoint_every)

    def _was_left(self, member: Member) -> bool:
        samples, validates, _ = self._due()
        if validates:  # which comes last
            return self.step not in (step for step, _ in member.metrics.validations)
        return samples and not (member.run.folder / SAMPLES / f"{self.step}.txt").exists()

    def _do_what_is_due(self, places: Sequence[int]) -> None:
        """Samples, validates and saves some of the runs, in this order, as the config asks after this step."""
        samples, validates, saves = self._due()
        if not places or not (samples or validates or saves):
            return
        self._drain()
        self._show()
        states = self._program.take(self._states)
        with self._turn():
            if self._peers.leads:
                self._sample_validate_save(places, states)
        self._show()
        self._since = self._clock()

    def _sample_validate_save(self, places: Sequence[int], states: Sequence[TrainState]) -> None:
        (samples, validates, saves), model = self._due(), self._program.model
        for place in [place for place in self._steady() if place in places]:
            member, params = self.members[place], states[place].params
            if samples:
                member.checkpoints.check_folder()  # another run's may have taken its name
                member.run.write_sample(self.step, TrainedRun(member.run, model, params, self.step).sample())
            if validates:
                found = evaluate(model, params, self._validation_ids, newline=member.run.newline)
                saves |= self._record_validation(member, found) or bool(self._ended_early())
        if saves:
            self._save(places, states)

    def _record_validation(self, member: Member, found: Evaluation) -> bool:
        """Writes a run's validation loss, and says whether it is the lowest so far."""
        if not math.isfinite(found.loss):
            self._diverge(member, self.step, f"the validation loss is not finite at step {self.step:,}")
            return False
        improved = found.loss < member.metrics.best
        losses = {"loss": found.loss, "bits_per_char": found.bits_per_char}
        member.write({"step": self.step, "split": "validation"} | losses)
        self._watch.validated(member.run, self.step, found)
        return improved

    def _save(self, places: Sequence[int], states: Sequence[TrainState]) -> None:
        for place in [place for place in self._steady() if place in places]:
            member, leaves = self.members[place], jax.device_get(jax.tree.leaves(states[place].params))
            if not all(np.isfinite(leaf).all() for leaf in leaves):  # the next update would only show it later
                self._diverge(member, self.step, f"the parameters are not finite after step {self.step:,}")
                continue
            member.metrics.flush()
            loss = dict(member.metrics.validations).get(self.step)
            if self._saved != self.step:
                member.checkpoints.save(self.step, states[place], loss, devices=self._program.row_devices)
            elif loss is not None:  # its checkpoint is the one that was restored
                member.checkpoints.record_loss(self.step, loss)
        self._saved = self.step

    def _drain(self) -> None:
        """Waits for the metrics of the call before, and writes them."""
        if self._pending is None:
            return
        (last, metrics), self._pending = self._pending, None
        self._peers.hear()
        chunk, runs, data = self._program.chunk, len(self.members), self._config.data
        # A program with fillers has more rows than runs.
        losses, norms, *rates = (np.asarray(each, np.float64).reshape(-1, chunk) for each in jax.tree.leaves(metrics))
        windows, now = getattr(self._data.train, "windows_per_epoch", None), self._clock()
        speed, self._since = chunk * data.batch_size * data.seq_length / (now - self._since), now
        for place, member in enumerate(self.members):
            for at in range(chunk):
                step, loss, norm = last - chunk + 1 + at, float(losses[place, at]), float(norms[place, at])
                if member.diverged_after is not None:
                    break
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    what = "gradient" if math.isfinite(loss) else "loss"
                    with self._peers.turn():  # all see it in the same step
                        self._diverge(member, step - 1, f"the {what} is not finite at step {step:,}")
                    break
                rate = float(rates[0][place, at]) if rates else None
                epoch = windows and (self._cursor - self.step + step) / windows
                record = {"step": step, "epoch": epoch, "loss": loss, "bits_per_char": bits(loss), "grad_norm": norm}
                record |= {"learning_rate": rate, "chars_per_second": speed}
                member.write({name: value for name, value in record.items() if value is not None})
        if now - self._shown > _LIVE:
            self._show()
        if steady := self._steady():
            self._watch.advance(last, float(losses[steady, -1].mean()), speed * runs)

    def _show(self) -> None:
        for member in self.members:
            member.show()
        self._shown = self._clock()

    def _diverge(self, member: Member, step: int, what: str) -> None:
        member.diverged_after = step
        self._on_diverged(member, what)

    def _stop_if(self, received: Received) -> None:
        if received:
            self._drain()
            states = self._program.take(self._states) if self._saved != self.step else []
            with self._turn():
                if states and self._peers.leads:
                    self._save(self._steady(), states)
                self._wait()
                received.check(self.step)

    def _wait(self) -> None:
        """Returns once everything is on disk."""
        for member in self.members if self._peers.leads else ():
            member.checkpoints.wait()


def _is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps, or never for 0, happens after this one."""
    return every > 0 and step % every == 0
