"""The built-in cells: one step forward and backward, without the matrix products.

Shapes: B batch, H hidden, G gates. Equations, gates and names are those of Flax's `SimpleCell`, `GRUCell`, `LSTMCell`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CellCarry = Any
"""[B, H] for rnn and gru; a pair (cell state c, hidden state h) of [B, H] for lstm, in Flax's order."""


def reset(carry: Any, rows: Array | None) -> Any:
    """A carry [B, ...] with zeros in the `rows`, [B] bool; as it is for None. Also [T, B, ...] with [T, B]."""
    if rows is None:
        return carry
    return jax.tree.map(lambda part: jnp.where(jnp.expand_dims(rows, range(rows.ndim, part.ndim)), 0, part), carry)


class Cell:
    """One step of a recurrent cell. The carry is the hidden state, unless a cell says otherwise."""

    input_kernels: ClassVar[tuple[str, ...]]
    recurrent_kernels: ClassVar[tuple[str, ...]]
    """Names of the G kernels that multiply the input, and the hidden state, in the order in which gates are stacked."""

    def zero_carry(self, batch_size: int, hidden_size: int, dtype: Any) -> CellCarry:
        """The carry before the first character."""
        return jnp.zeros((batch_size, hidden_size), dtype)

    def hidden(self, carry: CellCarry) -> Array:
        """The part of a carry that the recurrent kernel multiplies, and that the layer outputs: [B, H]."""
        return carry

    def add_hidden(self, carry: CellCarry, d_hidden: Array) -> CellCarry:
        """A carry, or its gradient, with `d_hidden` added to its hidden part."""
        return carry + d_hidden

    def forward(self, projected: Array, product: Array, carry: CellCarry) -> tuple[CellCarry, Any]:
        """The next carry, and what `backward` needs, from the input's and the recurrent product, each [B, G·H]."""
        raise NotImplementedError

    def backward(self, saved: Any, d_carry: CellCarry) -> tuple[Array, Array, CellCarry]:
        """Gradients in `projected`, in `product`, and in the carry before, the path through the product left out."""
        raise NotImplementedError


class Rnn(Cell):
    """h' = tanh(x + W h)  (Elman 1990)."""

    input_kernels, recurrent_kernels = ("i",), ("h",)

    def forward(self, projected: Array, product: Array, carry: Array) -> tuple[Array, Array]:
        new = jnp.tanh(projected + product)
        return new, new

    def backward(self, saved: Array, d_carry: Array) -> tuple[Array, Array, Array]:
        d_sum = d_carry * (1 - saved * saved)
        return d_sum, d_sum, jnp.zeros_like(d_carry)


class Gru(Cell):
    """r, z = σ(x + W h);  n = tanh(x_n + r (W_n h + b_n));  h' = (1 - z) n + z h  (Cho et al. 2014, eqs. 5-8)."""

    input_kernels, recurrent_kernels = ("ir", "iz", "in"), ("hr", "hz", "hn")

    def forward(self, projected: Array, product: Array, carry: Array) -> tuple[Array, Any]:
        x_r, x_z, x_n = jnp.split(projected, 3, -1)
        p_r, p_z, p_n = jnp.split(product, 3, -1)
        r, z = jax.nn.sigmoid(x_r + p_r), jax.nn.sigmoid(x_z + p_z)
        n = jnp.tanh(x_n + r * p_n)
        return (1 - z) * n + z * carry, (r, z, n, p_n, carry)

    def backward(self, saved: Any, d_carry: Array) -> tuple[Array, Array, Array]:
        r, z, n, p_n, before = saved
        d_n = d_carry * (1 - z) * (1 - n * n)
        d_r = d_n * p_n * r * (1 - r)
        d_z = d_carry * (before - n) * z * (1 - z)
        d_projected = jnp.concatenate([d_r, d_z, d_n], -1)
        d_product = jnp.concatenate([d_r, d_z, d_n * r], -1)
        return d_projected, d_product, d_carry * z


class Lstm(Cell):
    """i, f, o = σ(x + W h);  g = tanh(x + W h);  c' = f c + i g;  h' = o tanh(c')  (Gers et al. 2000, no peepholes)."""

    input_kernels, recurrent_kernels = ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")

    def zero_carry(self, batch_size: int, hidden_size: int, dtype: Any) -> tuple[Array, Array]:
        zeros = jnp.zeros((batch_size, hidden_size), dtype)
        return zeros, zeros

    def hidden(self, carry: tuple[Array, Array]) -> Array:
        return carry[1]

    def add_hidden(self, carry: tuple[Array, Array], d_hidden: Array) -> tuple[Array, Array]:
        return carry[0], carry[1] + d_hidden

    def forward(self, projected: Array, product: Array, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], Any]:
        # One sigmoid for all four gates, since tanh(x) = 2 σ(2x) - 1: XLA vectorizes it, but not a mixture of both.
        stretch = np.repeat([1, 1, 2, 1], carry[0].shape[-1])
        i, f, g, o = jnp.split(jax.nn.sigmoid((projected + product) * stretch[None].astype(product.dtype)), 4, -1)
        g = 2 * g - 1
        c = f * carry[0] + i * g
        return (c, o * jnp.tanh(c)), (i, f, g, o, carry[0])

    def backward(self, saved: Any, d_carry: tuple[Array, Array]) -> tuple[Array, Array, tuple[Array, Array]]:
        i, f, g, o, before = saved
        d_c, d_h = d_carry
        tanh_c = jnp.tanh(f * before + i * g)  # cheaper to compute again than to keep
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        d_i, d_f = d_c * g * i * (1 - i), d_c * before * f * (1 - f)
        d_g, d_o = d_c * i * (1 - g * g), d_h * tanh_c * o * (1 - o)
        d_sum = jnp.concatenate([d_i, d_f, d_g, d_o], -1)
        return d_sum, d_sum, (d_c * f, jnp.zeros_like(d_h))


BUILT_IN: dict[str, Cell] = {"rnn": Rnn(), "gru": Gru(), "lstm": Lstm()}
