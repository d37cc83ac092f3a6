"""The loss is -log softmax, exact and finite, and bits are nats / ln 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charlstm.core.loss import bits, nats

SHAPE = (2, 3, 5)
TARGETS = arrays(np.int32, SHAPE[:-1], elements=st.integers(0, SHAPE[-1] - 1))


@given(arrays(np.float64, SHAPE, elements=st.floats(-1e3, 1e3)), TARGETS)
def test_equals_log_softmax_in_float64(logits: np.ndarray, targets: np.ndarray):
    with jax.enable_x64(True):
        got = nats(jnp.asarray(logits), jnp.asarray(targets))
        np.testing.assert_allclose(got, reference.nats(logits, targets), rtol=1e-12, atol=1e-12)


@given(arrays(np.float32, SHAPE, elements=st.floats(-(2.0**100), 2.0**100, width=32)), TARGETS)
def test_is_finite_and_not_negative_for_extreme_logits(logits: np.ndarray, targets: np.ndarray):
    got = nats(jnp.asarray(logits), jnp.asarray(targets))
    assert np.isfinite(got).all() and (np.asarray(got) >= 0).all()


@given(st.floats(-1e4, 1e4, width=32), TARGETS)
def test_equal_logits_cost_the_logarithm_of_their_number(value: float, targets: np.ndarray):
    got = nats(jnp.full(SHAPE, value, jnp.float32), jnp.asarray(targets))
    np.testing.assert_allclose(got, np.log(SHAPE[-1]), atol=1e-6 * max(1, abs(value)))


def test_half_precision_logits_are_summed_in_single():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal(SHAPE), jnp.bfloat16)
    got = nats(logits, jnp.zeros(SHAPE[:-1], jnp.int32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, reference.nats(logits, np.zeros(SHAPE[:-1], int)), rtol=1e-6)


def test_two_equal_choices_are_one_bit():
    assert bits(np.log(2)) == pytest.approx(1, abs=1e-15)
