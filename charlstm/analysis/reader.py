"""The windowed reader that evaluation, scores, recall and a sample's prime share: ids in, the carry handed on."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charlstm.core.loss import nats
from charlstm.core.network import Carry, Model, Params
from charlstm.core.sharding import Layout

Of = TypeVar("Of")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")
Step = Callable[[Array, Carry], tuple[Any, Carry]]  # ids [B, T] and the carry before them, to any output and the next


class Placed(NamedTuple):
    """A model, its parameters and the zero carry on devices that share the rows B, and the sharding of [B, ...]."""

    model: Model
    params: Params
    carry: Carry
    rows: Any


def place(model: Model, params: Params, batch_size: int) -> Placed:
    """Puts parameters and the zero carry where rows are read: on as many devices as share B evenly."""
    layout = Layout.of(batch_size)
    carry = jax.device_put(model.zero_carry(batch_size), layout.rows)
    return Placed(model.on(layout), jax.device_put(params, layout.whole), carry, layout.rows)


def windows(columns: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """[B, N] as N / T windows [B, T]; the last may be shorter."""
    for start in range(0, columns.shape[1], length):
        yield columns[:, start : start + length]


def read_windows(step: Step, ids: Iterable[np.ndarray], carry: Carry, rows: Any = None) -> Iterator[tuple[Any, Carry]]:
    """What `step` gives for each window of ids [B, T], read from the carry after the window before."""
    for window in ids:
        output, carry = step(jax.device_put(window.astype(np.int32), rows), carry)
        yield output, carry


def read_all(step: Step, ids: Iterable[np.ndarray], carry: Carry, rows: Any = None) -> Carry:
    """The carry after all windows of `read_windows`."""
    for _, after in read_windows(step, ids, carry, rows):
        carry = after
    return carry


def keep_rows(carry: Carry, kept: Any) -> Carry:
    """The carry with zeros in the rows that are not kept, [B] bool."""
    return jax.tree.map(lambda part: jnp.where(kept.reshape(-1, *(1,) * (part.ndim - 1)), part, 0), carry)


def compiled(function: Callable[Concatenate[Of, Rest], Result]) -> Callable[[Of], Callable[Rest, Result]]:
    """Compiles a function once for each value of its first argument, such as a model; the last 8 programs are kept."""
    return lru_cache(maxsize=8)(lambda constant: jax.jit(partial(function, constant)))


@compiled
def compiled_nats(model: Model, params: Params, ids: Array, carry: Carry) -> tuple[Array, Carry]:
    """The nats [B, T] of each id, and the carry after them."""
    # Each character is predicted from the state before it: the window's logits, moved by one.
    first = model.head(params, model.top(carry))
    logits, carry = model.apply(params, ids, carry)
    return nats(jnp.concatenate([first[:, None], logits[:, :-1]], 1), ids), carry
