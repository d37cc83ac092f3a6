"""The loop: the one impure room. It reads a text, makes or continues a run's folder, and updates to the last step.

A run continues from its newest checkpoint as if it had never stopped. Nothing that a step depends on lives outside
`TrainState` and the text; lines of metrics are on disk before the checkpoint that follows them, and those of steps that
are done again are dropped first.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax

from charlstm.analysis.evaluate import Evaluation, evaluate
from charlstm.analysis.sample import text_stream
from charlstm.cli import summary
from charlstm.cli.terminal import SECONDS_BETWEEN_LINES, Reporter, write
from charlstm.config import Experiment
from charlstm.core.fast import cudnn
from charlstm.core.loss import bits
from charlstm.core.network import Model, Params
from charlstm.core.sharding import Layout, on_one
from charlstm.core.size import refuse_what_no_memory_holds
from charlstm.core.step import Metrics, TrainState, make_train_step, state_layout, window_layout
from charlstm.data.windows import Batches, Splits, Window
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Run, continued, goes_on_later, make_folder, only_writer
from charlstm.runs.metrics import Metrics as MetricsFile
from charlstm.runs.metrics import best_loss, training_record, validation_record
from charlstm.runs.tensorboard import Board
from charlstm.support.errors import Interrupted, TrainingError
from charlstm.training import signals
from charlstm.training.begin import Text, first_state
from charlstm.training.signals import Received


def train(config: Experiment, folder: Path, reporter: Reporter) -> None:
    """Train to `config.train.steps`, from the start or from where the run in `folder` stopped.

    Raises:
        InputError: the text, the config or the folder will not do; nothing in the folder was changed.
        TrainingError: the loss is no longer finite, or the system failed, such as on a full disk.
        Interrupted: a signal came; the run was saved and can be continued.
    """
    with goes_on_later(folder), ExitStack() as stack:
        run = None
        if Run.exists(folder):
            stack.enter_context(only_writer(folder))
            run = Run.open(folder)
            config = continued(run.config, config)
        cudnn.settled(config.model)  # refuses now what these devices cannot do
        text = Text.read(config)
        batches = Batches(text.splits.train, config.data.batch_size, config.data.seq_length)
        refuse_what_no_memory_holds(config, len(text.vocabulary))
        if run:
            run.refuse_other_text(text.fingerprint)
            run.refuse_other_vocabulary(text.vocabulary)
        else:
            make_folder(folder)
            stack.enter_context(only_writer(folder))  # two that begin in one folder do not mix their files
            run = Run.create(folder, config, text.vocabulary, text.fingerprint)
        checkpoints = stack.enter_context(Checkpoints(run.checkpoints, config.train.keep_checkpoints))
        model = Model(config.model, len(text.vocabulary))
        layout = Layout.of(config.data.batch_size)
        state = jax.device_put(first_state(config, model, checkpoints, layout, reporter), state_layout(layout))
        metrics = stack.enter_context(MetricsFile(run.metrics))
        validations = metrics.truncate_after(int(state.step))
        run = run.extended(config)  # after all that can refuse
        board = stack.enter_context(Board(run.tensorboard if config.train.tensorboard else None, int(state.step)))
        loop = _Loop(
            run, model, batches, text.splits, state, layout, checkpoints, metrics, validations, board, reporter
        )
        for told in summary.introduction(run, text.splits, batches, state.params, loop.step, layout):
            reporter.line(told)
        if loop.step == config.train.steps and not loop.owes:
            reporter.line(f"this run is finished; a larger --train.steps goes on from step {loop.step:,}")
        else:
            loop.to_the_end()
            for told in summary.conclusion(run, text.splits, loop.validation):
                reporter.line(told)
            write(sampled(run, model, loop.state.params) + "\n")
    for told in summary.what_next(run):
        reporter.line(told)


class _Due(NamedTuple):
    """What is to be done after an update, in this order."""

    sample: bool
    validation: bool
    checkpoint: bool


class _Loop:
    """Updates, and what is due after them. Metrics are read one step late, so that the device never waits for us."""

    def __init__(
        self,
        run: Run,
        model: Model,
        batches: Batches,
        splits: Splits,
        state: TrainState,
        layout: Layout,
        checkpoints: Checkpoints,
        metrics: MetricsFile,
        validations: Sequence[dict[str, Any]],
        board: Board,
        reporter: Reporter,
    ) -> None:
        self.run, self.config, self.model, self.batches, self.splits = run, run.config, model, batches, splits
        self.state, self.step, self.cursor = state, int(state.step), int(state.cursor)
        self.validation: Evaluation | None = None
        self._checkpoints, self._metrics, self._board, self._reporter = checkpoints, metrics, board, reporter
        self._update = make_train_step(run.config, model, layout)
        self._window_layout = window_layout(layout)
        self._pending: tuple[int, int, Metrics] | None = None
        self._since = self._last_line = time.perf_counter()
        self._best = best_loss(validations)
        self.owes = self.step > 0 and self._was_left(validations)

    def to_the_end(self) -> None:
        with signals.collected() as received, self._reporter.bar(self.step, self.config.train.steps):
            self._since = time.perf_counter()
            if self.owes:
                self._what_is_due(received)
                self.owes = False
            window = self._next_window()
            while self.step < self.config.train.steps:
                self.state, metrics = self._update(self.state, window)
                self.step, self.cursor = self.step + 1, self.cursor + 1
                window = self._next_window()
                self._drain()
                self._pending = (self.step, self.cursor, metrics)
                if received:
                    self._stop(received)
                self._what_is_due(received)
            self._checkpoints.wait()  # while a signal still waits for it

    def _next_window(self) -> Window:
        """The next window, on its way to the devices while they work on the one before."""
        return jax.device_put(self.batches.window(self.cursor), self._window_layout)

    @property
    def _due(self) -> _Due:
        train, last = self.config.train, self.step == self.config.train.steps
        return _Due(
            sample=due(self.step, train.sample_every),
            validation=bool(len(self.splits.validation)) and (last or due(self.step, train.validate_every)),
            checkpoint=last or due(self.step, train.checkpoint_every),
        )

    def _was_left(self, validations: Sequence[dict[str, Any]]) -> bool:
        """Whether a signal stopped the run at this step before all that was due after it was done."""
        if self._due.validation:  # what comes last of all
            return all(record["step"] != self.step for record in validations)
        return self._due.sample and not self.run.sample(self.step).exists()

    def _what_is_due(self, received: Received) -> None:
        if not any(now := self._due):
            return
        self._drain()
        loss, best = None, False
        # A signal need not wait for what changes nothing; the run does it first of all when it goes on.
        params, validation = self.state.params, self.splits.validation
        if now.sample and (text := received.unless(lambda: sampled(self.run, self.model, params))) is not None:
            self.run.write_sample(self.step, text)
        if now.validation:
            self.validation = received.unless(lambda: evaluate(self.model, params, validation))
        if received:
            self._stop(received)
        if now.validation and self.validation:
            loss = self.validation.loss
            best, self._best = loss < self._best, min(loss, self._best)
            self._validated(self.validation)
        if now.checkpoint or best:
            self._save(loss)
        self._since = time.perf_counter()

    def _validated(self, found: Evaluation) -> None:
        if not math.isfinite(found.loss):
            raise self._not_finite("validation loss", self.step)
        self._metrics.append(validation_record(self.step, found.loss))
        self._board.add(self.step, {"validation/bits_per_char": found.bits_per_char, "validation/loss": found.loss})
        self._reporter.line(
            f"step {self.step:,}: validation {found.loss:.4f} nats, {found.bits_per_char:.4f} bits per character"
        )

    def _save(self, validation_loss: float | None = None) -> None:
        """The metrics first; but of a step that is on disk the loss, for their line says that nothing is owed."""
        if not self.owes:
            self._metrics.flush()
        self._checkpoints.save(self.step, self.state, validation_loss)
        if self.owes:
            self._metrics.flush()

    def _drain(self) -> None:
        """Waits for the metrics of the step before, writes them, and refuses to go on from one that is not finite."""
        if self._pending is None:
            return
        (step, cursor, metrics), self._pending = self._pending, None
        loss, grad_norm, learning_rate = (float(each) for each in metrics)
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise self._not_finite("loss" if not math.isfinite(loss) else "gradient", step)
        now = time.perf_counter()
        speed, self._since = self.config.data.batch_size * self.config.data.seq_length / (now - self._since), now
        record = training_record(step, self.batches.epoch(cursor), loss, grad_norm, learning_rate, speed)
        self._metrics.append(record)
        self._board.add(step, {f"train/{name}": value for name, value in record.items() if name != "step"})
        told = f"loss {loss:.3f}  {bits(loss):.3f} bits/char  {speed:,.0f} chars/s"
        self._reporter.advance(step, told)
        if not self._reporter.has_bar and (now - self._last_line > SECONDS_BETWEEN_LINES or step == 1):
            self._last_line = now
            self._reporter.line(f"step {step:,} of {self.config.train.steps:,}: {told}")

    def _not_finite(self, what: str, step: int) -> TrainingError:
        latest = self._checkpoints.latest()
        good = "there is no checkpoint yet" if latest is None else f"the last good checkpoint is of step {latest:,}"
        return TrainingError(
            f"the {what} is not finite at step {step:,}; {good}; train anew in another --run-dir with a lower"
            f" --optimizer.learning-rate (now {self.config.optimizer.learning_rate:g}) or --optimizer.grad-clip"
            f" (now {self.config.optimizer.grad_clip:g})"
        )

    def _stop(self, received: Received) -> NoReturn:
        self._drain()
        self._save()
        self._checkpoints.wait()
        raise Interrupted(received[0], self.step)


def sampled(run: Run, model: Model, params: Params) -> str:
    """A text as the run's own config asks for it; characters of the prime that the vocabulary lacks are left out."""
    pieces = text_stream(
        model, on_one(params), run.vocabulary, run.config.data.symbols, run.config.sample, skip_unknown=True
    )
    return "".join(pieces)


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps, or never for 0, happens after this one."""
    return every > 0 and step % every == 0
