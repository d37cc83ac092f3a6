"""A config or a run's folder as a model: to train, to sample from and to evaluate."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count, islice
from typing import Any, NamedTuple

import jax
import optax
from numpy.typing import NDArray

from charlstm.analysis.dynamic import descend, evaluate_dynamic, mean_squares
from charlstm.analysis.evaluate import (
    SCORED_ROWS,
    Evaluation,
    Score,
    all_nats,
    character_nats,
    evaluate,
    evaluate_cold,
)
from charlstm.analysis.reader import on_one
from charlstm.analysis.sample import Stop, TextSampler
from charlstm.analysis.settings import under_settings
from charlstm.config import Experiment, SampleConfig, TrainConfig, Weights
from charlstm.core.network import Model, Params
from charlstm.core.rounding import to_int8
from charlstm.core.step import TrainState
from charlstm.data.corpora import to_readable, to_symbols
from charlstm.data.dataset import Dataset
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.arrays import GoneError
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import CHECKPOINTS, Run
from charlstm.runs.models import first_state, make_model, other_backend
from charlstm.runs.steps import numbered
from charlstm.support.errors import InputError
from charlstm.support.files import user_path


class ScoredSample(NamedTuple):
    """A text as `sample` gives it, which begins with the prime, its seed, and the score of what follows the prime."""

    prime: str
    text: str
    seed: int
    score: Score


@dataclass(frozen=True)
class TrainedRun:
    """A model as it was after `step` updates. What `load_run` gives."""

    run: Run
    model: Model
    params: Params = field(repr=False)
    step: int
    notes: tuple[str, ...] = ()
    """A line for each checkpoint that could not be used, and one if a newer charlstm wrote the run."""

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
        try:
            data = Dataset.read(self.config.data)
        except InputError as error:
            if os.path.exists(self.config.data.corpus):
                raise
            how = "give its new place by --corpus FILE to charlstm eval or look"
            raise InputError(f"{error}; if the run's text was moved, {how}") from None
        self.run.check_text(data.fingerprint, data.vocabulary)
        return data

    def with_weights(self, weights: Weights) -> "TrainedRun":
        """This run as it is, or with its weights rounded to what int8 holds, as `rounding.to_int8` does.

        The native core draws a single text faster from those. `state` still gives the weights of the checkpoint.
        """
        if weights == "float32":
            return self
        return replace(self, params=to_int8(self.params), model=replace(self.model, weights=weights))

    def with_text_at(self, corpus: str) -> "TrainedRun":
        """This run with its text at another place, where it is compared with the SHA-256 of what the run read."""
        config = replace(self.config, data=replace(self.config.data, corpus=corpus))
        return replace(self, run=replace(self.run, config=config))

    def ids(self, split: str) -> NDArray[Any]:
        """The ids of "train", "validation" or "test" of the run's own text, [N]; raises InputError if it is empty."""
        if split not in ("train", "validation", "test"):
            raise InputError(f"split is {split!r}; it must be train, validation or test")
        ids = self.data.ids(split)
        if not len(ids):
            raise InputError(f"the {split} split of {self.run.folder} is empty; its fraction in the run's config is 0")
        return ids

    def sample(
        self, prime: str | None = None, *, num: int = 1, skip_unknown: bool = False, stop: Stop = None, **how: Any
    ) -> Any:
        """Draws text, as ``charlstm sample`` prints it.

        Args:
            prime: text that the model reads first; by default that of the run's config, without the characters that the
                vocabulary lacks.
            num: how many texts; the i-th is that of seed + i - 1 alone.
            skip_unknown: leave out characters of the prime that the vocabulary lacks.
            stop: a string or several; a text ends with the first of them that is complete after the prime.
            **how: ``length`` in characters, which is a limit where there is a stop, ``temperature``, ``top_n`` and
                ``seed``, by default as in the run's config.

        Returns:
            The prime and the drawn text; a list of `num` such texts where `num` is not 1.

        Raises:
            InputError: the prime has a character that the model does not know.
            ValueError: a setting is out of bounds, or a stop is empty.
        """
        if num < 1:
            raise ValueError(f"num is {num}; it must be at least 1")
        drawn = list(self.samples(prime, num, skip_unknown=skip_unknown, stop=stop, **how))
        return drawn[0] if num == 1 else drawn

    def samples(
        self, prime: str | None, num: int, *, skip_unknown: bool = False, stop: Stop = None, **how: Any
    ) -> Iterator[str]:
        """The texts of `sample`, one by one."""
        config, skip = self._settings(prime, skip_unknown, how)
        return self._sampler.texts(config, num, skip_unknown=skip, stop=stop)

    def stream(
        self, prime: str | None = None, *, skip_unknown: bool = False, stop: Stop = None, **how: Any
    ) -> Iterator[str]:
        """The text of `sample` in pieces, as they are drawn."""
        config, skip = self._settings(prime, skip_unknown, how)
        return self._sampler.stream(config, skip_unknown=skip, stop=stop)

    def scored_samples(
        self, prime: str | None, num: int, *, skip_unknown: bool = False, stop: Stop = None, **how: Any
    ) -> Iterator[ScoredSample]:
        """The texts of `sample`, each with the score of what was drawn: at temperature 1, among all characters."""
        config, skip = self._settings(prime, skip_unknown, how)
        first, drawn = self._sampler.draw(config, num, skip_unknown=skip, stop=stop)
        texts, seeds = (first + "".join(pieces) for pieces in drawn), count(config.seed)
        symbols = self.config.data.symbols
        while block := list(islice(texts, SCORED_ROWS)):
            nats = all_nats(self.model, self.params, list(map(self.vocabulary.encode, block)), self.run.newline)
            for text, each, seed in zip(block, nats, seeds, strict=False):
                prime, text = (to_readable(part, symbols) for part in (first, text))
                yield ScoredSample(prime, text, seed, Score.of(each[len(first) :]))

    def evaluate(self, split: str = "validation", **how: Any) -> Evaluation:
        """The loss over a split of the run's own text: every character is predicted once.

        Args:
            split: "train", "validation" or "test".
            **how: at most one of ``exact``, ``cold`` and ``dynamic``, as in `evaluate_ids`.

        Returns:
            ``.loss`` in nats per character, ``.bits_per_char`` and ``.characters``.

        Raises:
            InputError: the split is empty, or the text is not the one that the run read.
        """
        return self.evaluate_ids(self.ids(split), **how)

    def evaluate_ids(
        self, ids: NDArray[Any], *, exact: bool = False, cold: int | None = None, dynamic: float | None = None
    ) -> Evaluation:
        """The loss over a text of ids [N], read in one of four ways; by default in rows that are warmed up.

        Args:
            ids: of the run's vocabulary.
            exact: read the text as one row: slower, and a function of text and parameters alone.
            cold: read windows of so many characters, each from the zero carry.
            dynamic: read the text as one row, and learn from it at this rate on the way, as in `analysis.dynamic`.

        Raises:
            ValueError: more than one way is asked for, or a number is out of bounds.
            InputError: dynamic, and the run's own text, which scales its steps, cannot be read.
        """
        if exact + (cold is not None) + (dynamic is not None) > 1:
            raise ValueError("exact, cold and dynamic are ways of reading a text; ask for one")
        newline = self.run.newline
        if cold is not None:
            if cold < 1 or newline is not None:
                must = "it must be at least 1" if cold < 1 else "documents are read from the empty state already"
                raise ValueError(f"cold is {cold}; {must}")
            return evaluate_cold(self.model, self.params, ids, cold)
        if dynamic is not None:
            if not 0 <= dynamic < math.inf:
                raise ValueError(f"dynamic is {dynamic}; it must be at least 0 and finite")
            moments = mean_squares(self.model, self.params, self.ids("train"), newline=newline)
            return evaluate_dynamic(self.model, self.params, ids, descend(moments, dynamic), newline=newline)
        return evaluate(self.model, self.params, ids, rows=1 if exact else None, newline=newline)

    def score(self, lines: Sequence[str], *, skip_unknown: bool = False) -> list[Score]:
        """The loss of each line on its own: how likely the model finds it.

        The first character is given, as nothing stands before it, and is not scored. Where lines are documents
        (``data.documents``) it is scored, after a newline.

        Args:
            lines: of text; none changes the score of another.
            skip_unknown: leave out characters that the vocabulary lacks.

        Returns:
            ``.nats`` and ``.bits``, sums over the ``.characters`` that were scored, and ``.nats_per_char`` and
            ``.bits_per_char``, 0 for a line with none.

        Raises:
            InputError: a line has a character that the model does not know.
        """
        return [Score.of(each) for each in self.character_nats(lines, skip_unknown=skip_unknown)]

    def character_nats(self, lines: Sequence[str], *, skip_unknown: bool = False) -> list[NDArray[Any]]:
        """The nats of each scored character of each line: those of which `score` gives the sum."""
        if isinstance(lines, str):
            raise TypeError("lines is one str; give a list of lines")
        symbols = [to_symbols(line, self.config.data.symbols) for line in lines]
        return self.nats_of(self.encode_lines(symbols, skip_unknown=skip_unknown))

    def nats_of(self, lines: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """As `character_nats`, of lines of ids."""
        return character_nats(self.model, self.params, lines, self.run.newline)

    def encode_lines(self, lines: Iterable[str], *, skip_unknown: bool, first: int = 1) -> list[NDArray[Any]]:
        """The ids of lines in the model's symbols; InputError has the number of a line, the first of which is known."""
        ids = []
        for number, line in enumerate(lines, first):
            try:
                ids.append(self.vocabulary.encode(line, skip_unknown=skip_unknown))
            except InputError as error:
                raise InputError(f"line {number:,}: {error}") from None
        return ids

    @under_settings
    def state(self, tx: optax.GradientTransformation | None = None, average: bool | None = None) -> TrainState:
        """The state after `step` updates, to continue from.

        Args:
            tx: the optax transformation that the run was trained with; by default the one in its config.
            average: whether its parameters are an average; by default as its config says.

        Raises:
            InputError: the checkpoint is of another optimizer, or damaged.
        """
        like = jax.eval_shape(partial(first_state, self.config, self.model, tx, average))
        with Checkpoints(self.run.folder / CHECKPOINTS, keep=1, read_only=True, run=self.run.id) as checkpoints:
            try:
                return checkpoints.restore(self.step, like)
            except GoneError:
                raise
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


@under_settings
def load_run(folder: str | os.PathLike[str], checkpoint: str | int = "best") -> TrainedRun:
    """Opens a run's folder, also while the run trains. Nothing in it is changed or executed.

    Args:
        folder: of the run.
        checkpoint: "best" by validation (the newest where none was validated), "latest", a step, or "fresh" for the
            parameters before the first update, which are another run's where it began with those.

    Raises:
        InputError: the folder is not a run, or the checkpoint is missing or damaged.
    """
    run, checkpoint = Run.open(user_path(folder)), str(checkpoint)
    config, notes = run.config, [run.newer] if run.newer else []
    if config.model.recurrence in ("cudnn", "native"):  # it can be read elsewhere too: the parameters are the same
        config = replace(config, model=replace(config.model, recurrence="auto"))
    model = make_model(config, len(run.vocabulary), backend=run.backend)
    notes += other_backend(run, model)
    like = jax.eval_shape(model.init, jax.random.key(0))
    if checkpoint == "fresh" and not (run.init_from and 0 in numbered(run.folder / CHECKPOINTS)):
        fresh = first_state(config, model).params
        if run.init_from:
            from charlstm.runs.transfer import load_origin, transfer  # which load the other run

            old = load_origin(run.init_from, "give --checkpoint best, latest or a step")
            fresh, _ = transfer(old, config, run.vocabulary, model, fresh)
        return TrainedRun(run, model, fresh, 0, tuple(notes))
    checkpoint = "0" if checkpoint == "fresh" else checkpoint
    with Checkpoints(run.folder / CHECKPOINTS, keep=1, read_only=True, run=run.id) as checkpoints:
        if not checkpoints.steps():
            raise InputError(f"{folder} has no checkpoint yet; training makes one every --train.checkpoint-every steps")
        if checkpoint not in ("best", "latest"):
            if not (checkpoint.isascii() and checkpoint.isdigit() and len(checkpoint) < 20):  # int() has a limit too
                raise InputError(f"--checkpoint is {checkpoint!r}; it must be best, latest, fresh or a step")
            params = checkpoints.restore_params(int(checkpoint), like)
            return TrainedRun(run, model, params, int(checkpoint), tuple(notes))
        broken = dict[int, str]()
        while rest := [step for step in checkpoints.steps() if step not in broken]:
            best = checkpoints.best() if checkpoint == "best" else None
            step = best if best in rest else max(rest)
            try:
                return TrainedRun(run, model, checkpoints.restore_params(step, like), step, (*notes, *broken.values()))
            except GoneError:  # a process that trains here has newer ones
                continue
            except InputError as error:
                broken[step] = f"{error}; the next best is used"
    raise InputError(f"no checkpoint in {folder} can be used ({'; '.join(broken.values())})")


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
    path, step = user_path(folder), int(state.step)
    if Run.exists(path):
        run = Run.open(path)
        if not run.program or run.config.model != model.config:
            raise InputError(f"{path} holds another run; save this one in another folder")
        run.check_text(data.fingerprint, data.vocabulary)
        if step > run.config.train.steps:
            run = run.extended(replace(run.config, train=replace(run.config.train, steps=step)), step)
    else:
        config = Experiment(data=data.config, model=model.config, train=TrainConfig(steps=max(step, 1)))
        run = Run.create(path, config, data.vocabulary, data.fingerprint, program=True, backend=model.backend)
    with Checkpoints(run.folder / CHECKPOINTS, run.config.train.keep_checkpoints, run=run.id) as checkpoints:
        checkpoints.save(step, state)
