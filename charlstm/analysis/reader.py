"""The windowed reader that evaluation, scores, recall and a sample's prime share: ids in, the carry handed on.

`newline` is everywhere the id that ends each document of a text, and that each is read after, from the zero carry; None
where the text is one.
"""

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
    """A model, its parameters and the first carry on devices that share the rows B, and the sharding of [B, ...]."""

    model: Model
    params: Params
    carry: Carry
    rows: Any


def place(model: Model, params: Params, batch_size: int, newline: int | None = None) -> Placed:
    """Puts parameters and the carry before a text where rows are read: on as many devices as share B evenly."""
    layout = Layout.of(batch_size)
    carry = jax.device_put(model.zero_carry(batch_size), layout.rows)
    model, params = model.on(layout), jax.device_put(params, layout.whole)
    if newline is not None:
        carry = read_all(partial(compiled_read(model), params), [np.full((batch_size, 1), newline)], carry, layout.rows)
    return Placed(model, params, carry, layout.rows)


def on_one(tree: Any) -> Any:
    """The arrays on the first device alone, for work with one row; those that lie there already are not copied."""
    return jax.device_put(tree, Layout.of(1).whole)


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


def compiled(function: Callable[Concatenate[Of, Rest], Result]) -> Callable[[Of], Callable[Rest, Result]]:
    """Compiles a function once for each value of its first argument, such as a model; the last 8 programs are kept."""
    return lru_cache(maxsize=8)(lambda constant: jax.jit(partial(function, constant)))


def keep_rows(carry: Carry, kept: Any, other: Carry) -> Carry:
    """The carry with another's rows where its own are not kept, [B] bool."""

    def choose(ours: Array, theirs: Array) -> Array:
        return jnp.where(kept.reshape(-1, *(1,) * (ours.ndim - 1)), ours, theirs)

    return jax.tree.map(choose, carry, other)


def starts(ids: Array, newline: Any) -> Any:
    """The `resets` with which a model reads ids, [...] bool; None for a text that is one."""
    return None if newline is None else ids == newline


@compiled
def compiled_read(model: Model, params: Params, ids: Array, carry: Carry, newline: Any = None) -> tuple[None, Carry]:
    """Nothing, and the carry after the ids."""
    return None, model.apply(params, ids, carry, resets=starts(ids, newline))[1]


def window_nats(model: Model, params: Params, ids: Array, carry: Carry, newline: Any = None) -> tuple[Array, Carry]:
    """The nats [B, T] of each id, and the carry after them."""
    # Each character is predicted from the state before it: the window's logits, moved by one.
    first = model.head(params, model.top(carry))
    logits, carry = model.apply(params, ids, carry, resets=starts(ids, newline))
    return nats(jnp.concatenate([first[:, None], logits[:, :-1]], 1), ids), carry


compiled_nats = compiled(window_nats)
