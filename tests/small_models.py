"""What tests of the core compute of a small model, compiled once for each; and cuDNN's path without a GPU."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import rnn

from charlstm.core.fast import cudnn
from charlstm.core.loss import nats
from charlstm.core.network import Model


@cache
def applied(model: Model) -> Any:
    return jax.jit(model.apply)


@cache
def value_and_gradients(model: Model) -> Any:
    """Loss, then its gradients in parameters and carry; the carry after adds to the loss, so that its path counts."""

    def loss(params: Any, carry: Any, ids: Any, key: Any) -> Any:
        logits, after = model.apply(params, ids, carry, key)
        return nats(logits, ids).mean() + sum(jnp.sin(part).mean() for part in jax.tree.leaves(after))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def reference_lstm(x: Any, h: Any, c: Any, weights: Any, lengths: Any, *sizes: Any) -> Any:
    """`rnn.lstm` by its own reference: batch-major, with cuDNN's layout of weights."""
    width, hidden, layers, dropout, both_ways = sizes
    unpacked = rnn.unpack_lstm_weights(weights, width, hidden, layers, both_ways)
    return rnn.lstm_ref(x, h, c, *unpacked, lengths, width, hidden, layers, dropout, both_ways)


def put_reference_for_cudnn(patch: pytest.MonkeyPatch) -> None:
    """Lets JAX's reference compute what cuDNN would on a GPU."""
    patch.setattr(rnn, "lstm", reference_lstm)
    patch.setattr(cudnn, "runs_on", lambda device: True)
