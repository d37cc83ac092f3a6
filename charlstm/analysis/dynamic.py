"""Dynamic evaluation: the parameters follow the text that they predict (Krause et al. 2018, arXiv 1709.07432)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from charlstm.analysis.evaluate import Evaluation
from charlstm.analysis.reader import compiled, on_one, place, read_windows, window_nats, windows
from charlstm.analysis.settings import under_settings
from charlstm.core.network import Carry, Model, Params


@under_settings
def evaluate_dynamic(
    model: Model,
    params: Params,
    ids: np.ndarray,
    tx: optax.GradientTransformation,
    *,
    window: int = 32,
    newline: int | None = None,
) -> Evaluation:
    """The mean loss over a text that the model learns from as it goes: each character is predicted before it counts.

    The text is read in one row, on one device. Updates of zero give the loss of `evaluate` with one row.

    Args:
        model, params: what predicts, and its parameters before the text.
        ids: [N] the text.
        tx: makes an update of the gradient of each window's mean loss; any optax transformation.
        window: characters between two updates, T; no gradient crosses its edge.
        newline: as in `evaluate`.
    """
    if len(ids) == 0:
        return Evaluation(float("nan"), 0)
    placed = place(model, params, 1, newline)
    step, total = partial(_adapt((placed.model, tx)), newline=newline), 0.0
    first = placed.carry, placed.params, jax.jit(tx.init)(placed.params)
    for losses, _ in read_windows(step, windows(ids[None], window), first):
        total += float(np.asarray(losses, np.float64).sum())
    return Evaluation(total / len(ids), len(ids))


@compiled
def _adapt(
    of: tuple[Model, Any], ids: Array, state: tuple[Carry, Params, Any], newline: Any = None
) -> tuple[Array, Any]:
    """The nats [1, T] of each id, and the carry, parameters and optimizer's state after them."""
    (model, tx), (carry, params, optimizer) = of, state

    grads, (losses, after) = _gradient(model, params, ids, carry, newline)
    updates, optimizer = tx.update(grads, optimizer, params)
    return losses, (after, optax.apply_updates(params, updates), optimizer)


@under_settings
def mean_squares(
    model: Model,
    params: Params,
    ids: np.ndarray,
    *,
    rows: int = 64,
    window: int = 32,
    batches: int = 100,
    newline: int | None = None,
) -> Params:
    """The mean square of each parameter's gradient over batches of a text, without dropout: the scale for `descend`.

    Args:
        ids: [N] the text that the model was trained on. Its rows begin at places that lie evenly in it.
        rows, window, batches: of so many gradients, each that of the mean loss over [B, T] characters, at most.
        newline: as in `evaluate`.
    """
    rows = max(1, min(rows, len(ids) // window))
    columns = ids[: len(ids) // rows * rows].reshape(rows, -1)[:, : batches * window]
    placed = place(model, params, rows, newline)
    step = partial(_add_squares(placed.model), placed.params, newline=newline)
    sums, cut = jax.tree.map(jnp.zeros_like, placed.params), list(windows(columns, window))
    for losses, (_, after) in read_windows(step, cut, (placed.carry, sums), placed.rows):
        losses.block_until_ready()  # several CPU devices wait for each other forever with many calls on their way
        sums = after
    return jax.tree.map(lambda each: each / len(cut), on_one(sums))


@compiled
def _add_squares(model: Model, params: Params, ids: Array, state: Any, newline: Any = None) -> tuple[Array, Any]:
    """The nats [B, T] of ids; the carry after them, and the sums with the squares of their mean's gradient."""
    carry, sums = state
    grads, (losses, carry) = _gradient(model, params, ids, carry, newline)
    return losses, (carry, jax.tree.map(lambda total, grad: total + grad**2, sums, grads))


def _gradient(model: Model, params: Params, ids: Array, carry: Carry, newline: Any) -> tuple[Params, Any]:
    """The gradient of the mean loss of ids [B, T], and the nats [B, T] with the carry after them."""

    def loss(params: Params) -> tuple[Array, tuple[Array, Carry]]:
        losses, after = window_nats(model, params, ids, carry, newline)
        return losses.mean(), (losses, after)

    return jax.grad(loss, has_aux=True)(params)


def descend(moments: Params, rate: float, decay: float = 1e-3) -> optax.GradientTransformation:
    """The paper's update: a step against the scaled gradient, and one back towards the first parameters.

    The first is `rate` × gradient / (√moments + 1e-4), the second `decay` of the way, for every parameter alike.

    Args:
        moments: the `mean_squares` of the gradients on the text of training, by parameter.
        rate: for windows of 32 characters; `config.DYNAMIC_RATE` is what was measured to do well.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def move(grad: Array, moment: Array, first: Array, now: Array) -> Array:
            return -rate * grad / (jnp.sqrt(moment) + 1e-4) + decay * (first - now)

        return jax.tree.map(move, updates, *state, params), state

    return optax.GradientTransformation(lambda params: (moments, params), update)
