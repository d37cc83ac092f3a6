"""What training drops besides units: the same in every backend, as often as asked, and without bias."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    CELLS,
    assert_trees_close,
    assert_trees_equal,
    random_carry,
    random_ids,
    random_params,
    small_model,
)
from small_models import applied, value_and_gradients

from charlstm import config
from charlstm.config import Cell, ModelConfig
from charlstm.core.dropout import drop_weights, output_masks
from charlstm.core.fast import native
from charlstm.core.network import Model

SEEDS = st.integers(0, 2**32 - 1)
DROPPING: dict[str, Any] = {"recurrent_dropout": 0.4, "input_dropout": 0.3, "carry_dropout": 0.5, "dropout": 0.2}
by_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.mark.parametrize("cell", ["rnn", *(pytest.param(each, marks=pytest.mark.slow) for each in ("gru", "lstm"))])
@settings(max_examples=4)
@given(seed=SEEDS)
def test_what_is_read_equals_numpy_and_every_backend_reads_the_same(cell: Cell, seed: int):
    plain = small_model(cell, layers=2, recurrence="plain", **DROPPING)
    params, carry = random_params(plain, seed), random_carry(plain, seed, 3)
    ids, key = random_ids(plain, seed, 3, 6), jax.random.key(seed)
    masks = output_masks(key, plain.config, (3, 6), np.float32)
    dropped, read, before = jax.tree.map(np.asarray, plain.drop_read(key, params, ids, carry))
    wanted = reference.forward(plain, dropped, read, before, masks)
    for recurrence in ("plain", "fast", *(["native"] if native.is_bound() else [])):
        model = small_model(cell, layers=2, recurrence=recurrence, **DROPPING)
        logits, after = applied(model)(params, ids, carry, key)
        assert_trees_close((logits, list(after)), wanted, 1e-5)


@pytest.mark.slow
@by_cell
@pytest.mark.parametrize("remat", [False, True])
@settings(max_examples=4)
@given(seed=SEEDS)
def test_fast_equals_plain_in_value_and_gradient(cell: Cell, remat: bool, seed: int):
    """Law 4, in float64."""
    how = DROPPING | {"remat": remat}
    fast, plain = (small_model(cell, layers=2, recurrence=each, **how) for each in ("fast", "plain"))
    with jax.enable_x64(True):
        params, carry = random_params(fast, seed, dtype=np.float64), random_carry(fast, seed, 2, np.float64)
        inputs = params, carry, random_ids(fast, seed, 2, 5), jax.random.key(seed)
        assert_trees_close(value_and_gradients(fast)(*inputs), value_and_gradients(plain)(*inputs), 1e-12)


@by_cell
def test_nothing_is_dropped_without_a_key(cell: Cell):
    model, still = small_model(cell, layers=2, **DROPPING), small_model(cell, layers=2)
    params, carry, ids = random_params(model, 0), random_carry(model, 0, 2), random_ids(model, 0, 2, 4)
    assert_trees_equal(applied(model)(params, ids, carry), applied(still)(params, ids, carry))


def test_as_much_is_dropped_as_is_asked_for_and_the_mean_stays():
    model = small_model("lstm", hidden=64, **DROPPING)
    params, ids = random_params(model, 0), random_ids(model, 0, 200, 50)
    carry = jax.tree.map(lambda part: part + 1, model.zero_carry(200))
    _, read, after = model.drop_read(jax.random.key(0), params, ids, carry)
    assert np.mean(read == model.vocabulary_size) == pytest.approx(0.3, abs=0.02)
    assert_trees_equal(read[read != model.vocabulary_size], ids[read != model.vocabulary_size])
    rows = np.asarray(after[0][1])
    assert set(np.unique(rows)) == {0, 1} and (rows == rows[:, :1]).all()
    assert np.mean(rows == 0) == pytest.approx(0.5, abs=0.1)
    gates = params["stack"]["layer_0"]
    draw = jax.jit(lambda seed: drop_weights(jax.random.key(seed), 0.4, gates, ["hi"])["hi"]["kernel"])
    drawn = np.stack([draw(seed) for seed in range(400)])
    assert np.mean(drawn == 0) == pytest.approx(0.4, abs=1e-3)
    assert np.abs(drawn.mean(0) / gates["hi"]["kernel"] - 1).max() < 0.25


def test_every_kernel_and_every_window_drops_weights_of_its_own():
    model = small_model("gru", layers=2, hidden=8, recurrent_dropout=0.5)
    params, carry = jax.tree.map(np.ones_like, random_params(model, 0)), model.zero_carry(1)
    stacks = [
        model.drop_read(jax.random.key(seed), params, jnp.zeros((1, 2), int), carry)[0]["stack"] for seed in (0, 1)
    ]
    kernels = [
        np.asarray(stack[layer][gate]["kernel"]) for stack in stacks for layer in stack for gate in ("hr", "hz", "hn")
    ]
    assert not any((one == other).all() for at, one in enumerate(kernels) for other in kernels[:at])


def test_weights_of_a_cell_of_one_s_own_are_not_dropped(monkeypatch: pytest.MonkeyPatch):
    from flax import linen as nn

    monkeypatch.setitem(config.CELLS, "own", nn.MGUCell)
    with pytest.raises(ValueError, match="recurrent_dropout is for rnn, gru, lstm"):
        Model(ModelConfig(cell="own", recurrent_dropout=0.5), 7)


def test_a_cell_of_one_s_own_reads_what_is_left(monkeypatch: pytest.MonkeyPatch):
    from flax import linen as nn

    monkeypatch.setitem(config.CELLS, "own", nn.MGUCell)
    model = Model(ModelConfig(cell="own", hidden_size=4, input_dropout=0.5, carry_dropout=0.5), 7)
    params, ids, key = model.init(jax.random.key(0)), jnp.asarray(random_ids(model, 0, 3, 5)), jax.random.key(1)
    carry = jax.tree.map(lambda part: part + 1, model.zero_carry(3))
    dropped = model.drop_read(key, params, ids, carry)
    assert (dropped[1] == 7).any() and (dropped[1] != 7).any()
    assert_trees_close(applied(model)(params, ids, carry, key), applied(model)(*dropped), 1e-6)
