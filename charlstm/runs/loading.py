"""A config or a run's folder as a model: to train, to sample from and to evaluate."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import optax
from numpy.typing import NDArray

from charlstm.analysis.evaluate import Evaluation, Score, evaluate, score
from charlstm.analysis.reader import on_one
from charlstm.analysis.sample import TextSampler
from charlstm.config import Experiment, SampleConfig, TrainConfig
from charlstm.core.cells import BUILT_IN
from charlstm.core.network import Model, Params
from charlstm.core.optimizer import make_optimizer
from charlstm.core.size import count_parameters
from charlstm.core.step import TrainState, init_state
from charlstm.data.corpora import to_symbols
from charlstm.data.dataset import Dataset
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import CHECKPOINTS, Run
from charlstm.support.errors import InputError
from charlstm.support.process import memory


def make_model(config: Experiment, vocabulary_size: int, states: int = 1) -> Model:
    """The model of a config; raises InputError where it cannot run here, or memory cannot hold its training states."""
    try:
        model = Model(config.model, vocabulary_size)
    except ValueError as error:
        raise InputError(str(error)) from None
    if config.model.cell in BUILT_IN:  # before anything is made: a stranger's config may ask for terabytes
        check_memory(config, vocabulary_size, states)
    return model


def first_state(config: Experiment, model: Model, tx: optax.GradientTransformation | None = None) -> TrainState:
    """The state before the first update; `tx` takes the place of the optimizer that the config describes."""
    chain = tx or make_optimizer(config.optimizer, config.train.steps)
    return init_state(model, chain, config.data.batch_size, config.seed)


def check_memory(config: Experiment, vocabulary_size: int, states: int = 1) -> None:
    """Raises InputError if this machine has less memory than so many training states, which pass through the host."""
    model = config.model
    carry = config.data.batch_size * model.hidden_size * model.num_layers * (2 if model.cell == "lstm" else 1)
    count = count_parameters(model, vocabulary_size)
    needed = 4 * (3 * count + carry) * states  # Adam keeps two moments of each parameter
    if needed > memory():
        needs = f"{needed / 2**30:,.1f} GiB{f' for {states} states of it' if states > 1 else ''}"
        raise InputError(
            f"a model of {count:,} parameters with {config.data.batch_size:,} rows needs {needs}, and this machine has"
            f" {memory() / 2**30:,.1f}; lower model.hidden_size, model.num_layers or data.batch_size"
        )


@dataclass(frozen=True)
class TrainedRun:
    """A model as it was after `step` updates. What `load_run` gives."""

    run: Run
    model: Model
    params: Params = field(repr=False)
    step: int
    notes: tuple[str, ...] = ()
    """One line for each checkpoint that could not be used."""

    @property
    def config(self) -> Experiment:
        return self.run.config

    @property
    def vocabulary(self) -> Vocabulary:
        return self.run.vocabulary

    @cached_property
    def data(self) -> Dataset:
        """The run's own text; raises InputError if it is gone, or is not the one that the run read."""
        if not self.run.fingerprint.sha256:
            raise InputError(f"{self.run.folder} read data of its program's own; give a text with --text instead")
        data = Dataset.read(self.config.data)
        self.run.check_text(data.fingerprint, data.vocabulary)
        return data

    def ids(self, split: str) -> NDArray[Any]:
        """The ids of "train", "validation" or "test" of the run's own text, [N]; raises InputError if it is empty."""
        if split not in ("train", "validation", "test"):
            raise InputError(f"split is {split!r}; it must be train, validation or test")
        ids = self.data.ids(split)
        if not len(ids):
            raise InputError(f"the {split} split of {self.run.folder} is empty; its fraction in the run's config is 0")
        return ids

    def sample(
        self, prime: str | None = None, *, num: int = 1, skip_unknown: bool = False, stop: str | None = None, **how: Any
    ) -> Any:
        """Draws text, as ``charlstm sample`` prints it.

        Args:
            prime: text that the model reads first; by default that of the run's config.
            num: how many texts; the i-th is that of seed + i - 1 alone.
            skip_unknown: leave out characters of the prime that the vocabulary lacks.
            stop: a text ends with the first occurrence of this after the prime.
            **how: ``length`` in characters, ``temperature``, ``top_n`` and ``seed``, by default as in the run's config.

        Returns:
            The prime and the drawn text; a list of `num` such texts where `num` is not 1.

        Raises:
            InputError: the prime has a character that the model does not know.
            ValueError: a setting is out of bounds.
        """
        if num < 1:
            raise ValueError(f"num is {num}; it must be at least 1")
        drawn = list(self.samples(prime, num, skip_unknown=skip_unknown, stop=stop, **how))
        return drawn[0] if num == 1 else drawn

    def samples(
        self, prime: str | None, num: int, *, skip_unknown: bool = False, stop: str | None = None, **how: Any
    ) -> Iterator[str]:
        """The texts of `sample`, one by one."""
        config, skip = self._settings(prime, skip_unknown, how)
        return self._sampler.texts(config, num, skip_unknown=skip, stop=stop)

    def stream(
        self, prime: str | None = None, *, skip_unknown: bool = False, stop: str | None = None, **how: Any
    ) -> Iterator[str]:
        """The text of `sample` in pieces, as they are drawn."""
        config, skip = self._settings(prime, skip_unknown, how)
        return self._sampler.stream(config, skip_unknown=skip, stop=stop)

    def evaluate(self, split: str = "validation", *, exact: bool = False) -> Evaluation:
        """The exact loss over a split of the run's own text: every character is predicted once.

        Args:
            split: "train", "validation" or "test".
            exact: read the text as one row: slower, and a function of text and parameters alone.

        Returns:
            ``.loss`` in nats per character, ``.bits_per_char`` and ``.characters``.

        Raises:
            InputError: the split is empty, or the text is not the one that the run read.
        """
        rows = 1 if exact else None
        return evaluate(self.model, self.params, self.ids(split), rows=rows, newline=self.run.newline)

    def score(self, lines: Sequence[str], *, skip_unknown: bool = False) -> list[Score]:
        """The loss of each line on its own, from the empty state: ``.nats``, ``.characters`` and ``.nats_per_char``.

        `skip_unknown` leaves out characters that the vocabulary lacks, for which it raises InputError otherwise.
        """
        if isinstance(lines, str):
            raise TypeError("lines is one str; give a list of lines")
        symbols = self.config.data.symbols
        ids = [self.vocabulary.encode(to_symbols(line, symbols), skip_unknown=skip_unknown) for line in lines]
        return score(self.model, self.params, ids)

    def state(self, tx: optax.GradientTransformation | None = None) -> TrainState:
        """The state after `step` updates, to continue from.

        Args:
            tx: the optax transformation that the run was trained with; by default the one in its config.

        Raises:
            InputError: the checkpoint is of another optimizer, or damaged.
        """
        like = jax.eval_shape(partial(first_state, self.config, self.model, tx))
        with Checkpoints(self.run.folder / CHECKPOINTS, keep=1, read_only=True) as checkpoints:
            try:
                return checkpoints.restore(self.step, like)
            except InputError as error:
                raise InputError(f"{error}; give state() the tx that the run was trained with") from None

    @property
    def _sampler(self) -> TextSampler:
        symbols = self.config.data.symbols
        return TextSampler(self.model, on_one(self.params), self.vocabulary, symbols, self.run.newline)

    def _settings(self, prime: str | None, skip_unknown: bool, how: dict[str, Any]) -> tuple[SampleConfig, bool]:
        """The config of a sample, and whether unknown characters of its prime are left out."""
        if prime is None:  # the run's own was written before its vocabulary was known
            return replace(self.config.sample, **how), True
        return replace(self.config.sample, prime=prime, **how), skip_unknown


def load_run(folder: str | os.PathLike[str], checkpoint: str | int = "best") -> TrainedRun:
    """Opens a run's folder, also while the run trains. Nothing in it is changed or executed.

    Args:
        folder: of the run.
        checkpoint: "best" by validation (the newest where none was validated), "latest", a step, or "fresh" for the
            parameters before the first update.

    Raises:
        InputError: the folder is not a run, or the checkpoint is missing or damaged.
    """
    run, checkpoint = Run.open(Path(folder)), str(checkpoint)
    config = run.config
    if config.model.recurrence == "cudnn":  # it can be read where there is no GPU: the parameters are the same
        config = replace(config, model=replace(config.model, recurrence="auto"))
    model = make_model(config, len(run.vocabulary))
    if checkpoint == "fresh":
        return TrainedRun(run, model, first_state(config, model).params, 0)
    like = jax.eval_shape(model.init, jax.random.key(0))
    with Checkpoints(run.folder / CHECKPOINTS, keep=1, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise InputError(f"{folder} has no checkpoint yet; training makes one when it ends or is interrupted")
        if checkpoint not in ("best", "latest"):
            if not (checkpoint.isascii() and checkpoint.isdigit() and len(checkpoint) < 20):  # int() has a limit too
                raise InputError(f"--checkpoint is {checkpoint!r}; it must be best, latest, fresh or a step")
            return TrainedRun(run, model, checkpoints.restore_params(int(checkpoint), like), int(checkpoint))
        best = checkpoints.best() if checkpoint == "best" else None
        notes: list[str] = []
        for step in sorted(steps, key=lambda step: (step == best, step), reverse=True):
            try:
                return TrainedRun(run, model, checkpoints.restore_params(step, like), step, tuple(notes))
            except InputError as error:
                notes.append(f"{error}; the next best is used")
    raise InputError(f"no checkpoint in {folder} can be used ({'; '.join(notes)})")


def save_run(folder: str | os.PathLike[str], data: Any, model: Model, state: TrainState) -> None:
    """Saves a program's own training as a run, which ``charlstm sample`` and ``eval`` take, or adds a checkpoint to it.

    Args:
        folder: of the run, made when missing.
        data: what was read, as `read_text` gives it.
        model, state: what was trained, and what its training step gives.

    Raises:
        InputError: the folder holds something else, or a run of another model or text.
        TrainingError: the checkpoint cannot be written.
    """
    path, step = Path(folder), int(state.step)
    if Run.exists(path):
        run = Run.open(path)
        if not run.program or run.config.model != model.config:
            raise InputError(f"{path} holds another run; save this one in another folder")
        run.check_text(data.fingerprint, data.vocabulary)
        if step > run.config.train.steps:
            run = run.extended(replace(run.config, train=replace(run.config.train, steps=step)))
    else:
        config = Experiment(data=data.config, model=model.config, train=TrainConfig(steps=max(step, 1)))
        run = Run.create(path, config, data.vocabulary, data.fingerprint, program=True)
    with Checkpoints(run.folder / CHECKPOINTS, run.config.train.keep_checkpoints) as checkpoints:
        checkpoints.save(step, state)
