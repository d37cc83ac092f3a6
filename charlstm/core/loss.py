"""Cross-entropy in nats, and nats in bits."""

import math

import jax.numpy as jnp
import optax
from jax import Array


def nats(logits: Array, targets: Array) -> Array:
    """Cross-entropy of targets [...] below V, -log softmax(logits [..., V])[target]: [...] in float32 or wider."""
    wide = logits.astype(jnp.float32) if logits.dtype.itemsize < 4 else logits
    return optax.softmax_cross_entropy_with_integer_labels(wide, targets)


def mean_nats(logits: Array, targets: Array) -> Array:
    """The mean of `nats` over a window, []: the loss that training minimizes unless it is given another."""
    return nats(logits, targets).mean()


def bits(value: float) -> float:
    """Nats as bits: divided by ln 2 (Shannon 1948)."""
    return value / math.log(2)
