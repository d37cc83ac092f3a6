"""Dynamic evaluation, and evaluation in cold windows, against what they are defined by."""

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, assert_trees_close, random_ids, random_params, small_model

from charlstm.analysis.dynamic import descend, evaluate_dynamic, mean_squares
from charlstm.analysis.evaluate import evaluate, evaluate_cold
from charlstm.config import Cell
from charlstm.core.loss import nats

SEEDS = st.integers(0, 2**32 - 1)
by_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.mark.parametrize(("cell", "newline"), [("rnn", None), ("gru", 2), ("lstm", None)])
@settings(max_examples=3)
@given(seed=SEEDS)
def test_a_rate_of_zero_gives_the_exact_loss(cell: Cell, newline: int | None, seed: int):
    model = small_model(cell, layers=2)
    params, ids = random_params(model, seed), random_ids(model, seed, 75)
    still = descend(jax.tree.map(np.ones_like, params), 0.0)
    found = evaluate_dynamic(model, params, ids, still, newline=newline)
    wanted = evaluate(model, params, ids, rows=1, newline=newline)
    assert found.characters == wanted.characters
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)


@settings(max_examples=2)
@given(seed=SEEDS)
def test_each_window_is_predicted_by_what_the_windows_before_it_made_of_the_parameters(seed: int):
    """In NumPy and by plain gradient descent, two windows and a part of one."""
    model = small_model("lstm", layers=2)
    params, ids = random_params(model, seed), random_ids(model, seed, 10)
    found = evaluate_dynamic(model, params, ids, optax.sgd(0.3), window=4)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(params: Any, carry: Any, window: Any) -> Any:
        first = model.head(params, model.top(carry))[:, None]
        logits, after = model.apply(params, window, carry)
        return nats(jax.numpy.concatenate([first, logits[:, :-1]], 1), window).mean(), after

    total, carry = 0.0, model.zero_carry(1)
    for start in range(0, 10, 4):
        window = ids[None, start : start + 4]
        top = np.asarray(carry[-1][1], np.float64) @ np.asarray(params["head"]["kernel"]) + params["head"]["bias"]
        logits, _ = reference.forward(model, params, window, carry)
        total += reference.nats(np.concatenate([top[:, None], logits[:, :-1]], 1), window).sum()
        grads, carry = gradient(params, carry, window)
        params = jax.tree.map(lambda now, grad: now - 0.3 * np.asarray(grad), params, grads)
    assert found.loss == pytest.approx(total / 10, rel=1e-5)


def test_a_text_that_repeats_is_learned_on_the_way():
    model = small_model("gru", hidden=16)
    params, ids = model.init(jax.random.key(0)), np.tile(random_ids(model, 0, 20), 100)
    adapted = evaluate_dynamic(model, params, ids, descend(jax.tree.map(np.ones_like, params), 0.1), window=20)
    assert adapted.loss < 0.8 * evaluate(model, params, ids, rows=1).loss


@pytest.mark.parametrize("newline", [None, 2])
def test_mean_squares_are_those_of_gradients_one_by_one(newline: int | None):
    """Two rows of a text, from the zero carry, in windows of 4 and a part of one."""
    model = small_model("gru")
    params, ids = random_params(model, 0), random_ids(model, 0, 41)
    found = mean_squares(model, params, ids, rows=2, window=4, batches=3, newline=newline)

    def loss(params: Any, rows: Any, start: int) -> Any:
        # What is read before the windows has no part in their gradient.
        carry = model.zero_carry(2)
        if newline is not None:
            carry = model.apply(params, jax.numpy.full((2, 1), newline), carry)[1]
        for before in range(0, start, 4):
            part = rows[:, before : before + 4]
            carry = model.apply(params, part, carry, resets=None if newline is None else part == newline)[1]
        carry = jax.lax.stop_gradient(carry)
        part = rows[:, start : start + 4]
        logits, _ = model.apply(params, part, carry, resets=None if newline is None else part == newline)
        first = model.head(params, model.top(carry))[:, None]
        return nats(jax.numpy.concatenate([first, logits[:, :-1]], 1), part).mean()

    grads = [jax.grad(loss)(params, ids[:40].reshape(2, 20), start) for start in (0, 4, 8)]
    wanted = jax.tree.map(lambda *each: sum(np.square(np.asarray(part, np.float64)) for part in each) / 3, *grads)
    assert_trees_close(found, wanted, 1e-6)


def test_an_update_is_that_of_the_paper():
    params = {"kernel": np.array([1.0, 2.0], np.float32)}
    tx = descend({"kernel": np.array([4.0, 0.25], np.float32)}, rate=0.1, decay=0.5)
    state, moved = tx.init(params), {"kernel": np.array([1.0, 3.0], np.float32)}
    updates, _ = tx.update({"kernel": np.array([2.0, -1.0], np.float32)}, state, moved)
    assert_trees_close(updates, {"kernel": np.array([-0.1, 0.2 - 0.5])}, 1e-4)


@by_cell
@settings(max_examples=3)
@given(seed=SEEDS, length=st.sampled_from([1, 7, 64, 100]))
def test_a_cold_window_is_read_as_a_text_of_its_own(cell: Cell, seed: int, length: int):
    model = small_model(cell)
    params, ids, losses = random_params(model, seed), random_ids(model, seed, 90), []
    for start in range(0, 89, length):
        window = ids[None, start : start + length + 1]
        logits, _ = reference.forward(model, params, window[:, :-1], model.zero_carry(1))
        losses += list(reference.nats(logits, window[:, 1:])[0])
    found = evaluate_cold(model, params, ids, length)
    assert (found.characters, len(losses)) == (89, 89)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
