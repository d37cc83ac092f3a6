"""Laws of a run that begins with another's parameters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_params

from charlstm.config import CELLS, DataConfig, Experiment, ModelConfig
from charlstm.core.network import Model
from charlstm.data.dataset import Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.folder import Run
from charlstm.runs.loading import TrainedRun
from charlstm.runs.transfer import transfer
from charlstm.support.errors import InputError

texts = st.text(st.sampled_from("abcdefgh€\ud800"), min_size=1, max_size=12)


def trained(config: Experiment, vocabulary: Vocabulary) -> TrainedRun:
    model = Model(config.model, vocabulary.size)
    run = Run(Path("old"), config, vocabulary, Fingerprint("", "", 0))
    return TrainedRun(run, model, random_params(model, 7), 12)


def begun(old: TrainedRun, vocabulary: Vocabulary, **model: Any) -> tuple[Model, Any, Any]:
    """The new model, its fresh parameters, and those that it begins with."""
    config = replace(old.config, model=replace(old.config.model, **model))
    made = Model(config.model, vocabulary.size)
    fresh = random_params(made, 1)
    return made, fresh, transfer(old, config, vocabulary, made, fresh)[0]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@settings(max_examples=10)
@given(texts, texts)
def test_symbols_keep_what_was_learnt_of_them_whatever_their_ids(cell: str, before: str, now: str) -> None:
    config = Experiment(model=ModelConfig(cell=cell, hidden_size=3, num_layers=2))
    old, vocabulary = trained(config, Vocabulary.of(before)), Vocabulary.of(now)
    _, fresh, params = begun(old, vocabulary)
    for place, symbol in enumerate(vocabulary.characters):
        was, known = (old.params, old.vocabulary.encode(symbol)[0]) if symbol in before else (fresh, place)
        for name in params["stack"]["layer_0"]:
            if name.startswith("i"):
                kernels = [each["stack"]["layer_0"][name]["kernel"] for each in (params, was)]
                np.testing.assert_array_equal(kernels[0][place], kernels[1][known])
        np.testing.assert_array_equal(params["head"]["kernel"][:, place], was["head"]["kernel"][:, known])
        np.testing.assert_array_equal(params["head"]["bias"][place], was["head"]["bias"][known])
    np.testing.assert_equal(jax.device_get(params["stack"]["layer_1"]), jax.device_get(old.params["stack"]["layer_1"]))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "transferred"])
def test_with_the_same_vocabulary_the_parameters_are_the_old_ones(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "transferred", nn.OptimizedLSTMCell)
    old = trained(Experiment(model=ModelConfig(cell=cell, hidden_size=4, num_layers=2)), Vocabulary.of("a text"))
    _, _, params = begun(old, old.vocabulary, dropout=0.5)
    np.testing.assert_equal(jax.device_get(params), jax.device_get(old.params))


def test_a_width_that_differs_is_said_with_what_to_type() -> None:
    old = trained(Experiment(model=ModelConfig(hidden_size=4, num_layers=2)), Vocabulary.of("ab"))
    with pytest.raises(InputError, match="give --model.hidden-size 4 --model.num-layers 2$"):
        begun(old, old.vocabulary, hidden_size=5, num_layers=1)
    as_bytes = replace(old.config, data=DataConfig(symbols="bytes"))
    with pytest.raises(InputError, match="data.symbols is bytes and was characters"):
        transfer(old, as_bytes, old.vocabulary, old.model, old.params)


def test_the_line_counts_symbols() -> None:
    old = trained(Experiment(model=ModelConfig(hidden_size=4)), Vocabulary.of("abc"))
    vocabulary = Vocabulary.of("bcxyz")
    model = Model(old.config.model, vocabulary.size)
    line = transfer(old, old.config, vocabulary, model, random_params(model, 1))[1]
    assert line.endswith("old after step 12: characters known to both: 2, new: 3, gone: 1")
