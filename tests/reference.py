"""The model once more, in NumPy float64, from the equations alone; and the small models that it is compared with.

Slow and plain on purpose: one-hot rows are multiplied, every gate has its own product, and time is a Python loop. All
that it shares with charlstm is the layout of Flax's parameter tree.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.config import Cell, ModelConfig
from charlstm.core.network import Model

CELLS: tuple[Cell, ...] = ("rnn", "gru", "lstm")


def small_model(cell: Cell, layers: int = 1, hidden: int = 4, vocabulary: int = 7, **fields: Any) -> Model:
    """A model that compiles fast; `fields` are more of ModelConfig's."""
    return Model(ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden, **fields), vocabulary)


def random_params(model: Model, seed: int, scale: float = 0.5, dtype: Any = np.float32) -> Any:
    """Normal values in every leaf, so that no bias is zero and no two gates are equal."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(dtype), shapes)


def wide_params(model: Model, seed: int, spread: float) -> Any:
    """Random parameters that give logits a standard deviation of about `spread`, and that forget as trained ones do."""
    params, width = random_params(model, seed, scale=1), model.config.hidden_size**-0.5
    for layer, gates in enumerate(params["stack"].values()):
        for name, gate in gates.items():
            gate["kernel"] *= 1 if layer == 0 and name.startswith("i") else width
    params["head"]["kernel"] *= 2 * spread * width
    return params


def random_carry(model: Model, seed: int, batch: int, dtype: Any = np.float32) -> Any:
    """A state as it may be in the middle of a text."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape).astype(dtype), model.zero_carry(batch))


def random_ids(model: Model, seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(model.vocabulary_size, size=shape, dtype=np.int32)


def forward(
    model: Model, params: Any, ids: Any, carry: Any, masks: Any = None, nudges: Any = None
) -> tuple[np.ndarray, list[Any]]:
    """Logits [B, T, V] and the carry after ids [B, T]; masks multiply each layer's output, [T or 1, B, H] a layer.

    Nudges [T, L, B, H] are added to the hidden states as they are computed, before anything reads them.
    """
    params, carry, masks = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, list(carry), masks))
    step = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}[model.config.cell]
    logits = []
    for time in range(ids.shape[1]):
        shown = np.eye(model.vocabulary_size + 1, model.vocabulary_size)[ids[:, time]]  # id V is no symbol
        for layer in range(model.config.num_layers):
            carry[layer], shown = step(params["stack"][f"layer_{layer}"], shown, carry[layer])
            if nudges is not None:
                shown = shown + nudges[time][layer]
                carry[layer] = (carry[layer][0], shown) if model.config.cell == "lstm" else shown
            if masks is not None:
                shown = shown * masks[layer][time if len(masks[layer]) > 1 else 0]
        logits.append(_dense(params["head"], shown))
    return np.stack(logits, 1), carry


def nats(logits: Any, targets: Any) -> np.ndarray:
    """-log softmax(logits)[targets], in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probabilities, np.asarray(targets)[..., None], -1)[..., 0]


def text_nats(model: Model, params: Any, ids: np.ndarray) -> np.ndarray:
    """The loss of each of a text's characters, [N]; the first has nothing before it but the head's bias."""
    logits, _ = forward(model, params, ids[None], model.zero_carry(1))
    first = np.asarray(params["head"]["bias"], np.float64)
    return nats(np.concatenate([first[None], logits[0, :-1]]), ids)


def assert_trees_close(actual: Any, wanted: Any, tolerance: float) -> None:
    """Relative to the largest value of a leaf, or to 1."""
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def assert_trees_equal(actual: Any, wanted: Any) -> None:
    """To the bit, random keys too."""
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        assert got.dtype == want.dtype
        if jnp.issubdtype(got.dtype, jax.dtypes.prng_key):
            got, want = jax.random.key_data(got), jax.random.key_data(want)
        np.testing.assert_array_equal(got, want)


def _dense(layer: Any, values: np.ndarray) -> np.ndarray:
    return values @ layer["kernel"] + layer.get("bias", 0.0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(values / 2)) / 2


def _rnn(gates: Any, shown: np.ndarray, h: np.ndarray) -> tuple[Any, np.ndarray]:
    h = np.tanh(_dense(gates["i"], shown) + _dense(gates["h"], h))
    return h, h


def _gru(gates: Any, shown: np.ndarray, h: np.ndarray) -> tuple[Any, np.ndarray]:
    r = _sigmoid(_dense(gates["ir"], shown) + _dense(gates["hr"], h))
    z = _sigmoid(_dense(gates["iz"], shown) + _dense(gates["hz"], h))
    n = np.tanh(_dense(gates["in"], shown) + r * _dense(gates["hn"], h))
    h = (1 - z) * n + z * h
    return h, h


def _lstm(gates: Any, shown: np.ndarray, carry: tuple[np.ndarray, np.ndarray]) -> tuple[Any, np.ndarray]:
    c, h = carry
    i, f, g, o = (_dense(gates[f"i{name}"], shown) + _dense(gates[f"h{name}"], h) for name in "ifgo")
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    return (c, h), h
