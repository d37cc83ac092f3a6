"""The hand-written gradient of the time loop equals what JAX derives from a plain scan of the same cell."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from reference import CELLS, assert_trees_close

from charlstm.core.cells import BUILT_IN
from charlstm.core.fast.loop import run_cell

pytestmark = pytest.mark.slow

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
TIME, BATCH, HIDDEN = 5, 2, 3


def arguments(cell: str, seed: int, time: int = TIME, scale: float = 1.0, dtype: Any = np.float64) -> Any:
    """Projected inputs, kernel, bias (the gru's) and carry, and weights that make a scalar of what comes out."""
    rng = np.random.default_rng(seed)
    width = GATES[cell] * HIDDEN

    def draw(*shape: int) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(dtype)

    def carry() -> Any:
        return (draw(BATCH, HIDDEN), draw(BATCH, HIDDEN)) if cell == "lstm" else draw(BATCH, HIDDEN)

    bias = draw(width) if cell == "gru" else None
    return (draw(time, BATCH, width), draw(HIDDEN, width), bias, carry()), (draw(time, BATCH, HIDDEN), carry())


def loop(cell: Any, *arguments: Any) -> Any:
    """`run_cell`, with its products over merged axes."""
    return run_cell(cell, True, *arguments)


def scanned(cell: Any, projected: Any, kernel: Any, bias: Any, carry: Any) -> Any:
    """The same loop with no gradient of its own."""

    def step(carry: Any, projected_t: Any) -> Any:
        product = cell.hidden(carry) @ kernel + (0 if bias is None else bias[None, :])
        carry, _ = cell.forward(projected_t, product, carry)
        return carry, cell.hidden(carry)

    carry, hidden = lax.scan(step, carry, projected)
    return hidden, carry


def weighed(run: Any, cell: str, inputs: Any, weights: Any) -> Any:
    """A scalar that every hidden state and every part of the last carry enters."""
    products = jax.tree.map(lambda out, weight: jnp.sum(out * weight), run(BUILT_IN[cell], *inputs), weights)
    return sum(jax.tree.leaves(products))


@cache
def value_and_gradients(run: Any, cell: str) -> Any:
    return jax.jit(jax.value_and_grad(partial(weighed, run, cell)))


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_value_and_gradient_equal_those_of_a_scan(cell: str, seed: int, scale: float):
    with jax.enable_x64(True):
        inputs, weights = arguments(cell, seed, scale=scale)
        wanted = value_and_gradients(scanned, cell)(inputs, weights)
        assert_trees_close(value_and_gradients(loop, cell)(inputs, weights), wanted, 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_equals_finite_differences(cell: str):
    with jax.enable_x64(True):
        inputs, weights = arguments(cell, 1, time=3, scale=0.5)
        check_grads(lambda *each: jax.jit(partial(weighed, loop, cell))(each, weights), inputs, 1, modes=["rev"])


@pytest.mark.parametrize("cell", CELLS)
def test_seeds_side_by_side_equal_each_alone(cell: str):
    seeds = [arguments(cell, seed, dtype=np.float32) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
    together = jax.jit(jax.vmap(jax.value_and_grad(partial(weighed, loop, cell))))(*stacked)
    for number, each in enumerate(seeds):
        alone = value_and_gradients(loop, cell)(*each)
        assert_trees_close(jax.tree.map(lambda leaf, at=number: leaf[at], together), alone, 1e-5)
