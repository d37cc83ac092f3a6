"""A reset inside a window is a zero carry before that step: for every cell and backend, in value and gradient."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, assert_trees_close, random_carry, random_ids, random_params, small_model
from small_models import put_reference_for_cudnn

from charlstm.config import CELLS as REGISTRY
from charlstm.core.flax_stack import register_cell
from charlstm.core.loss import nats
from charlstm.core.network import Model

by_cell = pytest.mark.parametrize("cell", CELLS)
SEEDS = st.integers(0, 2**32 - 1)
B, T = 3, 6


def random_resets(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(B, T)) < rng.choice([0.1, 0.5, 0.9])


@cache
def applied(model: Model) -> Any:
    return jax.jit(model.apply)


@cache
def value_and_gradients(model: Model) -> Any:
    """Loss, then its gradients in parameters and carry; the carry after adds to the loss, so that its path counts."""

    def loss(params: Any, carry: Any, ids: Any, key: Any, resets: Any) -> Any:
        logits, after = model.apply(params, ids, carry, key, resets)
        return nats(logits, ids).mean() + sum(jnp.sin(part).mean() for part in jax.tree.leaves(after))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


class Own(nn.SimpleCell):
    """A user's cell."""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(REGISTRY, "own_of_resets", None)
    register_cell("own_of_resets", Own)
    return "own_of_resets"


def assert_as_from_zero(model: Model, seed: int) -> None:
    params, carry = random_params(model, seed), random_carry(model, seed, B)
    ids, resets = random_ids(model, seed, B, T), random_resets(seed)
    logits, after = applied(model)(params, ids, carry, None, resets)
    for row in range(B):
        alone = jax.tree.map(lambda part, row=row: part[row : row + 1], carry)
        for at in range(T):
            alone = model.zero_carry(1) if resets[row, at] else alone
            wanted, alone = applied(model)(params, ids[row : row + 1, at : at + 1], alone)
            assert_trees_close(logits[row, at], wanted[0, 0], 1e-5)
        assert_trees_close(jax.tree.map(lambda part, row=row: part[row : row + 1], after), alone, 1e-5)


@by_cell
@pytest.mark.parametrize("fields", [{}, {"recurrence": "plain"}, {"remat": True}])
@settings(max_examples=5)
@given(seed=SEEDS)
def test_a_row_reads_on_from_zero(cell: str, fields: Any, seed: int):
    assert_as_from_zero(small_model(cell, layers=2, **fields), seed)


def test_a_row_of_a_registered_cell_reads_on_from_zero(own: str):
    for seed in range(5):
        assert_as_from_zero(small_model(own, layers=2), seed)


@pytest.mark.slow
@by_cell
@pytest.mark.parametrize("fields", [{}, {"remat": True}, {"dropout": 0.4}])
@settings(max_examples=8)
@given(seed=SEEDS)
def test_fast_equals_plain_in_value_and_gradient(cell: str, fields: Any, seed: int):
    """Law 4, in float64."""
    fast, plain = (small_model(cell, layers=2, recurrence=each, **fields) for each in ("fast", "plain"))
    with jax.enable_x64(True):
        params, carry = random_params(fast, seed, dtype=np.float64), random_carry(fast, seed, B, np.float64)
        inputs = params, carry, random_ids(fast, seed, B, T), jax.random.key(seed), random_resets(seed)
        assert_trees_close(value_and_gradients(fast)(*inputs), value_and_gradients(plain)(*inputs), 1e-12)


@pytest.mark.slow
@by_cell
def test_fast_equals_plain_in_single_precision(cell: str):
    """Law 4, in float32."""
    fast, plain = (small_model(cell, recurrence=each) for each in ("fast", "plain"))
    for seed in range(5):
        params, carry = random_params(fast, seed), random_carry(fast, seed, B)
        inputs = params, carry, random_ids(fast, seed, B, T), jax.random.key(seed), random_resets(seed)
        assert_trees_close(value_and_gradients(fast)(*inputs), value_and_gradients(plain)(*inputs), 1e-5)


@by_cell
def test_no_gradient_crosses_a_reset(cell: str):
    model = small_model(cell)
    params, carry, ids = random_params(model, 0), random_carry(model, 0, B), random_ids(model, 0, B, T)
    resets = np.zeros((B, T), bool)
    resets[1, 2] = True

    def last(carry: Any) -> Any:
        return model.apply(params, ids, carry, None, resets)[0][:, -1].sum()

    for part in jax.tree.leaves(jax.grad(last)(carry)):
        assert np.any(part != 0, axis=1).tolist() == [True, False, True]


@by_cell
def test_rows_that_are_never_reset_keep_their_values(cell: str):
    model = small_model(cell, layers=2)
    params, carry, ids = random_params(model, 0), random_carry(model, 0, B), random_ids(model, 0, B, T)
    never = applied(model)(params, ids, carry, None, np.zeros((B, T), bool))
    assert_trees_close(never, applied(model)(params, ids, carry), 1e-6)


def test_cudnn_cannot_and_says_so(monkeypatch: pytest.MonkeyPatch):
    put_reference_for_cudnn(monkeypatch)
    model = small_model("lstm", recurrence="cudnn")
    with pytest.raises(ValueError, match="use recurrence fast"):
        model.apply(random_params(model, 0), random_ids(model, 0, B, T), model.zero_carry(B), None, random_resets(0))
