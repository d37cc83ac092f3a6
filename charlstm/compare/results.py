"""results.json: what a comparison found, read and checked. It may come from a stranger, like any file of a run."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from charlstm.config import Symbols
from charlstm.runs.folder import GRID
from charlstm.support.errors import InputError
from charlstm.support.files import inside, number, one_line, read_json

RESULTS = "results.json"
_LARGEST = 1e100  # sums and squares of such numbers are still finite
Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over n seeds, and its confidence interval; that is None where n < 2."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int

    @property
    def half(self) -> float | None:
        """Half the interval's width, for mean ± half."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How often a symbol was recalled over each distance; `chance` is what guessing gets."""

    distances: tuple[float, ...]
    accuracy: tuple[float, ...]
    chance: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one training came to; a run's result.json."""

    seed: int
    diverged_after: int | None = None
    """The last step before its numbers were no longer finite."""
    best_step: int | None = None
    """The step with the lowest validation loss; the last where nothing was validated."""
    validation: float | None = None
    """That loss, in nats per character."""
    seconds: float | None = None
    """Of its training, its share where several runs trained together."""
    chars_per_second: float | None = None
    """Of all the runs together."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What the parameters of a run's best step are like; its measures.json."""

    test: float | None = None
    """Nats per character."""
    gradient: tuple[tuple[float, ...], ...] | None = None
    """[L][K+1] norms of ∂loss(t)/∂h(t−k) for k from 0 to K."""
    fresh_gradient: tuple[tuple[float, ...], ...] | None = None
    """The same before training."""
    recall: Recall | None = None

    def __post_init__(self) -> None:
        for name in ("gradient", "fresh_gradient"):
            norms = getattr(self, name)
            if norms is not None and (len({*map(len, norms)}) != 1 or not norms[0]):
                raise ValueError(f"{name} must be a list for each layer, all of one length")


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One finished training. Losses are nats per character."""

    seed: int
    run: str
    """The run's folder, inside the comparison's."""
    best_step: int | None = None
    validation: float | None = None
    test: float | None = None
    diverged_after: int | None = None
    """The last step before the loss was no longer finite."""


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model over its seeds; what is not known, or not yet, is None."""

    name: str
    cell: str
    num_layers: int
    hidden_size: int
    size: int
    """What models that are compared with each other share; the hidden size of one of them."""
    parameters: int | None = None
    learning_rate: float | None = None
    operations: float | None = None
    """Floating-point operations of one seed's training."""
    seconds: float | None = None
    """Training time of all seeds together."""
    chars_per_second: float | None = None
    validation: Interval | None = None
    """Nats per character, like the next three."""
    test: Interval | None = None
    difference: Interval | None = None
    """Of the test loss, this model's minus the baseline's, paired by seed."""
    published: float | None = None
    """The test loss that a paper reports."""
    baseline: str | None = None
    reach: Interval | None = None
    """The lag, in characters, at which the gradient falls to 1 % of its start; of the furthest layer."""
    reaches_beyond: bool = False
    """Whether some seed's gradient was still larger at the largest lag that was measured, which counts as its reach."""
    gradient: tuple[tuple[float, ...], ...] | None = None
    """[L][K+1] norm, mean over seeds, of ∂loss(t)/∂h(t−k) for k from 0 to K."""
    fresh_gradient: tuple[tuple[float, ...], ...] | None = None
    """The same before training."""
    recall: Recall | None = None
    seeds: tuple[SeedResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole comparison."""

    name: str
    corpus: str
    symbols: Symbols
    vocabulary: int
    confidence: float
    models: tuple[ModelResult, ...]

    def __post_init__(self) -> None:
        if self.vocabulary < 1:
            raise ValueError("vocabulary must be at least 1")


def is_comparison(folder: Path) -> bool:
    """Whether a comparison was begun in the folder."""
    return (folder / RESULTS).exists() or (folder / GRID).exists()


def read(folder: Path) -> Results:
    """The results of the comparison in a folder.

    Raises:
        InputError: there are none yet, or the file is malformed.
    """
    path = inside(folder, RESULTS)
    if not path.exists():
        raise InputError(f"{folder} has no {RESULTS} yet; run its `charlstm compare` again, which writes it")
    return parse(read_json(path), path)


def parse(values: Mapping[str, Any], source: object = RESULTS) -> Results:
    """Results from JSON values: text as one line that can be printed; fields that are not known are passed over.

    Raises:
        InputError: a field is missing or has an impossible value; `source` is named.
    """
    return typed(values, Results, source)


def typed(values: Mapping[str, Any], kind: type[Kind], source: object) -> Kind:
    """A dataclass of this room from JSON values; as `parse`."""
    try:
        return _typed(values, kind, "")
    except ValueError as error:
        raise InputError(f"{one_line(source)} is malformed: {one_line(error)}; put back the comparison's own") from None


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value as its type hint asks; ValueError says where it is not."""
    if get_origin(hint) in (types.UnionType, Union):
        return None if value is None else _typed(value, get_args(hint)[0], where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list")
        return tuple(_typed(each, get_args(hint)[0], f"{where}[{number}]") for number, each in enumerate(value))
    if is_dataclass(hint):
        return _object(value, hint, where)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where} must be one of {', '.join(get_args(hint))}")
        return value
    if hint is float:
        value = number(value, _LARGEST)
    if type(value) is not hint or (hint is int and abs(value) >= 2**63):
        raise ValueError(f"{where} must be {({str: 'text', int: 'a whole number'}).get(hint, 'a finite number')}")
    return one_line(value) if hint is str else value


def _object(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'it'} must be an object")
    hints, given = get_type_hints(kind), {}
    for each in fields(kind):
        path = f"{where}.{each.name}".lstrip(".")
        if each.name in value:
            given[each.name] = _typed(value[each.name], hints[each.name], path)
        elif each.default is MISSING:
            raise ValueError(f"{path} is missing")
    return kind(**given)
