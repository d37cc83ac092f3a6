"""The results of a comparison, as its JSON files hold them. The files may come from a stranger, so all is checked."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from charlstm.config import Symbols
from charlstm.runs.folder import read_as
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line
from charlstm.support.schema import STRICT, Flag, Number, Text, Whole

RESULTS = "results.json"
NGRAM_CELL = "n-gram"  # of the row that is no network


def _check_norms(norms: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    if len({*map(len, norms)}) != 1 or not norms[0]:
        raise PydanticCustomError("norms", "it must be a list for each layer, all of one length")
    return norms


Line = Annotated[Text, AfterValidator(lambda text: one_line(text))]
"""Text that a terminal and a page can show: one printable line."""
Int64 = Annotated[Whole, Field(ge=-(2**63), lt=2**63)]
Finite = Annotated[Number, Field(ge=-1e100, le=1e100)]
"""A number so small that sums and squares of such are finite too."""
Norms = Annotated[tuple[tuple[Finite, ...], ...], AfterValidator(_check_norms)]
"""[L][K+1] norms of ∂loss(t)/∂h(t−k) for k from 0 to K."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Interval:
    """A mean over n seeds, and its confidence interval; that is None where n < 2."""

    mean: Finite
    low: Finite | None = None
    high: Finite | None = None
    n: Int64

    @property
    def half(self) -> float | None:
        """Half the interval's width, for mean ± half."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recall:
    """How often a symbol was recalled over each distance; `chance` is what guessing gets."""

    distances: tuple[Finite, ...]
    accuracy: tuple[Finite, ...]
    chance: Finite


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Outcome:
    """How one training ended; the result.json of its run."""

    seed: Int64
    diverged_after: Int64 | None = None
    """The last step before its numbers were no longer finite."""
    best_step: Int64 | None = None
    """The step with the lowest validation loss; the last where nothing was validated."""
    validation: Finite | None = None
    """That loss, in nats per character."""
    seconds: Finite | None = None
    """Training time; where several runs trained together, its share."""
    chars_per_second: Finite | None = None
    """Of all runs that trained together."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Measures:
    """What was measured on the parameters of a run's best step; its measures.json."""

    test: Finite | None = None
    """Nats per character."""
    gradient: Norms | None = None
    fresh_gradient: Norms | None = None
    """The same before training."""
    recall: Recall | None = None
    calibration: Finite | None = None
    """The expected calibration error."""
    saturated: Finite | None = None
    """The fraction of time that a gate is saturated."""
    found_units: Int64 | None = None
    """How many units stand out for some feature of the text."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SeedResult(Outcome):
    """One finished training."""

    run: Line
    """The run's folder, inside the comparison's."""
    test: Finite | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelResult:
    """One model over its seeds; losses are in nats per character. What is unknown, or not known yet, is None."""

    name: Line
    cell: Line
    num_layers: Int64
    hidden_size: Int64
    size: Int64
    """Of the grid's sizes, the one that this model belongs to."""
    parameters: Int64 | None = None
    learning_rate: Finite | None = None
    operations: Finite | None = None
    """Floating-point operations of one seed's training."""
    seconds: Finite | None = None
    """Training time of all seeds together."""
    chars_per_second: Finite | None = None
    validation: Interval | None = None
    test: Interval | None = None
    difference: Interval | None = None
    """Of the test loss, this model's minus the baseline's."""
    published: Finite | None = None
    """The test loss that a paper reports."""
    baseline: Line | None = None
    reach: Interval | None = None
    """The lag, in characters, at which the gradient falls to 1 % of its start; of the furthest layer."""
    reaches_beyond: Flag = False
    """Whether the gradient of some seed was still larger at the largest lag measured, which counts as its reach."""
    gradient: Norms | None = None
    """The mean over seeds."""
    fresh_gradient: Norms | None = None
    recall: Recall | None = None
    calibration: Interval | None = None
    """These three as in `Measures`."""
    saturated: Interval | None = None
    found_units: Interval | None = None
    seeds: tuple[SeedResult, ...] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NGram:
    """The n-gram model with the lowest validation loss; a comparison's ngram.json. Losses are in nats per character."""

    order: Annotated[Int64, Field(ge=1)]
    validation: Finite | None = None
    test: Finite | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Results:
    """The table of a comparison."""

    name: Line
    corpus: Line
    symbols: Symbols
    vocabulary: Annotated[Int64, Field(ge=1)]
    confidence: Finite
    models: tuple[ModelResult, ...]
    ngram: NGram | None = None

    @property
    def rows(self) -> list[ModelResult]:
        """The models, and the n-gram model as one more."""
        if self.ngram is None:
            return [*self.models]
        validation, test = (
            None if loss is None else Interval(mean=loss, n=1) for loss in (self.ngram.validation, self.ngram.test)
        )
        what: Any = {"name": f"{self.ngram.order}-gram", "cell": NGRAM_CELL, "validation": validation, "test": test}
        return [*self.models, ModelResult(**what, num_layers=0, hidden_size=0, size=0)]


def read(folder: Path) -> Results:
    """The results of a comparison, from its folder. Raises InputError where there are none yet, or malformed ones."""
    path = inside(folder, RESULTS)
    if not path.exists():
        raise InputError(f"{folder} has no {RESULTS} yet; run its `charlstm compare` again, which writes it")
    return read_as(Results, path, "ignore")
