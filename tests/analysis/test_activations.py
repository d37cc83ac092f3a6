"""Hidden states, cell states and gates equal those of the equations in NumPy, at every character, in blocks."""

import sys
from typing import Any

import jax
import numpy as np
import pytest
import reference
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_ids, random_params, small_model

from charlstm.analysis import evaluate as module
from charlstm.analysis.evaluate import all_nats
from charlstm.analysis.inside.activations import Block, activations, gate_saturation
from charlstm.config import Cell
from charlstm.core.network import Model

SEEDS = st.integers(0, 2**32 - 1)
V = 7


def joined(blocks: list[Block]) -> Block:
    """One block, in the order of the text."""
    order = np.argsort(np.concatenate([each.at for each in blocks]))

    def along(axis: int, parts: list[Any]) -> Any:
        return None if parts[0] is None else np.take(np.concatenate(parts, axis), order, axis)

    gates = {name: along(1, [each.gates[name] for each in blocks]) for name in blocks[0].gates}
    flat = {name: along(0, [getattr(each, name) for each in blocks]) for name in ("at", "logits", "nats")}
    return Block(
        hidden=along(1, [each.hidden for each in blocks]),
        cell=along(1, [each.cell for each in blocks]),
        gates=gates,
        **flat,
    )


def by_equations(model: Model, params: Any, ids: np.ndarray) -> tuple[Any, Any, dict[str, Any]]:
    """Hidden states, cell states and gates [L, N, H] from the equations, one character at a time."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    step = {"rnn": reference._rnn, "gru": reference._gru, "lstm": reference._lstm}[model.config.cell]
    names = {"lstm": {"input": "i", "forget": "f", "output": "o"}, "gru": {"reset": "r", "update": "z"}, "rnn": {}}
    layers = range(model.config.num_layers)
    carry = [jax.tree.map(np.asarray, each) for each in model.zero_carry(1)]
    hidden, cell = [], []
    gates: dict[str, list[Any]] = {name: [] for name in names[model.config.cell]}
    for each in ids:
        shown = np.eye(model.vocabulary_size)[[each]]
        for layer in layers:
            own = params["stack"][f"layer_{layer}"]
            h = carry[layer][1] if model.config.cell == "lstm" else carry[layer]
            for name, short in names[model.config.cell].items():
                sums = reference._dense(own[f"i{short}"], shown) + reference._dense(own[f"h{short}"], h)
                gates[name].append(1 / (1 + np.exp(-sums[0])))
            carry[layer], shown = step(own, shown, carry[layer])
            hidden.append(shown[0])
            if model.config.cell == "lstm":
                cell.append(carry[layer][0][0])

    def shaped(values: list[Any]) -> Any:
        return np.array(values).reshape(len(ids), len(layers), -1).swapaxes(0, 1)

    if model.config.cell == "rnn":
        gates = {"tanh": [(1 + each) / 2 for each in hidden]}
    return shaped(hidden), shaped(cell) if cell else None, {name: shaped(values) for name, values in gates.items()}


@pytest.mark.parametrize(
    ("cell", "layers"), [*((cell, 2) for cell in CELLS), pytest.param("lstm", 11, marks=pytest.mark.slow)]
)
@settings(max_examples=3)
@given(seed=SEEDS)
def test_every_state_and_gate_equals_the_equations(cell: Cell, layers: int, seed: int):
    model = small_model(cell, layers, vocabulary=V)
    # With larger ones an RNN is chaotic: a rounding of its parameters moves the equations' own states by 1e-5.
    params, ids = random_params(model, seed, scale=0.25), random_ids(model, seed, 23).astype(np.uint8)
    found = joined(list(activations(model, params, ids, window=5)))
    hidden, states, gates = by_equations(model, params, ids)
    assert found.at.tolist() == list(range(23))
    np.testing.assert_allclose(found.hidden, hidden, rtol=0, atol=2e-6)
    assert (found.cell is None) == (states is None)
    if found.cell is not None:
        np.testing.assert_allclose(found.cell, states, rtol=0, atol=5e-6)
    assert found.gates.keys() == gates.keys()
    for name, wanted in gates.items():
        np.testing.assert_allclose(found.gates[name], wanted, rtol=0, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(found.nats, reference.text_nats(model, params, ids), rtol=0, atol=1e-5)
    logits, _ = reference.forward(model, params, ids[None], model.zero_carry(1))
    np.testing.assert_allclose(found.logits, logits[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_rows_side_by_side_read_every_character_once_and_forget_where_they_began(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "WARMUP", 40)
    model = small_model(cell, 2, vocabulary=V)
    params, ids = random_params(model, 0, scale=0.2), random_ids(model, 1, 331)
    whole, parts = (joined(list(activations(model, params, ids, rows=rows, window=16))) for rows in (1, 5))
    assert parts.at.tolist() == list(range(331))
    np.testing.assert_allclose(parts.hidden, whole.hidden, rtol=0, atol=1e-5)
    np.testing.assert_allclose(parts.nats, whole.nats, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_losses_are_those_of_every_backend_and_documents_begin_anew(cell: Cell, dtype: Any):
    model = small_model(cell, 2, vocabulary=V, dtype=dtype)
    params, ids = random_params(model, 0), random_ids(model, 2, 60)
    newline = 3
    read = joined(list(activations(model, params, ids, newline=newline)))
    np.testing.assert_allclose(
        read.nats, all_nats(model, params, [ids], newline)[0], rtol=0, atol=3e-6 if dtype == "float32" else 0.02
    )
    begins = np.flatnonzero(ids == newline)
    np.testing.assert_array_equal(read.hidden[:, begins], read.hidden[:, begins[:1]].repeat(len(begins), 1))


@pytest.mark.slow
def test_a_cell_of_ones_own_shows_its_output():
    sys.path.insert(0, str(REPOSITORY / "experiments"))
    import mgu  # noqa: F401  # pyright: ignore[reportMissingImports]

    model = small_model("mgu", 2, vocabulary=V)
    params, ids = model.init(jax.random.key(0)), random_ids(model, 3, 20)
    found = joined(list(activations(model, params, ids, window=7)))
    assert found.cell is None and found.gates == {} and found.hidden.shape == (2, 20, 4)
    logits = model.apply(params, ids[None], model.zero_carry(1))[0][0]
    np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.head(params, found.hidden[-1]), logits, rtol=0, atol=1e-5)


def test_saturation_counts_what_is_below_and_above():
    gate = np.array([[[0.05, 0.5], [0.09, 0.95], [0.5, 0.91], [0.95, 0.1]]])
    block = Block(np.arange(4), gate, None, {"forget": gate}, np.zeros((4, V)), np.zeros(4))
    found = gate_saturation([block, block])["forget"]
    np.testing.assert_array_equal(found.left, [[0.5, 0]])
    np.testing.assert_array_equal(found.right, [[0.25, 0.5]])


def test_blocks_are_read_as_they_are_asked_for():
    """A text that no memory could hold as blocks: the first one comes all the same."""
    model = small_model("lstm", vocabulary=V)
    ids = np.broadcast_to(np.zeros(1, np.uint8), 10**11)
    first = next(activations(model, random_params(model, 0), ids, rows=8, window=4))
    assert len(first.at) == 32
