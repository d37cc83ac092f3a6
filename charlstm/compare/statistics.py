"""What is measured of a comparison's runs, and its table: means with intervals over seeds, and differences.

Intervals are Student's t over seeds, and Welch's (1947) for a difference: two models share no more of a seed than its
number. They say how much of a figure is the seed's doing, not the text's: all runs read the same one.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from charlstm.analysis.evaluate import default_rows, evaluate
from charlstm.analysis.gradient_reach import LAGS, gradient_reach, reach
from charlstm.analysis.inside.activations import activations
from charlstm.analysis.inside.ngram import ORDERS, ngram
from charlstm.analysis.inside.survey import survey
from charlstm.analysis.recall import accuracy, distances_of
from charlstm.compare.grid import GridModel
from charlstm.compare.results import Interval, Measures, ModelResult, NGram, Outcome, Results, SeedResult
from charlstm.config import Grid
from charlstm.core.network import Params
from charlstm.core.size import count_training_operations
from charlstm.data import labels
from charlstm.data.dataset import Dataset
from charlstm.data.recall_text import is_named
from charlstm.runs.folder import read_as
from charlstm.runs.loading import load_run
from charlstm.runs.models import first_state
from charlstm.support.errors import InputError
from charlstm.support.files import inside

RESULT, MEASURES = "result.json", "measures.json"
"""In the folder of a run: what its training came to, and what `measure_run` says of its best parameters."""
NGRAM = "ngram.json"
"""In the folder of a comparison: the best n-gram model on its text."""
CONFIDENCE = 0.95
_SURVEYED = 50_000  # characters of the validation split whose units, gates and calibration are looked at
_COUNTED = 20_000_000  # characters of the training split that n-grams are counted in


def tabulate(folder: Path, grid: Grid, models: Sequence[GridModel], vocabulary_size: int) -> Results:
    """The table of what is measured so far in a comparison's folder."""
    runs = {model.name: list(_runs(folder, model, grid.seeds)) for model in models}
    return Results(
        name=folder.resolve().name,
        corpus=grid.base.data.corpus,
        symbols=grid.base.data.symbols,
        vocabulary=vocabulary_size,
        confidence=CONFIDENCE,
        models=tuple(_row(model, runs, vocabulary_size) for model in models),
        ngram=read_as(NGram, path, "ignore") if (path := inside(folder, NGRAM)).exists() else None,
    )


def interval(values: Sequence[float]) -> Interval | None:
    """Mean and t interval of some numbers; no interval of one, and nothing of none."""
    if not values:
        return None
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        error = float(stats.sem(values))
        low, high = map(float, stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)) if error else (mean, mean)
    return Interval(mean=mean, low=low, high=high, n=len(values))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """The mean of ours minus that of theirs, and Welch's interval; `n` is the smaller number. None without either."""
    if not (ours and theirs):
        return None
    mean, n = statistics.fmean(ours) - statistics.fmean(theirs), min(len(ours), len(theirs))
    if n == 1:
        return Interval(mean=mean, n=n)
    variances, freedoms = [float(stats.sem(each)) ** 2 for each in (ours, theirs)], [len(ours) - 1, len(theirs) - 1]
    variance, half = sum(variances), 0.0
    if variance:  # Satterthwaite's degrees of freedom
        shares = sum((each / variance) ** 2 / freedom for each, freedom in zip(variances, freedoms, strict=True))
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, 1 / shares)) * math.sqrt(variance)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def furthest_reach(norms: Sequence[Sequence[float]]) -> tuple[int, bool]:
    """The largest reach of any layer, given norms [L][K+1], and whether it lies beyond K, which then stands for it."""
    lags = [reach(np.array(layer)) for layer in norms]
    return max(len(norms[0]) - 1 if lag is None else lag for lag in lags), None in lags


def measure_run(folder: Path, step: int, data: Dataset) -> dict[str, Any]:
    """The JSON values of `results.Measures`, of a run's parameters as they were after a step.

    The test split chose nothing. What cannot be measured on this text is None.
    """
    run = load_run(folder, str(step))
    run.run.check_text(data.fingerprint, data.vocabulary)
    text = data.validation if len(data.validation) else data.train.ids
    lags = min(LAGS, len(text) - 2)
    newline = run.run.newline
    test = evaluate(run.model, run.params, data.test, newline=newline).loss if len(data.test) else math.nan

    def norms(params: Params) -> list[list[float]] | None:
        if lags <= 0:
            return None
        found = gradient_reach(run.model, params, text, lags=lags, newline=newline).norms
        return found.tolist() if np.isfinite(found).all() else None

    ids = np.asarray(text[:_SURVEYED])
    blocks = activations(run.model, run.params, ids, rows=default_rows(len(ids)), newline=newline)
    seen = survey(blocks, ids, labels.features(run.vocabulary.decode(ids)))
    corpus, recall = run.config.data.corpus, None
    if is_named(corpus):
        recall = accuracy(run.model, run.params, run.vocabulary, distances_of(corpus))._asdict()
    return {
        "test": test if math.isfinite(test) else None,
        "gradient": norms(run.params),
        "fresh_gradient": norms(first_state(run.config, run.model).params),
        "recall": recall,
        "calibration": seen.calibration.error,
        "saturated": seen.saturated,
        "found_units": seen.found_units,
    }


def measure_ngram(data: Dataset) -> dict[str, Any]:
    """The JSON values of `results.NGram`: of the order with the lowest validation loss, trained on the training split.

    Without a validation split, of the longest one.
    """
    train = data.train.ids[:_COUNTED]
    losses = {
        name: ngram(train, ids, len(data.vocabulary)).nats.mean(1)
        for name, ids in (("validation", data.validation), ("test", data.test))
        if len(ids)
    }
    order = int(losses["validation"].argmin()) + 1 if "validation" in losses else ORDERS
    return {"order": order} | {name: float(each[order - 1]) for name, each in losses.items()}


def outcome(folder: Path) -> Outcome:
    """A trained run's result.json. Raises InputError where there is none, or it is malformed."""
    return read_as(Outcome, inside(folder, RESULT), "ignore")


_Finished = tuple[SeedResult, Measures]


def _runs(folder: Path, model: GridModel, seeds: int) -> Iterator[_Finished]:
    for number in range(seeds):
        name = model.folder(number)
        if (folder / name / RESULT).exists():
            path = inside(folder, f"{name}/{MEASURES}")
            measures = read_as(Measures, path, "ignore") if path.exists() else Measures()
            yield SeedResult(run=name, test=measures.test, **vars(outcome(inside(folder, name)))), measures


def _by_seed(runs: Sequence[_Finished], field: str) -> dict[int, Any]:
    """A figure by seed. A run that diverged has none: what it was before that is not what its training leads to."""
    steady = [(seed, measures) for seed, measures in runs if seed.diverged_after is None]
    known = {seed.seed: (vars(seed) | vars(measures))[field] for seed, measures in steady}
    return {seed: value for seed, value in known.items() if value is not None}


def _row(model: GridModel, runs: Mapping[str, Sequence[_Finished]], vocabulary_size: int) -> ModelResult:
    config, seeds = model.config, tuple(seed for seed, _ in runs[model.name])
    figures = partial(_by_seed, runs[model.name])
    test, gradients, recalls = figures("test"), figures("gradient"), list(figures("recall").values())
    theirs = _by_seed(runs[model.baseline], "test") if model.baseline else {}
    symbols = config.train.steps * config.data.batch_size * config.data.seq_length
    times = [seed.seconds for seed in seeds if seed.seconds is not None]
    speeds = [seed.chars_per_second for seed in seeds if seed.chars_per_second is not None]
    reaches = [furthest_reach(norms) for norms in gradients.values()]
    return ModelResult(
        name=model.name,
        cell=config.model.cell,
        num_layers=config.model.num_layers,
        hidden_size=config.model.hidden_size,
        size=model.size,
        parameters=model.parameters,
        learning_rate=config.optimizer.learning_rate,
        operations=float(count_training_operations(config.model, vocabulary_size) * symbols),
        seconds=sum(times) if times else None,
        chars_per_second=statistics.fmean(speeds) if speeds else None,
        validation=interval(list(figures("validation").values())),
        test=interval(list(test.values())),
        difference=difference(list(test.values()), list(theirs.values())),
        published=model.published,
        baseline=model.baseline,
        reach=interval([lag for lag, _ in reaches]),
        reaches_beyond=any(beyond for _, beyond in reaches),
        gradient=_mean(list(gradients.values())),
        fresh_gradient=_mean(list(figures("fresh_gradient").values())),
        calibration=interval(list(figures("calibration").values())),
        saturated=interval(list(figures("saturated").values())),
        found_units=interval(list(figures("found_units").values())),
        recall=replace(recalls[0], accuracy=_mean([each.accuracy for each in recalls])) if recalls else None,
        seeds=seeds,
    )


def _mean(arrays: Sequence[Any]) -> Any:
    """The mean over seeds of lists of one shape; None of none."""
    if len({np.shape(each) for each in arrays}) > 1:
        raise InputError(f"seeds of a model differ in the lengths in their {MEASURES}; delete those, to measure again")
    return np.mean(np.array(arrays), 0).tolist() if arrays else None
