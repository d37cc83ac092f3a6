"""A new run that begins with the parameters of another, matched by symbol and not by id."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.config import Experiment
from charlstm.core.network import Model, Params
from charlstm.core.step import TrainState
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.config_file import Origin
from charlstm.runs.loading import TrainedRun, load_run
from charlstm.support.errors import InputError
from charlstm.support.files import one_line
from charlstm.support.schema import flat

_MUST_AGREE = ("model.cell", "model.hidden_size", "model.num_layers", "data.symbols")


def origin_of(old: TrainedRun) -> Origin:
    """What a run that begins with the parameters of `old` keeps of it."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(old.params)):
        digest.update(np.ascontiguousarray(leaf).data)
    return Origin(run=str(old.run.folder.absolute()), step=old.step, sha256=digest.hexdigest())


def load_origin(origin: Origin) -> TrainedRun:
    """The run that another began with, as it was; raises InputError where it is no more."""
    old = load_run(origin.run, origin.step)
    if origin_of(old).sha256 != origin.sha256:
        raise InputError(f"{one_line(origin.run)} has other parameters at step {origin.step}; bring the old ones back")
    return old


def begin_from(
    old: TrainedRun, config: Experiment, vocabulary: Vocabulary, model: Model, first: TrainState
) -> tuple[TrainState, str]:
    """The state before the first update of a run that begins with the parameters of `old`; otherwise as `transfer`."""
    params, line = transfer(old, config, vocabulary, model, first.params)
    return first._replace(params=jax.tree.map(jnp.array, params)), line  # copies, which may be donated


def transfer(
    old: TrainedRun, config: Experiment, vocabulary: Vocabulary, model: Model, fresh: Params
) -> tuple[Params, str]:
    """The parameters that a new run begins with, and a line about them.

    What reads or predicts a symbol that both vocabularies have is the old run's, as is all that belongs to no symbol. A
    symbol that only the new one has keeps its part of the `fresh` parameters.

    Raises:
        InputError: the two differ in cell, width, depth, or in what a symbol is.
    """
    theirs, ours = flat(old.config), flat(config)
    if wrong := [name for name in _MUST_AGREE if theirs[name] != ours[name]]:
        differ = ", ".join(f"{name} is {ours[name]} and was {theirs[name]}" for name in wrong)
        typed = " ".join(f"--{name.replace('_', '-')} {theirs[name]}" for name in wrong)
        raise InputError(f"a run cannot begin from {one_line(old.run.folder)}: {differ}; give {typed}")
    shared = "".join(each for each in vocabulary.characters if not old.vocabulary.unknown(each))
    here, there = vocabulary.encode(shared), old.vocabulary.encode(shared)

    def merge(fresh: Any, old: Any, wider: Any) -> np.ndarray:
        # The axis that belongs to symbols is the one that a larger vocabulary makes longer.
        axis = next((axis for axis, size in enumerate(fresh.shape) if wider.shape[axis] != size), None)
        if axis is None:
            return np.asarray(old)
        merged = np.array(fresh)
        np.moveaxis(merged, axis, 0)[here] = np.moveaxis(np.asarray(old), axis, 0)[there]
        return merged

    wider = jax.eval_shape(Model(model.config, model.vocabulary_size + 1).init, jax.random.key(0))
    new, lost = len(vocabulary) - len(shared), len(old.vocabulary) - len(shared)
    counts = f"{config.data.symbols} known to both: {len(shared):,}, new: {new:,}, gone: {lost:,}"
    line = f"begins with the parameters of {one_line(old.run.folder)} after step {old.step:,}: {counts}"
    return jax.tree.map(merge, fresh, old.params, wider), line
