"""The runs of a comparison become its table: means with intervals over seeds, and differences from a baseline.

Intervals are Student's t over seeds, and those of a difference are of the differences seed by seed (Student 1908). They
say how much of a figure is the seed's doing, not the text's: all runs read the same one.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from charlstm.config import Grid
from charlstm.files import read_json
from charlstm.grid import Candidate
from charlstm.lags import Lags
from charlstm.results import Interval, ModelResult, Recall, Results, SeedResult
from charlstm.sizes import training

RESULT, MEASURES = "result.json", "measures.json"
"""In the folder of a run: what its training came to, and what `measure` says of its best parameters."""
CONFIDENCE = 0.95

Measured = dict[str, Any]
"""A run's result.json and measures.json together, and its folder as "run"."""


def tally(folder: Path, grid: Grid, models: Sequence[Candidate], vocabulary_size: int) -> Results:
    """The table of what is measured so far in a comparison's folder."""
    runs = {model.name: list(_runs(folder, model, grid.seeds)) for model in models}
    return Results(
        name=folder.resolve().name,
        corpus=grid.base.data.corpus,
        symbols=grid.base.data.symbols,
        vocabulary=vocabulary_size,
        confidence=CONFIDENCE,
        models=tuple(_row(model, runs, vocabulary_size) for model in models),
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


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """Mean and t interval of ours minus theirs, paired by seed; seeds that one of them lacks are left out."""
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _runs(folder: Path, model: Candidate, seeds: int) -> Iterator[Measured]:
    for number in range(seeds):
        name = f"{model.name}/seed-{model.run(number).seed}"
        if (folder / name / RESULT).exists():
            found = [read_json(path) for each in (RESULT, MEASURES) if (path := folder / name / each).exists()]
            yield {"run": name} | found[0] | (found[1] if len(found) > 1 else {})


def _of(runs: Sequence[Measured], field: str) -> dict[int, Any]:
    """A figure by seed. A run that diverged has none: what it was before that is not what its training leads to."""
    return {run["seed"]: run[field] for run in runs if run["diverged_after"] is None and run.get(field) is not None}


def _row(model: Candidate, runs: Mapping[str, Sequence[Measured]], vocabulary_size: int) -> ModelResult:
    mine, config = runs[model.name], model.config
    test, gradients = _of(mine, "test"), _of(mine, "gradient")
    symbols = config.train.steps * config.data.batch_size * config.data.seq_length
    return ModelResult(
        name=model.name,
        cell=config.model.cell,
        num_layers=config.model.num_layers,
        hidden_size=config.model.hidden_size,
        size=model.size,
        parameters=model.parameters,
        learning_rate=config.optimizer.learning_rate,
        operations=float(training(config.model, vocabulary_size) * symbols),
        seconds=sum(seconds) if (seconds := _of(mine, "seconds").values()) else None,
        chars_per_second=statistics.fmean(speeds) if (speeds := _of(mine, "chars_per_second").values()) else None,
        validation=interval(list(_of(mine, "validation").values())),
        test=interval(list(test.values())),
        difference=difference(test, _of(runs[model.baseline], "test")) if model.baseline else None,
        published=model.published,
        baseline=model.baseline,
        reach=interval([_furthest(norms) for norms in gradients.values()]),
        gradient=_mean(gradients),
        fresh_gradient=_mean(_of(mine, "fresh_gradient")),
        recall=_recall(list(_of(mine, "recall").values())),
        seeds=tuple(
            SeedResult(**{name: run.get(name) for name in SeedResult.__dataclass_fields__})  # pyright: ignore[reportArgumentType]
            for run in mine
        ),
    )


def _furthest(norms: Sequence[Sequence[float]]) -> int:
    """The lag at which the last layer's gradient falls to 1 % of its start; the largest that was measured, if none."""
    lags = Lags(np.array(norms))
    return max(lags.norms.shape[1] - 1 if reach is None else reach for reach in lags.reach())


def _mean(arrays: Mapping[int, Any]) -> Any:
    """The mean over seeds of norms [L][K+1], as tuples; None of none."""
    if not arrays:
        return None
    return tuple(map(tuple, np.mean([np.array(each) for each in arrays.values()], 0).tolist()))


def _recall(recalled: Sequence[Mapping[str, Any]]) -> Recall | None:
    """The mean over seeds."""
    if not recalled:
        return None
    accuracy = np.mean([each["accuracy"] for each in recalled], 0).tolist()
    return Recall(
        distances=tuple(map(float, recalled[0]["distances"])), accuracy=tuple(accuracy), chance=recalled[0]["chance"]
    )
