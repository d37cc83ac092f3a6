"""What each unit does at each character of a text: hidden states, cell states and gates, as a stream of blocks.

Hidden states are those of every backend; the gates inside a step are computed here, from the equations of `core.cells`.
A cell of one's own shows its output alone.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from charlstm.analysis.evaluate import rows_of, warmed_rows
from charlstm.analysis.reader import compiled, read_windows, starts
from charlstm.analysis.settings import under_settings
from charlstm.core.cells import BUILT_IN, reset
from charlstm.core.fast.loop import FusedLayer, fuse
from charlstm.core.fast.products import product
from charlstm.core.loss import nats
from charlstm.core.network import Carry, Model, Params

SATURATED = (0.1, 0.9)  # a gate below the first is left-saturated, above the second right-saturated


class Block(NamedTuple):
    """N characters of a text, and what a model has once it has read each of them."""

    at: NDArray[Any]
    """[N], their places in the text."""
    hidden: NDArray[Any]
    """[L, N, H], the outputs h."""
    cell: NDArray[Any] | None
    """[L, N, H], the cell states c of an lstm; None of other cells."""
    gates: dict[str, NDArray[Any]]
    """[L, N, H] each in [0, 1]: input, forget and output of an lstm, reset and update of a gru. Of an rnn (1 + h) / 2,
    which is to its tanh what a gate is to its sigmoid: σ(2x) = (1 + tanh x) / 2. Empty for a cell of one's own."""
    logits: NDArray[Any]
    """[N, V], of the character that follows."""
    nats: NDArray[Any]
    """[N] float64, -log of each character's own probability before it was read."""


@under_settings
def activations(
    model: Model, params: Params, ids: Any, *, rows: int = 1, window: int = 64, newline: int | None = None
) -> Iterator[Block]:
    """Reads a text, with no dropout, and yields every character once, in memory that does not grow with the text.

    Args:
        model, params: what reads.
        ids: [N] the text.
        rows: parts of the text that run side by side, as in `evaluate`; with one, blocks are in the order of the text.
        window: characters of each row in a block, T.
        newline: the id that ends each of the text's documents; None where the text is one.
    """
    if not len(ids):
        return
    (placed, params, carry, sharding), first, length = warmed_rows(model, params, ids, rows, window, newline)
    read = partial(_read(placed), params, newline=newline)
    for start in range(0, length, window):
        at = first[:, None] + np.arange(start, min(start + window, length))
        now, counted = rows_of(ids, first + start, at.shape[1])
        ((hidden, cell, gates), logits, losses), carry = next(read_windows(read, [now], carry, sharding))
        inside = counted.T  # [T, B]

        def kept(array: Any, inside: Any = inside) -> NDArray[Any]:  # of [T, L, B, H]
            return np.moveaxis(np.asarray(array), 1, 0)[:, inside]

        yield Block(
            at=at.T[inside],
            hidden=kept(hidden),
            cell=None if cell is None else kept(cell),
            gates={name: kept(gate) for name, gate in gates.items()},
            logits=np.asarray(logits)[inside],
            nats=np.asarray(losses, np.float64).T[inside],
        )


class Saturation(NamedTuple):
    """The fraction of time, [L, H] each, that a gate of each unit is below 0.1 and that it is above 0.9."""

    left: NDArray[Any]
    right: NDArray[Any]


class GateSaturation:
    """Counts how often gates are saturated, block by block."""

    def __init__(self) -> None:
        self._characters, self._counts = 0, dict[str, Any]()

    def add(self, block: Block) -> None:
        """Takes a block in."""
        self._characters += len(block.at)
        for name, gate in block.gates.items():
            here = np.stack([(gate < SATURATED[0]).sum(1), (gate > SATURATED[1]).sum(1)])
            self._counts[name] = self._counts.get(name, 0) + here

    def fractions(self) -> dict[str, Saturation]:
        """As `gate_saturation`."""
        return {name: Saturation(*(count / self._characters)) for name, count in self._counts.items()}


def gate_saturation(blocks: Iterable[Block]) -> dict[str, Saturation]:
    """How often each gate is saturated, by its name in `Block.gates` (Karpathy, Johnson and Li 2015)."""
    counted = GateSaturation()
    for block in blocks:
        counted.add(block)
    return counted.fractions()


@compiled
def _read(model: Model, params: Params, ids: Array, carry: Carry, newline: Any = None) -> tuple[Any, Carry]:
    """(hidden [T, L, B, H], cell and gates likewise), logits [B, T, V] as [T, B, V], and nats [B, T]; the carry."""
    known = model.config.cell in BUILT_IN
    numbers = range(model.config.num_layers)
    layers = [fuse(model.cell, params["stack"][f"layer_{number}"]) for number in numbers] if known else None
    shape = model.config.num_layers, len(ids), model.config.hidden_size

    def step(carry: Carry, now: Array) -> tuple[Carry, Any]:
        carry = reset(carry, starts(now, newline))
        if layers is None:
            after = model.step_with(params, carry, now, jnp.zeros(shape, params["head"]["kernel"].dtype))
            return after, (jnp.stack([model.cell.hidden(each) for each in after]), None, {})
        after, gates, shown = [], [], now
        for layer, before in zip(layers, carry, strict=True):
            new, saved = _step(model, layer, shown, before)
            shown = model.cell.hidden(new)
            after.append(new)
            gates.append(_gates(model.config.cell, saved))
        hidden = jnp.stack([model.cell.hidden(each) for each in after])
        cell = jnp.stack([each[0] for each in after]) if model.config.cell == "lstm" else None
        return tuple(after), (hidden, cell, {name: jnp.stack([each[name] for each in gates]) for name in gates[0]})

    before = model.head(params, model.top(carry))
    carry, seen = lax.scan(step, carry, ids.T)
    logits = model.head(params, seen[0][:, -1])
    losses = nats(jnp.concatenate([before[None], logits[:-1]]), ids.T).T
    return (seen, logits, losses), carry


def _step(model: Model, layer: FusedLayer, inputs: Array, carry: Any) -> tuple[Any, Any]:
    """One step of a built-in layer as `fast.loop` takes it, with what the cell saves for its gradient."""
    flatten, dtype = model.mesh is None, model.rounding
    projected = product(inputs, layer.kernel, dtype, flatten=flatten) + layer.bias[None]
    recurrent = product(model.cell.hidden(carry), layer.recurrent, dtype, flatten=flatten)
    if layer.inner_bias is not None:
        recurrent = recurrent + layer.inner_bias[None]
    projected = projected if dtype is None else projected.astype(dtype)
    return model.cell.forward(projected.astype(recurrent.dtype), recurrent, carry)


def _gates(cell: str, saved: Any) -> dict[str, Array]:
    """The gates [B, H] among what `cells.Cell.forward` saves."""
    if cell == "lstm":
        i, f, _, o, _ = saved
        return {"input": i, "forget": f, "output": o}
    if cell == "gru":
        r, z, *_ = saved
        return {"reset": r, "update": z}
    return {"tanh": (1 + saved) / 2}
