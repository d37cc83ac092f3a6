"""A new run that begins with the parameters of another, matched by symbol and not by id."""

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.config import Experiment
from charlstm.core.network import Model, Params
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.config_file import Origin, read_config
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
    return Origin(run=os.path.realpath(old.run.folder), step=old.step, sha256=digest.hexdigest())


_ANEW = "name a copy that has them with --init-from, or begin anew in another --run-dir"


def load_origin(origin: Origin, how: str = _ANEW) -> TrainedRun:
    """The run that another began with, as it was; raises InputError, which says `how` to go on, where it is no more."""
    try:
        old = load_run(origin.run, origin.step)
        if origin_of(old).sha256 != origin.sha256:
            raise InputError(f"it has other parameters at step {origin.step}")
    except InputError as error:
        what = f"the run began with the parameters of {one_line(origin.run)} after step {origin.step:,}, which are gone"
        raise InputError(f"{what} ({error}); {how}") from None
    return old


def find_origin(origin: Origin, folder: Path) -> Origin | None:
    """The origin of a run in a folder that may have been moved or copied; None if what is there is not it."""
    here = replace(origin, run=os.path.realpath(folder))
    with suppress(InputError):
        return here if here.run == os.path.realpath(origin.run) or load_origin(here) else None
    return None


def load_repeated(config: Path) -> TrainedRun | None:
    """What a config.json began with, if not fresh: its origin or, where that is gone, checkpoint 0 of its own run."""
    origin = read_config(config).init_from
    try:
        return load_origin(origin) if origin else None
    except InputError:
        with suppress(InputError):
            if (own := load_run(config.parent, 0)).run.init_from == origin:
                return own
        raise


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

    def merge(fresh: Any, old: Any, wider: Any) -> jax.Array:
        # The axis that belongs to symbols is the one that a larger vocabulary makes longer.
        axis = next((axis for axis, size in enumerate(fresh.shape) if wider.shape[axis] != size), None)
        if axis is None:
            return jnp.array(old)  # a copy, which may be donated
        merged = np.array(fresh)
        np.moveaxis(merged, axis, 0)[here] = np.moveaxis(np.asarray(old), axis, 0)[there]
        return jnp.array(merged)

    wider = jax.eval_shape(Model(model.config, model.vocabulary_size + 1).init, jax.random.key(0))
    new, lost = len(vocabulary) - len(shared), len(old.vocabulary) - len(shared)
    counts = f"{config.data.symbols} known to both: {len(shared):,}, new: {new:,}, gone: {lost:,}"
    line = f"begins with the parameters of {one_line(old.run.folder)} after step {old.step:,}: {counts}"
    return jax.tree.map(merge, fresh, old.params, wider), line
