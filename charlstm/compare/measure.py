"""What a comparison says of a trained run: its test loss, and how far back its gradient and its memory reach."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.analysis.evaluate import evaluate
from charlstm.analysis.gradient_reach import LAGS, gradient_reach
from charlstm.analysis.recall import accuracy, distances_of
from charlstm.core.network import Params
from charlstm.data.dataset import Dataset
from charlstm.data.recall_text import is_named
from charlstm.runs.loading import load_run
from charlstm.runs.models import first_state


def measure_run(folder: Path, step: int, data: Dataset) -> dict[str, Any]:
    """The JSON values of `results.Measures`, of a run's parameters as they were after a step.

    The test split chose nothing. What cannot be measured on this text is None.
    """
    run = load_run(folder, str(step))
    run.run.check_vocabulary(data.vocabulary)
    text = data.validation if len(data.validation) else data.train.ids
    lags = min(LAGS, len(text) - 2)
    test = evaluate(run.model, run.params, data.test).loss if len(data.test) else math.nan

    def norms(params: Params) -> list[list[float]] | None:
        found = gradient_reach(run.model, params, text, lags=lags).norms if lags > 0 else np.array(math.nan)
        return found.tolist() if np.isfinite(found).all() else None

    corpus, recall = run.config.data.corpus, None
    if is_named(corpus):
        recall = accuracy(run.model, run.params, run.vocabulary, distances_of(corpus))._asdict()
    return {
        "test": test if math.isfinite(test) else None,
        "gradient": norms(run.params),
        "fresh_gradient": norms(first_state(run.config, run.model).params),
        "recall": recall,
    }
