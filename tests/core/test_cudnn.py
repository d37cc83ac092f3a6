"""cuDNN's path without a GPU: the module that calls cuDNN has a reference of it, which reads the same packed vector."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import rnn
from reference import CELLS, assert_trees_close, random_carry, random_ids, random_params, small_model
from small_models import put_reference_for_cudnn, value_and_gradients

from charlstm.config import ModelConfig
from charlstm.core.fast import cudnn, native

pytestmark = pytest.mark.slow


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
    put_reference_for_cudnn(monkeypatch)
    fast, through = (small_model("lstm", layers=2, dropout=0.4, recurrence=each) for each in ("fast", "cudnn"))
    dtype, tolerance = (np.float64, 1e-12) if wide else (np.float32, 1e-5)
    with jax.enable_x64(wide):
        for seed in range(3):
            params, carry = random_params(fast, seed, dtype=dtype), random_carry(fast, seed, 3, dtype)
            inputs = params, carry, random_ids(fast, seed, 3, 5), jax.random.key(seed)
            assert_trees_close(value_and_gradients(through)(*inputs), value_and_gradients(fast)(*inputs), tolerance)


def test_a_model_runs_through_cudnn_where_its_config_asks_for_it_alone(monkeypatch: pytest.MonkeyPatch):
    """No card has run it yet, so auto is fast on every device but a CPU with the native core."""
    monkeypatch.setattr(native, "_core", None)
    put_reference_for_cudnn(monkeypatch)
    asked: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "fast"),
        ({"recurrence": "fast"}, "fast"),
        ({"recurrence": "cudnn"}, "cudnn"),
        ({"recurrence": "plain"}, "flax"),
        ({"recurrence": "plain", "dtype": "bfloat16"}, "fast"),  # Flax's cells cannot round factors alone
    )
    assert [small_model("lstm", **fields).backend for fields, _ in asked] == [backend for _, backend in asked]
    assert {small_model(cell).backend for cell in CELLS} == {"fast"}


@pytest.mark.parametrize("fields", [{"cell": "gru"}, {"cell": "rnn"}, {"dtype": "bfloat16"}])
def test_cudnn_runs_an_lstm_in_float32_alone(fields: Any):
    with pytest.raises(ValueError, match="recurrence is 'cudnn'; it must be auto, fast or plain"):
        ModelConfig(recurrence="cudnn", **fields)


def test_cudnn_needs_an_nvidia_gpu():
    with pytest.raises(ValueError, match=r"no NVIDIA GPU here; use model\.recurrence fast"):
        small_model("lstm", recurrence="cudnn")
