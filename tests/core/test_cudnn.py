"""cuDNN's path without a GPU: the module that calls cuDNN has a reference of it, which reads the same packed vector."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import rnn
from reference import assert_trees_close, random_carry, random_ids, random_params, small_model
from test_model import value_and_gradients

from charlstm.config import Cell, ModelConfig
from charlstm.core.fast import cudnn
from charlstm.support.errors import InputError

pytestmark = pytest.mark.once


def reference_lstm(x: Any, h: Any, c: Any, weights: Any, lengths: Any, *sizes: Any) -> Any:
    """`rnn.lstm` by its own reference: batch-major, with cuDNN's layout of weights."""
    width, hidden, layers, dropout, both_ways = sizes
    unpacked = rnn.unpack_lstm_weights(weights, width, hidden, layers, both_ways)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, width, hidden, layers, dropout, both_ways)


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Puts the reference in cuDNN's place."""
    patch.setattr(rnn, "lstm", reference_lstm)
    patch.setattr(cudnn, "available", lambda: True)


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 5), hidden=st.integers(1, 4))
@settings(max_examples=20)
def test_unpacking_gives_back_what_was_packed(seed: int, width: int, hidden: int):
    rng = np.random.default_rng(seed)
    kernel, recurrent, bias = (rng.standard_normal((*rows, 4 * hidden)) for rows in ((width,), (hidden,), ()))
    with jax.enable_x64(True):
        packed = cudnn.pack(*map(jax.numpy.asarray, (kernel, recurrent, bias)))
    assert packed.shape == (rnn.get_num_params_in_lstm(width, hidden, 1, False),)
    w_ih, w_hh, b_ih, b_hh = rnn.unpack_lstm_weights(packed, width, hidden, 1, False)
    np.testing.assert_array_equal(w_ih[0].T, kernel)
    np.testing.assert_array_equal(w_hh[0].T, recurrent)
    np.testing.assert_array_equal(b_ih[0] + b_hh[0], bias)


@pytest.mark.parametrize("wide", [True, False])
def test_values_and_gradients_equal_those_of_the_fast_path(monkeypatch: pytest.MonkeyPatch, wide: bool):
    """Law 4 for cuDNN, with dropout between its layers."""
    pretend(monkeypatch)
    fast, through = (small_model("lstm", layers=2, dropout=0.4, recurrence=each) for each in ("fast", "cudnn"))
    dtype, tolerance = (np.float64, 1e-12) if wide else (np.float32, 1e-5)
    with jax.enable_x64(wide):
        for seed in range(3):
            params, carry = random_params(fast, seed, dtype=dtype), random_carry(fast, seed, 3, dtype)
            inputs = params, carry, random_ids(fast, seed, 3, 5), jax.random.key(seed)
            assert_trees_close(value_and_gradients(through)(*inputs), value_and_gradients(fast)(*inputs), tolerance)


def test_auto_is_cudnn_where_it_can_be_and_fast_elsewhere(monkeypatch: pytest.MonkeyPatch):
    assert cudnn.settled(ModelConfig(cell="lstm")) == "fast"
    pretend(monkeypatch)
    ways: dict[Cell, str] = {"lstm": "cudnn", "gru": "fast", "rnn": "fast"}
    assert all(cudnn.settled(small_model(cell).config) == way for cell, way in ways.items())
    assert cudnn.settled(ModelConfig(dtype="bfloat16")) == "fast"
    assert cudnn.settled(ModelConfig(recurrence="plain")) == "plain"


@pytest.mark.parametrize("fields", [{"cell": "gru"}, {"cell": "rnn"}, {"dtype": "bfloat16"}])
def test_cudnn_is_refused_where_it_has_no_such_cell(fields: Any):
    with pytest.raises(InputError, match="recurrence is 'cudnn'; it must be auto, fast or plain"):
        ModelConfig(recurrence="cudnn", **fields)


def test_cudnn_is_refused_without_an_nvidia_gpu():
    model = small_model("lstm", recurrence="cudnn")
    with pytest.raises(InputError, match=r"no NVIDIA GPU here; use --model\.recurrence fast"):
        jax.jit(model.apply)(random_params(model, 0), random_ids(model, 0, 1, 2), model.zero_carry(1))
