"""bfloat16: what is rounded, what stays float32, and how far it may move a loss and a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
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

from charlstm.analysis.evaluate import evaluate
from charlstm.analysis.sample import sample
from charlstm.config import (
    Cell,
    Dtype,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
)
from charlstm.core.fast import loop
from charlstm.core.fast.products import product
from charlstm.core.network import Model
from charlstm.core.optimizer import make_optimizer
from charlstm.core.step import init_state, make_train_step
from charlstm.data.windows import WindowedText, split

pytestmark = pytest.mark.slow

UNIT = 2.0**-8
"""The largest relative error of one rounding to bfloat16, which has 8 significant bits."""

by_cell = pytest.mark.parametrize("cell", CELLS)
SHELLS = "She sells sea shells by the sea shore, and he sells none. "
TIME, LAYERS, H = 4, 2, 16
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


def model(cell: Cell, dtype: Dtype) -> Model:
    return small_model(cell, LAYERS, hidden=H, dropout=0.5, dtype=dtype)


def inputs(cell: Cell, seed: int) -> Any:
    """Parameters, carry, ids and a key. A normal [H, H] kernel has a norm near 2 √H times its scale."""
    like = model(cell, "float32")
    params = random_params(like, seed, scale=0.5 / H**0.5)
    return params, random_carry(like, seed, 3), random_ids(like, seed, 3, TIME), jax.random.key(seed)


def norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree))))


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), scale=st.sampled_from([1e-30, 1.0, 1e30]))
@settings(max_examples=20)
def test_a_product_errs_by_its_factors_roundings_alone(seed: int, rows: int, scale: float):
    """Each term of a sum has two rounded factors, and sums are float32: the error is below (2 u + u²) Σ|a||b|."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((2, rows, 8)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    weights = rng.standard_normal((2, rows, 3)).astype(np.float32)
    right *= np.float32(scale)

    def weighed(left: Any, right: Any) -> Any:
        out = product(left, right, jnp.bfloat16)
        return jnp.sum(out * weights), out

    (_, out), (d_left, d_right) = jax.value_and_grad(weighed, (0, 1), has_aux=True)(left, right)
    for got, one, other in (
        (out, left, right),
        (d_left, weights, right.T),
        (d_right, left.reshape(-1, 8).T, weights.reshape(-1, 3)),
    ):
        assert got.dtype == jnp.float32
        one, other = one.astype(np.float64), other.astype(np.float64)
        bound = (2 * UNIT + UNIT**2 + 1e-5) * (np.abs(one) @ np.abs(other))
        assert (np.abs(np.asarray(got) - one @ other) <= bound).all()


@by_cell
def test_gradients_are_float32_and_near_those_of_float32(cell: Cell):
    """From a parameter to the loss and back lie at most T + L products each way, and each rounds two factors and what
    it hands on. Gates are no steeper than 1, nor are these kernels in norm, so that no error grows on its way: to first
    order the whole gradient errs by less than 3 · 2 (T + L) u."""
    for seed in range(3):
        wanted, got = (value_and_gradients(model(cell, dtype))(*inputs(cell, seed)) for dtype in DTYPES)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
        error = norm(jax.tree.map(jnp.subtract, got[1], wanted[1])) / norm(wanted[1])
        assert UNIT / 100 < error < 6 * (TIME + LAYERS) * UNIT


def plain_scan(cell: Any, flatten: bool, projected: Any, kernel: Any, bias: Any, carry: Any, resets: None) -> Any:
    """`loop.run_cell` with no gradient of its own, and the same factors rounded."""
    rounded = kernel.astype(projected.dtype)

    def step(carry: Any, projected_t: Any) -> Any:
        hidden = cell.hidden(carry)
        product = jnp.matmul(hidden.astype(rounded.dtype), rounded, preferred_element_type=hidden.dtype)
        product = product if bias is None else product + bias[None]
        carry, _ = cell.forward(projected_t.astype(product.dtype), product, carry)
        return carry, cell.hidden(carry).astype(rounded.dtype)

    carry, hidden = lax.scan(step, carry, projected)
    return hidden, carry


@by_cell
def test_the_gradient_by_hand_rounds_as_that_of_a_plain_scan(cell: Cell, monkeypatch: pytest.MonkeyPatch):
    """Law 4 in bfloat16. What JAX derives differs by one rounding a layer each way, that of the gates' gradients."""
    rounding, arguments = model(cell, "bfloat16"), inputs(cell, 0)
    by_hand = value_and_gradients(rounding)(*arguments)
    monkeypatch.setattr(loop, "run_cell", plain_scan)
    derived = value_and_gradients.__wrapped__(rounding)(*arguments)
    assert_trees_close(by_hand, derived, 2 * LAYERS * UNIT)
    assert_trees_equal(by_hand[0], derived[0])


@by_cell
def test_logits_and_carry_are_float32_and_a_layer_s_output_is_not(cell: Cell):
    rounding = model(cell, "bfloat16")
    params, carry, ids, _ = inputs(cell, 0)
    hidden, _ = jax.eval_shape(lambda: rounding.read(rounding.fuse(params), jnp.asarray(ids), carry))
    assert hidden.dtype == jnp.bfloat16
    whole = applied(rounding)(params, ids, carry)
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {jnp.dtype(jnp.float32)}
    parts = []
    for part in np.split(ids, 2, 1):  # law 3: no rounding where a window ends
        logits, carry = applied(rounding)(params, part, carry)
        parts.append(logits)
    assert_trees_close((np.concatenate(parts, 1), carry), whole, 1e-5)


def test_a_run_in_bfloat16_learns_as_much_and_keeps_float32():
    text = np.frombuffer((90 * SHELLS).encode(), np.uint8)
    vocabulary, ids = np.unique(text, return_inverse=True)
    splits = split(ids, 0.1, 0.0)

    def trained(dtype: Dtype) -> tuple[Model, Any, float]:
        made = Model(ModelConfig(hidden_size=24, dropout=0.1, dtype=dtype), len(vocabulary))
        tx = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_steps=10), 200)
        state, step = init_state(made, tx, batch_size=8), make_train_step(made, tx)
        for window in WindowedText(splits.train, 8, 16).windows(steps=200):
            state, _ = step(state, window)
        floats = [leaf for leaf in jax.tree.leaves(state[2:5]) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert {leaf.dtype for leaf in floats} == {jnp.dtype(jnp.float32)}
        return made, state.params, evaluate(made, state.params, splits.validation).loss

    (_, _, wanted), (made, params, found) = map(trained, DTYPES)
    assert wanted < 0.5
    assert abs(wanted - found) < 0.01
    drawn = sample(made, params, ids[:5].astype(np.int32), SampleConfig(length=30, temperature=0.5))
    assert "".join(map(chr, vocabulary[drawn])) in 2 * SHELLS
