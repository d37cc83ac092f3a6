"""Cells of one's own: any Flax RNN cell runs, trains and is looked into as a built-in one is."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_trees_close, assert_trees_equal, random_ids, random_params, small_model

from charlstm.analysis.evaluate import evaluate
from charlstm.analysis.gradient_reach import gradient_reach
from charlstm.analysis.sample import sample, samples
from charlstm.config import CELLS, ModelConfig, OptimizerConfig, SampleConfig
from charlstm.core.cells import BUILT_IN
from charlstm.core.flax_stack import register_cell
from charlstm.core.loss import nats
from charlstm.core.network import Model
from charlstm.core.optimizer import make_optimizer
from charlstm.core.size import count_operations, count_parameters, match_parameters
from charlstm.core.step import init_state, make_train_step
from charlstm.data.windows import WindowedText

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32 - 1)


class Projected(nn.RNNCellBase):
    """An lstm of twice the width whose output is a projection, which its carry does not hold (Sak et al. 2014)."""

    features: int

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        carry, hidden = nn.LSTMCell(2 * self.features)(carry, inputs)
        return carry, nn.Dense(self.features)(hidden)

    @nn.nowrap
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any:
        return nn.LSTMCell(2 * self.features).initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self) -> int:
        return 1


class Matrix(nn.RNNCellBase):
    """A fast-weight memory: the carry is [B, H, H], and the output reads it (Schmidhuber 1992)."""

    features: int

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> Any:
        query, key, value = (nn.tanh(nn.Dense(self.features, name=name)(inputs)) for name in ("query", "key", "value"))
        carry = 0.5 * carry + key[:, :, None] * value[:, None, :]
        return carry, jnp.einsum("bi,bij->bj", query, carry)

    @nn.nowrap
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any:
        return jnp.zeros((*input_shape[:-1], self.features, self.features))

    @property
    def num_feature_axes(self) -> int:
        return 1


class MyLSTM(nn.LSTMCell):
    """A copy of what is built in."""


class MyGRU(nn.GRUCell):
    """A copy of what is built in."""


OWN = {"mgu": nn.MGUCell, "projected": Projected, "matrix": Matrix, "my_lstm": MyLSTM, "my_gru": MyGRU}
TWINS = {"my_lstm": "lstm", "my_gru": "gru"}

by_cell = pytest.mark.parametrize("cell", [name for name in OWN if name not in TWINS])
by_twin = pytest.mark.parametrize("cell", TWINS)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    before = dict(CELLS)
    for name, cell in OWN.items():
        register_cell(name, cell)
    yield
    CELLS.clear()
    CELLS.update(before)


def random_state(model: Model, seed: int, batch: int, dtype: Any = np.float32) -> Any:
    """A carry as some characters leave it: the parts of a registered one belong together."""
    params, ids = random_params(model, seed, dtype=dtype), random_ids(model, seed + 1, batch, 4)
    return jax.jit(model.apply)(params, ids, model.zero_carry(batch, dtype))[1]


@cache
def value_and_gradients(model: Model) -> Any:
    def loss(params: Any, carry: Any, ids: Any, key: Any) -> Any:
        logits, after = model.apply(params, ids, carry, key)
        return nats(logits, ids).mean(), (logits, after)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@by_cell
def test_a_model_begins_at_zero_with_parameters_of_its_own_in_each_layer(cell: str):
    model = small_model(cell, layers=3)
    assert model.backend == "flax"
    params = model.init(jax.random.key(0))
    assert sorted(params["stack"]) == ["layer_0", "layer_1", "layer_2"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    for number, one in enumerate(kernels):
        assert not any(one.shape == other.shape and bool((one == other).all()) for other in kernels[:number])
    assert len(carry := model.zero_carry(5)) == 3
    assert all(part.shape[0] == 5 and not part.any() for part in jax.tree.leaves(carry))
    assert model.top(carry).shape == (5, 4)


@by_cell
def test_the_kernels_that_read_the_vocabulary_alone_are_scaled(cell: str):
    """By √V, so that one row of them is as large as a product with a whole layer's output; all else is Flax's own."""
    model = small_model(cell, layers=2)
    ours, flax = model.init(jax.random.key(3)), model._init_flax(model.vocabulary_size, jax.random.key(3))
    kernels = jax.tree.leaves_with_path(ours)
    for (path, mine), theirs in zip(kernels, jax.tree.leaves(flax), strict=True):
        reads = "layer_0" in jax.tree_util.keystr(path) and mine.shape[0] == model.vocabulary_size
        np.testing.assert_allclose(mine, theirs * (7**0.5 if reads else 1), rtol=1e-6)


@by_cell
@settings(max_examples=4)
@given(seed=SEEDS, cuts=st.sampled_from([(3,), (1, 3)]))
def test_a_window_equals_its_parts_with_the_carry_handed_on(cell: str, seed: int, cuts: tuple[int, ...]):
    """Law 3."""
    model = small_model(cell, layers=2)
    params, carry, ids = random_params(model, seed), random_state(model, seed, 2), random_ids(model, seed, 2, 6)
    apply = jax.jit(model.apply)
    logits, last = apply(params, ids, carry)
    assert logits.shape == (2, 6, 7) and jax.tree.structure(last) == jax.tree.structure(carry)
    parts = []
    for part in np.split(ids, cuts, 1):
        piece, carry = apply(params, part, carry)
        parts.append(piece)
    assert_trees_close((np.concatenate(parts, 1), carry), (logits, last), 1e-5)


@by_cell
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_in_chunks_changes_no_value_and_no_gradient(cell: str, dropout: float):
    kept, again = (small_model(cell, layers=2, dropout=dropout, remat=each) for each in (False, True))
    with jax.enable_x64(True):
        params, carry = random_params(kept, 1, dtype=np.float64), random_state(kept, 2, 3, np.float64)
        inputs = params, carry, random_ids(kept, 3, 3, 7), jax.random.key(4)
        assert_trees_close(value_and_gradients(again)(*inputs), value_and_gradients(kept)(*inputs), 1e-12)


@by_cell
@pytest.mark.parametrize("mask", ["step", "window"])
def test_dropout_acts_with_a_key_and_never_without(cell: str, mask: str):
    model, none = small_model(cell, layers=2, dropout=0.5, dropout_mask=mask), small_model(cell, layers=2)
    params, ids, carry = random_params(model, 0), jnp.asarray(random_ids(model, 0, 2, 4)), model.zero_carry(2)
    apply = jax.jit(model.apply)
    assert_trees_equal(apply(params, ids, carry), jax.jit(none.apply)(params, ids, carry))
    one, same, other = (apply(params, ids, carry, jax.random.key(seed))[0] for seed in (0, 0, 1))
    assert_trees_equal(one, same)
    assert np.abs(np.asarray(one - other)).max() > 1e-3


@by_cell
def test_a_step_equals_a_window_of_one_character(cell: str):
    model = small_model(cell, layers=2)
    params, carry, ids = random_params(model, 0), random_state(model, 0, 3), random_ids(model, 0, 3, 1)
    stepped = model.step_with(model.fuse(params), carry, ids[:, 0], jnp.zeros((2, 3, 4)))
    assert_trees_close(stepped, model.apply(params, ids, carry)[1], 1e-6)


@by_cell
def test_the_gradient_in_a_nudge_equals_finite_differences(cell: str):
    """Of what comes after: the nudged outputs are what the layer above and the next step read."""
    model = small_model(cell, layers=2)
    with jax.enable_x64(True):
        params, start = random_params(model, 0, dtype=np.float64), random_state(model, 1, 1, np.float64)
        ids, fused = jnp.asarray(random_ids(model, 0, 1, 3)), model.fuse(params)

        @jax.jit
        def loss(nudges: Any) -> Any:
            carry = start
            for time in range(2):
                carry = model.step_with(fused, carry, ids[:, time], nudges[time])
            return nats(model.head(params, model.top(carry)), ids[:, 2]).sum()

        gradient = np.asarray(jax.grad(loss)(jnp.zeros((2, 2, 1, 4))))
        for at in np.ndindex(gradient.shape):
            nudge = np.zeros(gradient.shape)
            nudge[at] = 1e-5
            assert gradient[at] == pytest.approx(float(loss(nudge) - loss(-nudge)) / 2e-5, abs=1e-8)
    assert (np.abs(gradient).max(-1) > 0).any()


def test_a_nudge_moves_the_output_and_what_the_carry_holds_of_it():
    """An mgu's carry is its output; of a projection the carry holds nothing."""
    for cell, holds in (("mgu", True), ("my_lstm", True), ("projected", False), ("matrix", False)):
        model = small_model(cell)
        params, carry = random_params(model, 0), random_state(model, 0, 1)
        still, moved = (
            model.step_with(params, carry, jnp.zeros(1, jnp.int32), jnp.full((1, 1, 4), size))[0] for size in (0.0, 1.0)
        )
        np.testing.assert_allclose(moved.output - still.output, 1, atol=1e-6)
        changes = [
            float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (moved.state, still.state)), strict=True)
        ]
        assert sorted(changes) == pytest.approx([0.0] * (len(changes) - holds) + [1.0] * holds)


def twins(cell: str, **fields: Any) -> tuple[Model, Model]:
    return small_model(cell, layers=2, **fields), small_model(TWINS[cell], layers=2, **fields)


@by_twin
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_copy_of_a_built_in_cell_has_its_values_and_gradients(cell: str, dropout: float):
    """Law 4 for cells of one's own, in float64."""
    own, built_in = twins(cell, dropout=dropout)
    with jax.enable_x64(True):
        for seed in range(3):
            params, ids = random_params(own, seed, dtype=np.float64), random_ids(own, seed, 2, 5)
            found = [
                value_and_gradients(model)(params, model.zero_carry(2, np.float64), ids, jax.random.key(seed))
                for model in (own, built_in)
            ]
            assert jax.tree.structure(found[0][0][1][1]) != jax.tree.structure(found[1][0][1][1])
            ((loss, (logits, after)), gradients), ((wanted, (their_logits, theirs)), their_gradients) = found
            assert_trees_close((loss, logits, gradients), (wanted, their_logits, their_gradients), 1e-12)
            assert_trees_close([each.state for each in after], list(theirs), 1e-12)


@by_twin
def test_a_copy_of_a_built_in_cell_has_its_loss_reach_and_samples(cell: str):
    own, built_in = twins(cell, vocabulary=11)
    params, ids = random_params(own, 0, scale=1.0), random_ids(own, 0, 300)
    losses, reaches, texts = [], [], []
    for model in (own, built_in):
        losses.append(
            [evaluate(model, params, ids, rows=1).loss, evaluate(model, params, np.tile(ids, 9), rows=4).loss]
        )
        reaches.append(gradient_reach(model, params, ids, lags=8, positions=20).norms)
        how = SampleConfig(length=70, temperature=0.8, top_n=5)
        texts.append([sample(model, params, ids, how), *samples(model, params, ids[:3], how, 17)])
    np.testing.assert_allclose(*losses, rtol=1e-6)
    np.testing.assert_allclose(*reaches, rtol=1e-4)
    for ours, theirs in zip(*texts, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_state_that_is_computed_twice_is_one_state():
    """As carry and as output: a nudge of the output is one of the carry, whichever way the cell is written."""

    class Twice(nn.SimpleCell):
        @nn.compact
        def __call__(self, carry: Any, inputs: Any) -> Any:
            carry, output = super().__call__(carry, inputs)
            return carry + 0.0, output

    register_cell("twice", Twice)
    models = [small_model("rnn"), small_model("twice")]
    params, ids = random_params(models[0], 0, scale=1.0), random_ids(models[0], 0, 60)
    np.testing.assert_allclose(*(gradient_reach(model, params, ids, lags=8).norms for model in models), rtol=1e-4)


@by_cell
def test_it_overfits_one_window(cell: str):
    model = small_model(cell, hidden=24)
    tx = make_optimizer(OptimizerConfig(learning_rate=0.02, schedule="constant", warmup_steps=5), 300)
    state, step = init_state(model, tx, batch_size=1), make_train_step(model, tx)
    window = WindowedText(np.random.default_rng(1).integers(7, size=17), 1, 16).window(0)
    losses = []
    for _ in range(300):
        state, metrics = step(state, window)
        losses.append(float(metrics.loss))
    assert losses[0] > 1.5
    if cell != "matrix":  # half of which is forgotten at each step
        assert losses[-1] < 0.05
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("cell", OWN)
def test_sizes_are_those_of_its_parameters(cell: str):
    model = small_model(cell, layers=2, hidden=5)
    params = model.init(jax.random.key(0))
    count = count_parameters(model.config, 7)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count_operations(model.config, 7) == 2 * sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    matched = match_parameters(model.config, 7, count)
    assert matched == model.config
    if cell in TWINS:
        assert count == count_parameters(replace(model.config, cell=TWINS[cell]), 7)


def test_a_name_that_is_registered_again_runs_the_new_class():
    register_cell("again", MyGRU)
    older = small_model("again")
    params, ids = random_params(older, 0), random_ids(older, 0, 30)
    first = evaluate(older, params, ids).loss, sample(older, params, ids, SampleConfig(length=20)).tolist()

    class Saturated(nn.GRUCell):
        def __call__(self, carry: Any, inputs: Any) -> Any:
            carry, _ = super().__call__(carry, inputs)
            return jnp.sign(carry), jnp.sign(carry)

    register_cell("again", Saturated)
    newer = small_model("again")
    assert newer != older and newer.config == older.config
    assert evaluate(newer, params, ids).loss != pytest.approx(first[0], abs=1e-3)
    assert count_parameters(newer.config, 7) == count_parameters(older.config, 7)
    again = evaluate(older, params, ids).loss, sample(older, params, ids, SampleConfig(length=20)).tolist()
    assert again == first, "a model keeps the class that it was made with"


@pytest.mark.parametrize("name", ["", "My", "a-b", "a b", "3d", "ünit", "a/b", 7, None])
def test_a_name_has_lower_case_letters_digits_and_underscores(name: Any):
    with pytest.raises(ValueError, match="lower-case letters, digits and underscores"):
        register_cell(name, nn.MGUCell)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_built_in_name_cannot_be_taken(name: str):
    with pytest.raises(ValueError, match="is built in; register the cell by another name"):
        register_cell(name, nn.MGUCell)


@pytest.mark.parametrize("cell", [int, nn.Dense, nn.MGUCell(3), None, "lstm"])
def test_a_cell_is_a_class_of_flax(cell: Any):
    with pytest.raises(TypeError, match=r"derived from flax\.linen\.RNNCellBase"):
        register_cell("mine", cell)
    assert "mine" not in CELLS


class Sticky(nn.GRUCell):
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any:
        return jnp.ones((*input_shape[:-1], self.features))


class Twice(nn.GRUCell):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        carry, output = super().__call__(carry, inputs)
        return carry, jnp.concatenate([output, output], -1)


class WithoutFeatures(nn.RNNCellBase):
    width: int

    @property
    def num_feature_axes(self) -> int:
        return 1


def test_a_cell_that_cannot_be_stacked_is_named():
    with pytest.raises(ValueError, match="a cell's carry must start at zero"):
        register_cell("mine", Sticky)
    with pytest.raises(ValueError, match=r"output has shape \(2, 6\) for B = 2 and H = 3"):
        register_cell("mine", Twice)
    with pytest.raises(TypeError):
        register_cell("mine", WithoutFeatures)
    assert "mine" not in CELLS


def test_what_only_built_in_cells_can_do_raises():
    fields: Any
    for fields in ({"dtype": "bfloat16"}, {"recurrence": "fast"}):
        with pytest.raises(ValueError, match="cell 'mgu' runs as a Flax stack alone"):
            small_model("mgu", **fields)
    with pytest.raises(ValueError, match="cell is 'nothing'"):
        Model(ModelConfig(cell="nothing"), 7)
