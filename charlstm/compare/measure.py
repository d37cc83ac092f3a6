"""A run that is trained becomes what a comparison says of it: its test loss, and how far its memory reaches."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.analysis.evaluate import evaluate
from charlstm.analysis.gradient_reach import LAGS, gradient_lags
from charlstm.analysis.recall import accuracy, distances_of
from charlstm.core.step import initial_state
from charlstm.data.recall_text import is_named
from charlstm.data.vocabulary import Vocabulary
from charlstm.data.windows import Splits
from charlstm.runs.loading import trained


def measured(folder: Path, step: int, vocabulary: Vocabulary, splits: Splits) -> dict[str, Any]:
    """JSON values of a run's parameters as they were after a step.

    Args:
        folder: of the run.
        step: of a checkpoint.
        vocabulary, splits: of the run's text.

    Returns:
        test: nats per character of the test split, which chose nothing; None where there is none.
        gradient, fresh_gradient: norms [L][K+1] of `lags`, of these parameters and of those before the first update;
            None where there is no text to measure them on.
        recall: distances and accuracies of `recall`, where that is the text; else None.

    Raises:
        InputError: there is no such checkpoint, or it is not whole; or the folder's vocabulary is another.
    """
    run, model, params, *_ = trained(folder, str(step))
    run.refuse_other_vocabulary(vocabulary)
    where = splits.validation if len(splits.validation) else splits.train
    lags = min(LAGS, len(where) - 2)
    test = evaluate(model, params, splits.test).loss if len(splits.test) else math.nan
    found: dict[str, Any] = {"test": test if math.isfinite(test) else None}
    for name, each in (("gradient", params), ("fresh_gradient", initial_state(run.config, model).params)):
        norms = gradient_lags(model, each, where, lags=lags).norms if lags > 0 else np.array(math.nan)
        found[name] = norms.tolist() if np.isfinite(norms).all() else None
    corpus = run.config.data.corpus
    recalled = accuracy(model, params, run.vocabulary, distances_of(corpus))._asdict() if is_named(corpus) else None
    return found | {"recall": recalled}
