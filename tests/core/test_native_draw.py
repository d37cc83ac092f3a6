"""Law 6 for the native core: text drawn in one call is that of the loop over characters, from float32 and from int8."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, assert_trees_close, assert_trees_equal, random_carry, random_params, small_model

from charlstm.analysis.sample import CHUNK, _advancer, _for_sampling, samples
from charlstm.config import Cell, SampleConfig
from charlstm.core.fast import native, native_draw
from charlstm.core.fast.native_draw import Given
from charlstm.core.network import Model
from charlstm.core.rounding import STEPS, to_int8

pytestmark = pytest.mark.skipif(not native.is_bound(), reason="there is no native core here")
by_cell = pytest.mark.parametrize("cell", CELLS)
SEEDS = st.integers(0, 2**32 - 1)


def stack_of(cell: Any, **fields: Any) -> Model:
    return small_model(cell, recurrence="native", **fields)


def drawn(model: Model, params: Any, carry: Any, noise: Any, position: int, newline: int | None, *, loop: bool) -> Any:
    """Symbols and carry, by the core's own call or, with the same layers, by the loop in JAX around them."""
    fused = _for_sampling(model)(params)
    assert "packed" in fused
    if loop:
        del fused["packed"]
    forced = np.arange(CHUNK, dtype=np.int32) % model.vocabulary_size
    return _advancer(model)(fused, carry, noise, forced, np.int32(position), jnp.float32(0.9), newline)


@by_cell
@settings(max_examples=8)
@given(
    seed=SEEDS,
    batch=st.integers(1, 9),
    layers=st.integers(1, 3),
    hidden=st.sampled_from([1, 16, 21, 70]),
    top_n=st.integers(1, 8),
    position=st.integers(-CHUNK - 2, 3),
    newline=st.none() | st.integers(0, 2),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_one_call_draws_what_the_loop_over_characters_draws(
    cell: str, seed: int, batch: int, layers: int, hidden: int, top_n: int, position: int, newline: Any, dtype: Any
):
    model = stack_of(cell, layers=layers, hidden=hidden, dtype=dtype)
    inputs = random_params(model, seed), random_carry(model, seed, batch)
    count = min(top_n, model.vocabulary_size)
    noise = np.random.default_rng(seed).gumbel(size=(CHUNK, batch, count)).astype(np.float32)
    mine, theirs = (drawn(model, *inputs, noise, position, newline, loop=each) for each in (False, True))
    np.testing.assert_array_equal(mine[0], theirs[0])
    assert_trees_close(mine[1], theirs[1], 1e-6)


@by_cell
def test_threads_that_share_the_units_change_no_bit(cell: Cell):
    """Also where there are far more of them than cores, or all of a pool is busy."""
    model = stack_of(cell, layers=2, hidden=70)
    packed = _for_sampling(model)(random_params(model, 1))["packed"]
    noise = np.random.default_rng(1).gumbel(size=(200, 3, model.vocabulary_size)).astype(np.float32)
    how = Given(
        noise, np.zeros(200, np.int32), np.int32(0), jnp.float32(1), np.int32(native_draw.NO_SYMBOL), np.int32(200)
    )
    found = [
        native_draw.draw(model.cell, packed, model.vocabulary_size, random_carry(model, 1, 3), how, None, threads)
        for threads in (1, 2, 40)
    ]
    assert_trees_equal(found[0], found[1])
    assert_trees_equal(found[0], found[2])
    some = native_draw.draw(
        model.cell,
        packed,
        model.vocabulary_size,
        random_carry(model, 1, 3),
        how._replace(count=np.int32(9)),
        None,
    )
    np.testing.assert_array_equal(some[0][:9], found[0][0][:9])
    assert not some[0][9:].any()


@by_cell
@pytest.mark.parametrize("weights", [jnp.float32, jnp.int8])
def test_a_row_s_bits_do_not_depend_on_the_rows_beside_it(cell: Cell, weights: Any):
    model = stack_of(cell, layers=2, hidden=37)
    params, rows = random_params(model, 1), random_carry(model, 1, 13)
    layers = [each.layer for each in model.fuse(params)["stack"]]
    packed = native_draw.pack_stack(model.cell, layers, params["head"], None, weights)
    noise = np.random.default_rng(1).gumbel(size=(20, 13, model.vocabulary_size)).astype(np.float32)

    def read(row: slice) -> Any:
        given = Given(noise[:, row], np.zeros(20, np.int32), np.int32(0), jnp.float32(1), np.int32(2), np.int32(20))
        some = jax.tree.map(lambda part: part[row], rows)
        symbols, carry = native_draw.draw(model.cell, packed, model.vocabulary_size, some, given, None)
        return symbols.T, carry

    alone = [read(slice(row, row + 1)) for row in range(13)]
    for batch in range(2, 14):
        together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *alone[:batch])
        assert_trees_equal(read(slice(batch)), together)


def test_ids_that_are_none_are_clamped_as_in_the_loop():
    model = stack_of("gru", layers=2, hidden=9)
    fused, carry = _for_sampling(model)(random_params(model, 1)), random_carry(model, 1, 2)
    noise, wild = np.zeros((CHUNK, 2, 3), np.float32), np.resize(np.array([-1, -7, 99, 300_000, 4], np.int32), CHUNK)
    found = [
        _advancer(model)(fused, carry, noise, symbols, np.int32(-CHUNK), jnp.float32(1))
        for symbols in (wild, wild.clip(0, model.vocabulary_size - 1))
    ]
    np.testing.assert_array_equal(found[0][0][:, 0], wild)
    assert_trees_equal(found[0][1], found[1][1])


def test_texts_side_by_side_are_those_of_each_alone():
    model = stack_of("lstm", layers=2, hidden=21)
    params, prime = random_params(model, 2), np.arange(5) % model.vocabulary_size
    config = SampleConfig(length=CHUNK + 3)
    for model_of in (model, replace(model, weights="int8")):
        for seed, text in enumerate(samples(model_of, params, prime, config, 20)):
            if seed % 7 == 0:
                np.testing.assert_array_equal(
                    text, next(samples(model_of, params, prime, replace(config, seed=seed), 1))
                )


def test_values_that_are_not_finite_draw_as_in_the_loop():
    model = stack_of("rnn", hidden=18)
    params, carry = random_params(model, 3), random_carry(model, 3, 2)
    noise = np.zeros((CHUNK, 2, model.vocabulary_size), np.float32)
    for value in (np.nan, np.inf, -np.inf):
        wild = params | {"head": params["head"] | {"bias": params["head"]["bias"].copy()}}
        wild["head"]["bias"][2] = value
        mine, theirs = (drawn(model, wild, carry, noise, 0, None, loop=each) for each in (False, True))
        np.testing.assert_array_equal(mine[0], theirs[0])


@given(seed=SEEDS)
@settings(max_examples=20)
def test_int8_weights_are_the_nearest_of_255_steps(seed: int):
    params = random_params(small_model("gru", layers=2, hidden=9), seed)
    params["head"]["kernel"][:, 1] = 0
    rounded = to_int8(params)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(rounded), strict=True):
        step = np.abs(before).max(0) / STEPS * (before.ndim == 2)
        assert (np.abs(after - before) <= 0.5001 * step).all()
        assert np.isfinite(after).all()
    assert_trees_close(to_int8(rounded), rounded, 1e-6)


@by_cell
@settings(max_examples=5)
@given(seed=SEEDS, layers=st.integers(1, 3), hidden=st.sampled_from([1, 21, 70]))
def test_drawing_from_int8_is_drawing_from_the_rounded_weights(cell: str, seed: int, layers: int, hidden: int):
    model = stack_of(cell, layers=layers, hidden=hidden)
    params, carry = to_int8(random_params(model, seed)), random_carry(model, seed, 3)
    stack = [each.layer for each in model.fuse(params)["stack"]]
    # Given symbols, as a drawn one may be a near tie, and few, as a vanilla RNN may be chaotic.
    noise, first, three = np.zeros((3, 3, 1), np.float32), np.arange(3, dtype=np.int32), np.int32(3)
    how = Given(noise, first, -three, jnp.float32(1), np.int32(1), three)
    wide, narrow = (
        native_draw.draw(
            model.cell,
            native_draw.pack_stack(model.cell, stack, params["head"], None, weights),
            model.vocabulary_size,
            carry,
            how,
            None,
        )
        for weights in (jnp.float32, jnp.int8)
    )
    assert_trees_close(narrow, wide, 1e-5)
