"""What each unit does at each character of a text: hidden states, cell states and gates, as a stream of blocks.

Hidden states are those of every backend; the gates inside a step are computed here, from the equations of `core.cells`.
A cell of one's own shows its output alone.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from charlstm.analysis.evaluate import rows_of, warmed_rows
from charlstm.analysis.reader import compiled, read_windows, starts
from charlstm.analysis.settings import under_settings
from charlstm.core.cells import BUILT_IN, reset
from charlstm.core.fast.loop import fuse, project, scan_cell
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
    before, resets = model.head(params, model.top(carry)), starts(ids.T, newline)
    read = _read_layers if model.config.cell in BUILT_IN else _read_steps
    seen, carry = read(model, params, ids.T, carry, resets)
    logits = model.head(params, seen[0][:, -1])
    losses = nats(jnp.concatenate([before[None], logits[:-1]]), ids.T).T
    return (seen, logits, losses), carry


def _read_layers(model: Model, params: Params, ids: Array, carry: Carry, resets: Any) -> tuple[Any, Carry]:
    """What is seen of built-in cells: all that the loop in JAX keeps for its gradient."""
    flatten, dtype, shown, after, seen = model.mesh is None, model.rounding, ids, [], []
    for number, first in enumerate(carry):
        layer = fuse(model.cell, params["stack"][f"layer_{number}"])
        projected = project(layer, shown, dtype, flatten)
        shown, last, saved = scan_cell(
            model.cell, projected, layer.recurrent, layer.inner_bias, first, resets, keep=True
        )
        after.append(last)
        seen.append((shown.astype(model.cell.hidden(last).dtype), *_cell_and_gates(model.config.cell, saved)))
    return jax.tree.map(lambda *layers: jnp.stack(layers, 1), *seen), tuple(after)


def _read_steps(model: Model, params: Params, ids: Array, carry: Carry, resets: Any) -> tuple[Any, Carry]:
    """What is seen of a cell of one's own: its outputs."""
    still = jnp.zeros((model.config.num_layers, ids.shape[1], model.config.hidden_size), params["head"]["kernel"].dtype)

    def step(carry: Carry, now: tuple[Array, Any]) -> tuple[Carry, Array]:
        after = model.step_with(params, reset(carry, now[1]), now[0], still)
        return after, jnp.stack([model.cell.hidden(each) for each in after])

    carry, hidden = lax.scan(step, carry, (ids, resets))
    return (hidden, None, {}), carry


def _cell_and_gates(cell: str, saved: Any) -> tuple[Array | None, dict[str, Array]]:
    """The cell states of an lstm and the gates, [T, B, H] each, among what `cells.Cell.forward` saves."""
    if cell == "lstm":
        i, f, g, o, before = saved
        return f * before + i * g, {"input": i, "forget": f, "output": o}
    if cell == "gru":
        r, z, *_ = saved
        return None, {"reset": r, "update": z}
    return None, {"tanh": (1 + saved) / 2}
