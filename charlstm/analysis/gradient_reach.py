"""How far back a gradient reaches: what a hidden state k steps ago still does to the loss of the next character.

Where it vanishes within a few steps, it cannot teach a layer to use what lies further back (Bengio, Simard and Frasconi
1994; Pascanu, Mikolov and Bengio 2013).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from charlstm.analysis.evaluate import WARMUP
from charlstm.analysis.reader import compiled, keep_rows, starts
from charlstm.analysis.settings import under_settings
from charlstm.core.cells import reset
from charlstm.core.loss import nats
from charlstm.core.network import Carry, Model, Params
from charlstm.core.sharding import Layout

LAGS = 200  # three of the default windows and more, so that a curve shows whether a state outlives the window's edge
POSITIONS = 256  # of which the median is taken: a mean is that of the one or two whose gradient does not vanish
BLOCK = 32  # positions that are read side by side: a gradient keeps the gates of every layer at K + 1 steps of each


class GradientReach(NamedTuple):
    """Norms [L, K+1] in float64: the median over positions t of the norm over H of ∂loss(t)/∂h_l(t-k), k = 0..K."""

    norms: np.ndarray

    def reach(self, fraction: float = 0.01) -> list[int | None]:
        """`reach` of each layer."""
        return [reach(layer, fraction) for layer in self.norms]


def reach(norms: np.ndarray, fraction: float = 0.01) -> int | None:
    """The lag from which on norms, [K+1] by lag, stay at or below `fraction` of that at lag 0; None if beyond lag K.

    A curve that dips and comes back reaches past its dip.
    """
    larger = np.flatnonzero(norms > fraction * norms[0]) if norms[0] > 0 else np.zeros(0, int)
    lag = int(larger[-1]) + 1 if len(larger) else 0
    return None if lag == len(norms) else lag


@under_settings
def gradient_reach(
    model: Model,
    params: Params,
    ids: np.ndarray,
    *,
    lags: int = LAGS,
    positions: int = POSITIONS,
    newline: int | None = None,
) -> GradientReach:
    """The norm of a character's gradient in each layer's hidden state, by how many steps ago that was.

    loss(t) is the nats of character t + 1 given all up to t, with no dropout. h_l(t-k) is what layer l hands to its own
    next step and to the layer above; its gradient is that along all paths to the loss. For an lstm that is h and not c:
    a nudge of h enters c one step later and is kept there, but what c(t-k) carries past h(t-k) is no part of it.

    Args:
        model, params: what predicts.
        ids: [N] the text.
        lags: the largest lag, K.
        positions: how many t at most, spread evenly over the text. Each is read from the zero carry `WARMUP` characters
            before t - K, or at the start of the text. Devices share them.
        newline: the id that ends each of the text's documents, which no gradient crosses; None where the text is one.

    Raises:
        ValueError: no character has K + 1 before it.
    """
    if lags < 0 or positions < 1:
        raise ValueError(f"there are {lags} lags at {positions} positions; ask for at least 0 lags and 1 position")
    if (characters := len(ids)) < lags + 2:
        need = f"{lags:,} lags need {lags + 2:,}; give a longer text, or ask for fewer lags"
        raise ValueError(f"the text has {characters:,} characters, but {need}")
    if newline is not None:  # which the first document is read after too
        ids, characters = np.concatenate([np.array([newline], ids.dtype), ids]), characters + 1
    ends = np.unique(np.linspace(lags, characters - 2, positions).round().astype(int))
    block = min(BLOCK, len(ends))
    warm = min(WARMUP, int(ends[-1]) - lags)
    layout = Layout.of(block)
    params = jax.device_put(params, layout.whole)
    gradients = _gradients(model.on(layout))
    found = []
    for at in range(0, len(ends), block):
        part = ends[at : at + block]
        filled = np.pad(part, (0, block - len(part)), mode="edge")  # so that one program reads all blocks
        columns = filled[:, None] + np.arange(-lags - warm, 2)
        rows = ids[np.maximum(columns, 0)].astype(np.int32)
        arrays = jax.device_put((rows[:, :warm], columns[:, :warm] >= 0, rows[:, warm:]), layout.rows)
        gradient = gradients(params, *arrays, newline=newline)
        wide = np.asarray(gradient, np.float64)  # squares may leave the range of float32
        found.append(np.linalg.norm(wide, axis=-1)[::-1, :, : len(part)])
    return GradientReach(np.median(np.concatenate(found, -1), -1).T)


@compiled
def _gradients(model: Model, params: Params, before: Array, inside: Array, ids: Array, newline: Any = None) -> Array:
    """[K+1, L, B, H] for ids [B, K+2], the last of which is predicted, after those [B, W] that warm the carry up."""
    fused, wide = model.fuse(params), params["head"]["kernel"].dtype

    def warm_up(carry: Carry, at: tuple[Array, Array]) -> tuple[Carry, None]:
        ids, inside = at
        _, after = model.read(fused, ids[:, None], carry, resets=starts(ids[:, None], newline))
        return keep_rows(after, inside, carry), None

    start, _ = lax.scan(warm_up, model.zero_carry(len(ids), wide), (before.T, inside.T))

    def step(carry: Carry, at: tuple[Array, Array]) -> tuple[Carry, None]:
        return model.step_with(fused, reset(carry, starts(at[0], newline)), *at), None

    def loss(nudges: Array) -> Array:
        carry, _ = lax.scan(step, start, (ids[:, :-1].T, nudges))
        return nats(model.head(params, model.top(carry)), ids[:, -1]).sum()  # rows are independent

    shape = ids.shape[1] - 1, model.config.num_layers, len(ids), model.config.hidden_size
    return jax.grad(loss)(jnp.zeros(shape, wide))
