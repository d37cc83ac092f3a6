"""Laws 3 and 4, and the model against NumPy, PyTorch and Flax's own loop, with the same parameters."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, assert_trees_close, random_carry, random_ids, random_params, small_model
from small_models import applied, value_and_gradients

from charlstm.config import Cell
from charlstm.core.dropout import output_masks
from charlstm.core.loss import nats

SEEDS = st.integers(0, 2**32 - 1)
by_cell = pytest.mark.parametrize("cell", CELLS)


@by_cell
@settings(max_examples=8)
@given(seed=SEEDS, cuts=st.sampled_from([(3,), (1, 3)]))
def test_a_window_equals_its_parts_with_the_carry_handed_on(cell: Cell, seed: int, cuts: tuple[int, ...]):
    """Law 3."""
    model = small_model(cell, layers=2)
    params, carry, ids = random_params(model, seed), random_carry(model, seed, 2), random_ids(model, seed, 2, 6)
    whole, last = applied(model)(params, ids, carry)
    parts = []
    for part in np.split(ids, cuts, 1):
        logits, carry = applied(model)(params, part, carry)
        parts.append(logits)
    assert_trees_close((np.concatenate(parts, 1), carry), (whole, last), 1e-5)


@pytest.mark.slow
@by_cell
@pytest.mark.parametrize(
    ("batch", "time", "fields"),
    [
        (1, 1, {"layers": 1}),
        (2, 4, {"layers": 2, "dropout": 0.5, "dropout_mask": "step"}),
        (1, 3, {"layers": 3, "dropout": 0.3, "dropout_mask": "window"}),
    ],
)
@settings(max_examples=4)
@given(seed=SEEDS)
def test_fast_equals_plain_in_value_and_gradient(cell: Cell, batch: int, time: int, fields: Any, seed: int):
    """Law 4, in float64."""
    fast, plain = (small_model(cell, recurrence=each, **fields) for each in ("fast", "plain"))
    with jax.enable_x64(True):
        params, carry = random_params(fast, seed, dtype=np.float64), random_carry(fast, seed, batch, np.float64)
        inputs = params, carry, random_ids(fast, seed, batch, time), jax.random.key(seed)
        assert_trees_close(value_and_gradients(fast)(*inputs), value_and_gradients(plain)(*inputs), 1e-12)


@by_cell
def test_fast_equals_plain_in_single_precision(cell: Cell):
    """Law 4, in float32."""
    fast, plain = (small_model(cell, dropout=0.5, recurrence=each) for each in ("fast", "plain"))
    for seed in range(5):
        params, carry = random_params(fast, seed), random_carry(fast, seed, 2)
        inputs = params, carry, random_ids(fast, seed, 2, 4), jax.random.key(seed)
        assert_trees_close(value_and_gradients(fast)(*inputs), value_and_gradients(plain)(*inputs), 1e-5)


@pytest.mark.slow
@by_cell
@pytest.mark.parametrize(
    ("time", "fields"),
    [
        (1, {}),
        (7, {"dropout": 0.5, "dropout_mask": "step"}),
        (9, {"dropout": 0.5, "dropout_mask": "window"}),
        (7, {"dropout": 0.5, "recurrence": "plain"}),
    ],
)
def test_recomputing_in_chunks_changes_no_value_and_no_gradient(cell: Cell, time: int, fields: Any):
    kept, again = (small_model(cell, layers=2, remat=each, **fields) for each in (False, True))
    with jax.enable_x64(True):
        params, carry = random_params(kept, 1, dtype=np.float64), random_carry(kept, 2, 3, np.float64)
        inputs = params, carry, random_ids(kept, 3, 3, time), jax.random.key(4)
        assert_trees_close(value_and_gradients(again)(*inputs), value_and_gradients(kept)(*inputs), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_recomputing_in_chunks_takes_a_memory_of_the_root_of_the_window(recurrence: str):
    """What stays O(T) is the top layer's hidden states and the logits with their gradients, 2 x (H + V) a symbol."""

    def temporaries(remat: bool, time: int) -> int:
        model = small_model("lstm", layers=2, hidden=32, remat=remat, recurrence=recurrence)
        like = model.init(jax.random.key(0)), model.zero_carry(4), np.zeros((4, time), np.int32), jax.random.key(0)
        return value_and_gradients(model).lower(*like).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(True, 1024) < temporaries(False, 1024) / 4
    inside = [temporaries(True, time) - 4 * 2 * (32 + 7) * 4 * time for time in (256, 1024)]
    assert inside[1] < 3 * inside[0]


@by_cell
@settings(max_examples=8)
@given(seed=SEEDS, scale=st.sampled_from([0.3, 1.0]))
def test_logits_carry_and_loss_equal_numpy(cell: Cell, seed: int, scale: float):
    """The reference drops the output of each layer by the mask of that layer, and never a carry."""
    model = small_model(cell, layers=2, dropout=0.4)
    with jax.enable_x64(True):
        params, carry = random_params(model, seed, scale, np.float64), random_carry(model, seed, 2, np.float64)
        ids, key = random_ids(model, seed, 2, 5), jax.random.key(seed)
        logits, after = applied(model)(params, ids, carry, key)
        masks = output_masks(key, model.config, (2, 5), np.float64)
        assert masks is not None and all((np.asarray(mask) == 0).any() for mask in masks)
        wanted_logits, wanted_after = reference.forward(model, params, ids, carry, masks)
        assert_trees_close((logits, list(after)), (wanted_logits, wanted_after), 1e-12)
        np.testing.assert_allclose(nats(logits, ids), reference.nats(wanted_logits, ids), atol=1e-12)


@by_cell
def test_values_and_gradients_equal_pytorch(cell: Cell):
    torch = pytest.importorskip("torch")
    model = small_model(cell, layers=2)
    order = {"rnn": [""], "gru": "rzn", "lstm": "ifgo"}[cell]
    params, ids = random_params(model, 0, dtype=np.float64), random_ids(model, 0, 2, 5)

    def stacked(gates: Any, kind: str, part: str) -> Any:
        """PyTorch keeps [G·H, D] kernels, and a bias beside each of the two products."""
        zeros = np.zeros(model.config.hidden_size)
        return torch.tensor(np.concatenate([gates[kind + name].get(part, zeros).T for name in order]))

    peer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](7, 4, 2, batch_first=True).double()
    pairs = [
        (getattr(peer, f"{name}_{kind}h_l{layer}"), params["stack"][f"layer_{layer}"], kind, part)
        for layer in range(2)
        for kind in "ih"
        for name, part in (("weight", "kernel"), ("bias", "bias"))
    ]
    with torch.no_grad():
        for tensor, gates, kind, part in pairs:
            tensor.copy_(stacked(gates, kind, part))
    hidden, _ = peer(torch.nn.functional.one_hot(torch.tensor(ids, dtype=torch.long), 7).double())
    hidden.square().sum().backward()

    with jax.enable_x64(True):
        zero = model.zero_carry(2, np.float64)

        def squares(params: Any) -> Any:
            hidden, _ = model.read(model.fuse(params), jnp.asarray(ids), zero)
            return jnp.sum(hidden * hidden), hidden

        (_, ours), gradients = jax.jit(jax.value_and_grad(squares, has_aux=True))(params)
    np.testing.assert_allclose(np.swapaxes(ours, 0, 1), hidden.detach().numpy(), atol=1e-12)
    gradients = jax.tree.map(np.asarray, gradients)
    for number, (tensor, _, kind, part) in enumerate(pairs):
        if part == "kernel":  # biases are not the same parameters: PyTorch has two where one does
            wanted = stacked(gradients["stack"][f"layer_{number // 4}"], kind, part)
            np.testing.assert_allclose(tensor.grad.numpy(), wanted.numpy(), atol=1e-11)


@by_cell
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_ids_equal_one_hot_rows_in_flax_own_loop(cell: Cell, recurrence: str):
    model = small_model(cell, recurrence=recurrence)
    params, ids = random_params(model, 3), random_ids(model, 3, 2, 5)
    flax_cell = {"rnn": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[cell](4)
    wanted = nn.RNN(flax_cell).apply({"params": {"cell": params["stack"]["layer_0"]}}, jax.nn.one_hot(ids, 7))
    logits, _ = applied(model)(params, ids, model.zero_carry(2))
    assert_trees_close(np.asarray(logits), np.asarray(model.head(params, jnp.asarray(wanted))), 1e-5)


@by_cell
def test_the_fast_loop_makes_no_one_hot_row(cell: Cell):
    model = small_model(cell, layers=2, vocabulary=37, dropout=0.5)
    params, ids = random_params(model, 0), random_ids(model, 0, 2, 5)
    wide = re.compile(r"\w+\[(?:\d+,)*37\]")

    def hidden(params: Any) -> Any:
        masks = output_masks(jax.random.key(0), model.config, (2, 5), np.float32)
        return model.read(model.fuse(params), jnp.asarray(ids), model.zero_carry(2), masks)[0].sum()

    body = {"stack": params["stack"], "head": {"kernel": params["head"]["kernel"][:, :1], "bias": np.zeros(1)}}
    for function in (hidden, jax.grad(hidden)):
        assert not wide.findall(str(jax.make_jaxpr(function)(body)))
    kernel = params["stack"]["layer_0"]["i" if cell == "rnn" else "in" if cell == "gru" else "ii"]["kernel"]
    assert wide.findall(str(jax.make_jaxpr(lambda kernel: jax.nn.one_hot(ids, 37) @ kernel)(kernel)))
