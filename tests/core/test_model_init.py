"""What a fresh stack is and what dropout does, against the faults of the book's chapter.

There, one cell object stood for every layer, and dropout came after the stack was built, so that it never acted.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import CELLS, assert_trees_equal, random_ids, random_params, small_model

from charlstm.config import Cell, DropoutMask
from charlstm.core.dropout import output_masks
from charlstm.core.network import Model

pytestmark = pytest.mark.slow

by_cell = pytest.mark.parametrize("cell", CELLS)


def masks(model: Model, seed: int = 0, batch: int = 64, time: int = 32) -> list[Any]:
    drawn = output_masks(jax.random.key(seed), model.config, (batch, time), np.float32)
    assert drawn is not None
    return [np.asarray(mask) for mask in drawn]


@by_cell
def test_every_layer_has_parameters_of_its_own(cell: Cell):
    params = small_model(cell, layers=3, hidden=5).init(jax.random.key(0))
    assert sorted(params["stack"]) == ["layer_0", "layer_1", "layer_2"]
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    for number, one in enumerate(kernels):
        assert not any(one.shape == other.shape and bool((one == other).all()) for other in kernels[:number])


@by_cell
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_the_output_depends_on_every_layer(cell: Cell, recurrence: str):
    model = small_model(cell, layers=3, recurrence=recurrence)
    params, ids = random_params(model, 0), random_ids(model, 0, 1, 3)
    apply = jax.jit(model.apply)
    before, _ = apply(params, ids, model.zero_carry(1))
    for layer in range(3):
        other = {**params["stack"], f"layer_{layer}": random_params(model, 1)["stack"][f"layer_{layer}"]}
        after, _ = apply({**params, "stack": other}, ids, model.zero_carry(1))
        assert np.abs(np.asarray(after - before)).max() > 1e-3


@by_cell
def test_init_follows_from_the_seed_alone(cell: Cell):
    model, plain = (small_model(cell, layers=2, recurrence=recurrence) for recurrence in ("fast", "plain"))
    one, same, other = model.init(jax.random.key(1)), plain.init(jax.random.key(1)), model.init(jax.random.key(2))
    assert_trees_equal(one, same)
    assert bool((one["head"]["kernel"] != other["head"]["kernel"]).any())
    assert {leaf.dtype for leaf in jax.tree.leaves(one)} == {jnp.dtype(jnp.float32)}


@by_cell
def test_recurrent_kernels_begin_orthogonal_and_biases_at_zero(cell: Cell):
    params = small_model(cell, layers=2, forget_bias=1.5).init(jax.random.key(0))
    for layer in params["stack"].values():
        for name, gate in layer.items():
            if name.startswith("h"):
                np.testing.assert_allclose(gate["kernel"].T @ gate["kernel"], np.eye(4), atol=1e-5)
            if "bias" in gate:
                np.testing.assert_array_equal(gate["bias"], 1.5 if name == "hf" else 0)
    np.testing.assert_array_equal(params["head"]["bias"], 0)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mask", ["step", "window"])
def test_a_mask_has_its_rate_and_its_exact_scale(dropout: float, mask: DropoutMask):
    model = small_model("gru", layers=2, hidden=64, dropout=dropout, dropout_mask=mask)
    for each in masks(model):
        assert each.shape == ((32 if mask == "step" else 1), 64, 64)
        keep = round((1 - dropout) * 2**16) / 2**16
        np.testing.assert_array_equal(np.unique(each), np.array([0, 1 / keep], np.float32))
        # Five standard deviations of a mean of so many coins.
        assert (each > 0).mean() == pytest.approx(keep, abs=5 * np.sqrt(keep * (1 - keep) / each.size))


@pytest.mark.parametrize(("mask", "steps"), [("step", 32), ("window", 1)])
def test_units_rows_layers_and_keys_are_dropped_apart(mask: DropoutMask, steps: int):
    model = small_model("gru", layers=2, hidden=64, dropout=0.5, dropout_mask=mask)
    first, second = masks(model)
    others = [second, masks(model, seed=1)[0], np.roll(first, 1, axis=1), np.roll(first, 1, axis=2)]
    if steps > 1:
        others.append(np.roll(first, 1, axis=0))
    for other in others:
        assert (first == other).mean() == pytest.approx(0.5, abs=0.05)


@by_cell
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_dropping_all_of_any_layer_is_felt_above_it(cell: Cell, recurrence: str):
    model = small_model(cell, layers=3, recurrence=recurrence)
    params, ids = random_params(model, 0), jnp.asarray(random_ids(model, 0, 2, 3))
    read = jax.jit(lambda masks: model.read(model.fuse(params), ids, model.zero_carry(2), masks))
    ones = [jnp.ones((3, 2, 4))] * 3
    kept, carry = read(ones)
    for layer in range(3):
        hidden, after = read([jnp.zeros_like(mask) if at == layer else mask for at, mask in enumerate(ones)])
        assert np.abs(np.asarray(hidden - kept)).max() > 1e-3
        # A mask lies between layers: the carries up to its own layer are what they were.
        assert_trees_equal(after[: layer + 1], carry[: layer + 1])


@pytest.mark.parametrize("mask", ["step", "window"])
def test_dropout_acts_with_a_key_and_never_without(mask: DropoutMask):
    model, none = small_model("lstm", layers=2, dropout=0.5, dropout_mask=mask), small_model("lstm", layers=2)
    params, ids, carry = random_params(model, 0), jnp.asarray(random_ids(model, 0, 2, 4)), model.zero_carry(2)
    apply = jax.jit(model.apply)
    assert_trees_equal(apply(params, ids, carry), jax.jit(none.apply)(params, ids, carry))
    one, same, other = (apply(params, ids, carry, jax.random.key(seed))[0] for seed in (0, 0, 1))
    assert_trees_equal(one, same)
    assert np.abs(np.asarray(one - other)).max() > 1e-3
