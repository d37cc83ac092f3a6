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
from charlstm.sizes import TRAINING, operations

RESULT, RESULTS = "result.json", "results.json"
CONFIDENCE = 0.95


def results(folder: Path, grid: Grid, models: Sequence[Candidate], vocabulary_size: int) -> dict[str, Any]:
    """The table of what is measured so far, as JSON values."""
    runs = {model.name: list(_runs(folder, model, grid.seeds)) for model in models}
    return {
        "name": folder.name,
        "corpus": grid.base.data.corpus,
        "symbols": grid.base.data.symbols,
        "vocabulary": vocabulary_size,
        "confidence": CONFIDENCE,
        "models": [_row(model, runs, vocabulary_size) for model in models],
    }


def interval(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and t interval of some numbers; no interval of one, and nothing of none."""
    if not values:
        return None
    mean, low, high = statistics.fmean(values), None, None
    if len(values) > 1:
        error = float(stats.sem(values))
        low, high = map(float, stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)) if error else (mean, mean)
    return {"mean": mean, "low": low, "high": high, "n": len(values)}


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean and t interval of ours minus theirs, paired by seed; seeds that one of them lacks are left out."""
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _runs(folder: Path, model: Candidate, seeds: int) -> Iterator[dict[str, Any]]:
    for number in range(seeds):
        name = f"{model.name}/seed-{model.run(number).seed}"
        if (path := folder / name / RESULT).exists():
            yield {"run": name} | read_json(path)


def _of(runs: Sequence[dict[str, Any]], field: str) -> dict[int, float]:
    """A figure by seed. Runs that diverged have none: a mean over them would be one of another training's."""
    return {run["seed"]: run[field] for run in runs if run["diverged_after"] is None and run.get(field) is not None}


def _row(model: Candidate, runs: Mapping[str, Sequence[dict[str, Any]]], vocabulary_size: int) -> dict[str, Any]:
    mine = runs[model.name]
    config, test = model.config, _of(mine, "test")
    gradients = _of(mine, "gradient")
    reaches = [_furthest(norms) for norms in gradients.values()]
    symbols = config.train.steps * config.data.batch_size * config.data.seq_length
    recalled = list(_of(mine, "recall").values())
    return {
        "name": model.name,
        "cell": config.model.cell,
        "num_layers": config.model.num_layers,
        "hidden_size": config.model.hidden_size,
        "size": model.size,
        "parameters": model.parameters,
        "learning_rate": config.optimizer.learning_rate,
        "operations": float(TRAINING * operations(config.model, vocabulary_size) * symbols),
        "seconds": sum(run["seconds"] for run in mine),
        "chars_per_second": statistics.fmean(run["chars_per_second"] for run in mine) if mine else None,
        "validation": interval(list(_of(mine, "validation").values())),
        "test": interval(list(test.values())),
        "baseline": model.baseline,
        "difference": difference(test, _of(runs[model.baseline], "test")) if model.baseline else None,
        "reach": interval(reaches),
        "gradient": _mean(gradients),
        "fresh_gradient": _mean(_of(mine, "fresh_gradient")),
        "recall": recalled[0] | {"accuracy": np.mean([each["accuracy"] for each in recalled], 0).tolist()}
        if recalled
        else None,
        "published": model.published,
        "seeds": [
            {key: run.get(key) for key in ("seed", "run", "best_step", "validation", "test", "diverged_after")}
            for run in mine
        ],
    }


def _furthest(norms: Sequence[Sequence[float]]) -> int:
    """The lag at which the last layer's gradient falls to 1 % of its start; the largest that was measured, if none."""
    lags = Lags(np.array(norms))
    return max(lags.norms.shape[1] - 1 if reach is None else reach for reach in lags.reach())


def _mean(arrays: Mapping[int, Any]) -> Any:
    """The mean over seeds of lists of one shape, as a list; None of none."""
    return np.mean([np.array(each) for each in arrays.values()], 0).tolist() if arrays else None
