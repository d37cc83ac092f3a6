"""A run that is trained becomes what a comparison says of it: its losses, and how far its memory reaches."""

from typing import Any

from charlstm.batches import Splits
from charlstm.evaluate import evaluate
from charlstm.lags import LAGS, gradient_lags
from charlstm.model import Model, Params
from charlstm.recall import accuracy, distances_of
from charlstm.recall_text import is_named
from charlstm.runs import Run
from charlstm.step import initial_state


def measured(run: Run, model: Model, params: Params, splits: Splits) -> dict[str, Any]:
    """JSON values of a run's parameters.

    Returns:
        test: nats per character of the test split, which chose nothing; None where there is none.
        gradient, fresh_gradient: norms [L][K+1] of `lags`, of these parameters and of those before the first update;
            None where there is no text to measure them on.
        recall: distances and accuracies of `recall`, where that is the text; else None.
    """
    where = splits.validation if len(splits.validation) else splits.train
    lags = min(LAGS, len(where) - 2)
    found: dict[str, Any] = {"test": evaluate(model, params, splits.test).loss if len(splits.test) else None}
    for name, each in (("gradient", params), ("fresh_gradient", initial_state(run.config, model).params)):
        found[name] = gradient_lags(model, each, where, lags=lags).norms.tolist() if lags > 0 else None
    corpus = run.config.data.corpus
    recalled = accuracy(model, params, run.vocabulary, distances_of(corpus))._asdict() if is_named(corpus) else None
    return found | {"recall": recalled}
