"""What every process but the first does in a training of several: it computes, and touches no file but its text.

The first tells it what to train; the turns are those of `train`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

from charlstm.analysis.settings import under_settings
from charlstm.config import Experiment
from charlstm.core.loss import mean_nats
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate
from charlstm.core.step import Loss, TrainState
from charlstm.data import corpora
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.runs.folder import Run
from charlstm.runs.models import chain_of, first_state, make_model, options_of
from charlstm.support.errors import InputError
from charlstm.support.schema import from_dict
from charlstm.training.loop import Callback, Loop, Watch
from charlstm.training.member import Member
from charlstm.training.peers import JoinedPeers
from charlstm.training.seeds import lay_out, one_run
from charlstm.training.signals import collected


class _WithoutFiles(Member):
    """The run of a process that writes nothing."""

    def __init__(self, run: Run) -> None:
        nothing: Any = None
        super().__init__(run, nothing, nothing, nothing)

    def write(self, record: dict[str, Any]) -> None:
        pass

    def show(self) -> None:
        pass


@under_settings
def follow(
    corpus: str | None = None,
    *,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    data: Any = None,
    callbacks: Sequence[Callback] = (),
    signals: bool = False,
) -> TrainState:
    """Train as process 0 says, which calls `train`; arguments, result and errors are as there.

    Args:
        corpus: where the text is on this host; by default where process 0 has it.
    """
    with collected(signals) as received:
        peers = JoinedPeers(received)
        with peers.turn() as told:
            pass
        with peers.turn():
            config = from_dict(told["config"], Experiment)
            if data is None:
                place = corpora.resolve(config.data.corpus if corpus is None else corpus)
                data = Dataset.read(replace(config.data, corpus=place))
            text = from_dict(told["text"], Fingerprint)
            _check_text(getattr(data, "fingerprint", text), text)
            model = make_model(config, len(data.vocabulary), backend=told["backend"])
            _check_backend(model, told["backend"])
            options = options_of(config)
            layout = lay_out(config, options)
            received.check()
        with peers.turn() as told:
            pass
        schedule = learning_rate(config.optimizer, config.train.steps) if tx is None else None
        chain = chain_of(config, layout) if tx is None else tx
        state = peers.spread(jax.eval_shape(partial(first_state, config, model, chain)))
        one = one_run(peers, model, chain, layout, loss or mean_nats, schedule, options)
        member = _WithoutFiles(Run(Path(), config, data.vocabulary, text))
        loop = Loop([member], one, data, [state], Watch(), lambda *_: None, callbacks, peers)
        if told["ends_now"] or not loop.was_finished:
            (state,) = loop.run(peers.received)
    return state


def _check_text(here: Fingerprint, there: Fingerprint) -> None:
    if not here.is_of(there):
        ours, theirs = (f"{each.characters:,} characters (SHA-256 {each.sha256[:12]})" for each in (here, there))
        what = f"the text of {here.corpus} has {ours}, and that of process 0 {theirs}"
        raise InputError(f"{what}; give all processes the same text")


def _check_backend(model: Model, wanted: str) -> None:
    if model.backend != wanted:
        what = f"layers run by {model.backend} here, and by {wanted} in process 0"
        raise InputError(
            f"{what}; `charlstm compile` says whether the native core can be had, and --model.recurrence"
            " fast does without"
        )
