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
from charlstm.support.errors import InputError


def measure_run(folder: Path, step: int, data: Dataset) -> dict[str, Any]:
    """JSON values of a run's parameters as they were after a step.

    Args:
        folder: of the run.
        step: of a checkpoint.
        data: the run's text.

    Returns:
        test: nats per character of the test split, which chose nothing; None where there is none.
        gradient, fresh_gradient: norms [L][K+1] of `gradient_reach`, of these parameters and of those before the first
            update; None where there is no text to measure them on.
        recall: distances and accuracies of `recall`, where that is the text; else None.

    Raises:
        InputError: the checkpoint is missing or damaged, or the folder's vocabulary is not that of the text.
    """
    run = load_run(folder, str(step))
    if run.vocabulary != data.vocabulary:
        raise InputError(f"{folder}/vocabulary.json is not that of the run's text; put back the run's own file")
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
        "fresh_gradient": norms(load_run(folder, "fresh").params),
        "recall": recall,
    }
