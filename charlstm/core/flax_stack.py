"""The reference: a stack of Flax cells under `nn.scan`, with dropout and a softmax head; and cells of one's own.

This is the only module that uses Flax. The parameters of every backend are those of this module:

    stack / layer_0 ... layer_{L-1} / whatever the cell has     head / kernel [H, V], bias [V]
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from charlstm.config import CELLS
from charlstm.core.cells import reset

FLAX_CELLS: dict[str, type[nn.RNNCellBase]] = {"rnn": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


class FlaxStack(nn.Module):
    """Ids [T, B], a carry with one entry a layer, masks and resets [T, B], to logits [T, B, V] and the next carry."""

    cell: type[nn.RNNCellBase]
    hidden_size: int
    num_layers: int
    vocabulary_size: int

    def setup(self) -> None:
        scan = nn.scan(_Step, variable_broadcast="params", split_rngs={"params": False})
        self.stack = scan(self.cell, self.hidden_size, self.num_layers)
        self.head = nn.Dense(self.vocabulary_size)

    def __call__(self, ids: Array, carry: Any, masks: Any = None, resets: Array | None = None) -> tuple[Array, Any]:
        hidden, carry = self.read(ids, carry, masks, resets)
        return self.head(hidden), carry

    def read(self, ids: Array, carry: Any, masks: Any = None, resets: Array | None = None) -> tuple[Array, Any]:
        """The top layer's output [T, B, H], and the carry after it."""
        inputs = jax.nn.one_hot(ids, self.vocabulary_size, dtype=jax.tree.leaves(carry)[0].dtype)
        if masks is not None:
            masks = [jnp.broadcast_to(mask, (len(ids), *mask.shape[1:])) for mask in masks]
        carry, hidden = self.stack(carry, (inputs, masks, resets))
        return hidden, carry


class _Step(nn.Module):
    """One step of every layer, with dropout on each one's output."""

    cell: type[nn.RNNCellBase]
    hidden_size: int
    num_layers: int

    @nn.compact
    def __call__(self, carry: Any, inputs: tuple[Array, Sequence[Array] | None, Array | None]) -> tuple[Any, Array]:
        hidden, masks, resets = inputs
        carry, after = reset(carry, resets), []
        for layer in range(self.num_layers):
            cell = self.cell(features=self.hidden_size, name=f"layer_{layer}")  # pyright: ignore[reportCallIssue]
            state, hidden = run_step(cell, carry[layer], hidden)
            after.append(state)
            hidden = hidden if masks is None else hidden * masks[layer]
        return tuple(after), hidden


class RegisteredCarry(NamedTuple):
    """The carry of a layer whose cell is a user's own: what the cell hands on, and its last output [B, H]."""

    state: Any
    output: Array


def run_step(cell: Any, carry: Any, inputs: Array) -> tuple[Any, Array]:
    """One step of a bound Flax cell. A registered cell's output joins its carry, where the head finds it."""
    if isinstance(carry, RegisteredCarry):
        state, output = cell(carry.state, inputs)
        return RegisteredCarry(state, output), output
    return cell(carry, inputs)


class RegisteredCell(NamedTuple):
    """A user's Flax cell, with the functions that `cells.Cell` has for a built-in one."""

    flax_cell: Any

    def zero_carry(self, batch_size: int, hidden_size: int, dtype: Any) -> RegisteredCarry:
        cell = self.flax_cell(features=hidden_size)
        forms = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(0), (batch_size, hidden_size)))
        state = jax.tree.map(lambda form: jnp.zeros(form.shape, dtype), forms)
        return RegisteredCarry(state, jnp.zeros((batch_size, hidden_size), dtype))

    def hidden(self, carry: RegisteredCarry) -> Array:
        return carry.output

    def add_hidden(self, carry: RegisteredCarry, d_hidden: Array) -> RegisteredCarry:
        """Adds to the output that a step just gave, and to each part of the cell's carry that is equal to it."""
        moved = carry.output + d_hidden
        parts, form = jax.tree.flatten(carry.state)
        moved_too = zip(_is_output(self.flax_cell), parts, strict=True)
        return RegisteredCarry(form.unflatten([moved if same else part for same, part in moved_too]), moved)


@lru_cache  # so that it is computed when a cell is registered, and not while tracing
def _is_output(flax_cell: Any) -> tuple[bool, ...]:
    """Whether each part of a cell's carry is its output, as two steps on random numbers show; ValueError as below."""
    cell, key = flax_cell(features=3), jax.random.key(0)
    carry, inputs = cell.initialize_carry(key, (2, 5)), jax.random.normal(key, (2, 2, 5))
    if any(bool(jnp.any(part != 0)) for part in jax.tree.leaves(carry)):
        raise ValueError("a cell's carry must start at zero")
    (carry, _), params = cell.init_with_output(key, carry, inputs[0])
    carry, output = cell.apply(params, carry, inputs[1])
    if output.shape != (2, 3):
        raise ValueError(f"the cell's output has shape {output.shape} for B = 2 and H = 3; it must be [B, H]")
    return tuple(np.array_equal(part, output) for part in jax.tree.leaves(carry))


def register_cell(name: str, cell: type[nn.RNNCellBase]) -> None:
    """Makes a cell known by a name: ``cell=name`` then works in every config, grid, command and run.

    Args:
        name: lower-case letters, digits and underscores; it goes into the names of folders.
        cell: built as ``cell(features=H)``. A step maps (carry, inputs [B, D]) to (carry, output [B, H]); the carry
            starts at zero.

    Raises:
        TypeError: it is no Flax RNN cell, or cannot be built so.
        ValueError: the name is a built-in cell's or malformed, the carry does not start at zero, or an output is not
            [B, H].
    """
    if not (isinstance(name, str) and name.isascii() and name.isidentifier() and name == name.lower()):
        raise ValueError(f"a cell's name has lower-case letters, digits and underscores, unlike {name!r}")
    if name in FLAX_CELLS:
        raise ValueError(f"{name!r} is built in; register the cell by another name")
    if not (isinstance(cell, type) and issubclass(cell, nn.RNNCellBase)):
        raise TypeError(f"a cell is a class derived from flax.linen.RNNCellBase, unlike {cell!r}")
    _is_output(cell)
    CELLS[name] = cell
