"""Ids and a carry become logits and a carry. The only room that knows Flax.

A model is a value (`Model`), its parameters are a tree, and everything else is a pure function of both. The parameters
are those of Flax's own cells, one cell for each layer, so all ways through time share them: `plain` is a stack of Flax
cells under `nn.scan`, for reading and as the reference; `fast` hoists the input products out of the loop and runs
`recurrence.recur` layer by layer; `cudnn` leaves whole layers to NVIDIA's library.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from charlstm.config import ModelConfig
from charlstm.core.fast import cudnn
from charlstm.core.fast.loop import CELLS, in_chunks, recur
from charlstm.core.fast.products import are_ids, product, rounded

Params = Any
Carry = tuple[Any, ...]
"""One entry a layer: (c, h) for lstm, h for gru and rnn; each [B, H]."""

Masks = list[Array] | None
"""Per layer: 0 where an output is dropped, 1/keep where it stays; [T, B, H], or [1, B, H] for a window's mask."""

_FLAX_CELLS = {"rnn": nn.SimpleCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
_GATES = {
    "rnn": (("i",), ("h",)),
    "gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
}
"""Names of the input and recurrent kernels inside each Flax cell, in the order in which `recurrence` stacks them."""


@dataclass(frozen=True)
class Model:
    """A stack of L recurrent layers over V symbols, and a dense softmax layer. Hashable, for jit to close over."""

    config: ModelConfig
    vocabulary_size: int

    @partial(jax.jit, static_argnums=0)  # compiled as one program, it takes a second instead of three
    def init(self, key: Array) -> Params:
        """Fresh float32 parameters: orthogonal recurrent kernels, normal others, zero biases but the forget gate's.

        A normal kernel's variance is 1 / fan-in (LeCun et al. 1998). The fan-in of the first layer is 1, not V: a
        character reads one row of it. With 1/V the gates hardly see the text at first, and training stalls there.
        The forget gate's bias starts at `forget_bias` (Gers et al. 2000; Jozefowicz et al. 2015, section 2.2).
        """
        ids = jnp.zeros((1, 1), jnp.int32)
        with nn.intercept_methods(_products(self)):
            params: Params = _Plain(self).init(key, ids, self.zero_carry(1), None)["params"]
        for name in _GATES[self.config.cell][0]:
            params["stack"]["layer_0"][name]["kernel"] *= self.vocabulary_size**0.5
        if self.config.cell == "lstm":
            for layer in range(self.config.num_layers):
                gate = params["stack"][f"layer_{layer}"]["hf"]
                gate["bias"] = jnp.full_like(gate["bias"], self.config.forget_bias)
        return params

    @property
    def rounding(self) -> Any:
        """The dtype of products' factors and of activations between layers; None is that of the parameters."""
        return jnp.bfloat16 if self.config.dtype == "bfloat16" else None

    def zero_carry(self, batch_size: int, dtype: Any = jnp.float32) -> Carry:
        """The state before the first character."""
        zeros = jnp.zeros((batch_size, self.config.hidden_size), dtype)
        one = (zeros, zeros) if self.config.cell == "lstm" else zeros
        return (one,) * self.config.num_layers

    def apply(self, params: Params, ids: Array, carry: Carry, dropout_key: Array | None = None) -> tuple[Array, Carry]:
        """Read a window.

        Args:
            params: a tree as `init` makes it.
            ids: [B, T] integers below V.
            carry: the state before the window.
            dropout_key: draws the dropout masks while training; None, for evaluation and sampling, drops nothing.

        Returns:
            logits [B, T, V] in float32 or wider, one row for each id read, and the carry after the window.
        """
        masks = None if dropout_key is None else self._masks(dropout_key, ids.shape, params)
        hidden, carry = self.read(self.fuse(params), ids, carry, masks)
        # Transposing the logits moves fewer bytes than transposing the hidden states.
        return self.head(params, hidden).swapaxes(0, 1), carry

    def fuse(self, params: Params) -> Params:
        """The parameters in the form that `read` and `head` take: the gates of a layer side by side.

        A loop that reads a symbol at a time fuses once, before it.
        """
        if cudnn.settled(self.config) == "plain":
            return params
        layers = [params["stack"][f"layer_{layer}"] for layer in range(self.config.num_layers)]
        return {"stack": [_fuse_layer(self.config.cell, gates) for gates in layers], "head": params["head"]}

    def read(self, fused: Params, ids: Array, carry: Carry, masks: Masks = None) -> tuple[Array, Carry]:
        """The top layer's hidden states [T, B, H] for ids [B, T], and the carry after them.

        With `remat`, in chunks whose inside a gradient computes again.
        """
        if self.config.remat:
            return in_chunks(partial(self._read, fused), ids.T, masks, carry)
        return self._read(fused, ids.T, masks, carry)

    def _read(self, fused: Params, ids: Array, masks: Masks, carry: Carry) -> tuple[Array, Carry]:
        """As `read`, of ids [T, B]."""
        way = cudnn.settled(self.config)
        if way == "plain":
            with nn.intercept_methods(_products(self)):
                result: Any = _Plain(self).apply({"params": fused}, ids, carry, masks)
                return result
        hidden, after = ids, []
        for number, layer in enumerate(fused["stack"]):
            # A single step, as in sampling, gains nothing from a library that fuses many.
            run = self._cudnn_layer if way == "cudnn" and len(ids) > 1 else self.fast_layer
            hidden, last = run(layer, hidden, carry[number])
            after.append(last)
            if masks is not None:
                hidden = _dropped(hidden, masks[number])
        return hidden, tuple(after)

    def fast_layer(self, layer: "_Layer", inputs: Array, carry: Any) -> tuple[Array, Any]:
        """One layer of a fused stack through charlstm's own loop: its output [T, B, H], and its carry after that.

        The first layer's inputs are ids [T, B]; those of the others are the output of the layer below.
        """
        projected = product(inputs, layer.kernel, self.rounding) + layer.bias[None, None, :]
        projected = rounded(projected, self.rounding)
        return recur(CELLS[self.config.cell], projected, layer.recurrent, layer.inner_bias, carry)

    def _cudnn_layer(self, layer: "_Layer", inputs: Array, carry: Any) -> Any:
        if are_ids(inputs):
            inputs = jax.nn.one_hot(inputs, self.vocabulary_size, dtype=layer.kernel.dtype)
        return cudnn.lstm(inputs, layer.kernel, layer.recurrent, layer.bias, carry)

    def head(self, params: Params, hidden: Array) -> Array:
        """Logits [..., V] of the symbol that follows a top layer's hidden state [..., H]."""
        logits = product(hidden, params["head"]["kernel"], self.rounding)
        return logits + params["head"]["bias"].reshape((1,) * (logits.ndim - 1) + (-1,))

    def top(self, carry: Carry) -> Array:
        """The top layer's hidden state [B, H] inside a carry."""
        return CELLS[self.config.cell].hidden(carry[-1])

    def _masks(self, key: Array, shape: tuple[int, ...], params: Params) -> Masks:
        if self.config.dropout == 0:
            return None
        batch, time = shape
        # 16 random bits a unit, where float32 uniforms take 32; keep is rounded to them, and scaled exactly.
        keep = min(max(round((1 - self.config.dropout) * 2**16), 1), 2**16 - 1)
        steps = time if self.config.dropout_mask == "step" else 1
        dtype = params["head"]["kernel"].dtype

        def one(layer_key: Array) -> Array:
            bits = jax.random.bits(layer_key, (steps, batch, self.config.hidden_size), jnp.uint16)
            return (bits < keep).astype(dtype) * (2**16 / keep)

        return [one(layer_key) for layer_key in jax.random.split(key, self.config.num_layers)]


class _Layer(NamedTuple):
    """A layer's parameters, its gates side by side: D is V for the first layer and H above it, G counts the gates."""

    kernel: Array
    """[D, G·H], of the input."""
    recurrent: Array
    """[H, G·H], of the hidden state."""
    bias: Array
    """[G·H], added to the input's product."""
    inner_bias: Array | None
    """[G·H], added to the recurrent product; the gru's, whose reset gate multiplies it."""


def _fuse_layer(cell: str, gates: Params) -> _Layer:
    def beside(names: tuple[str, ...], part: str) -> Array:
        return jnp.concatenate([gates[name][part] for name in names], -1)

    inputs, recurrents = _GATES[cell]
    inner_bias = None
    if cell == "gru":
        inner = gates["hn"]["bias"]
        inner_bias = jnp.concatenate([jnp.zeros_like(inner), jnp.zeros_like(inner), inner])
    bias = beside(recurrents if cell == "lstm" else inputs, "bias")
    return _Layer(beside(inputs, "kernel"), beside(recurrents, "kernel"), bias, inner_bias)


class _Plain(nn.Module):
    """The reference: Flax cells under `nn.scan`."""

    model: Model

    @nn.compact
    def __call__(self, ids: Array, carry: Carry, masks: Masks) -> tuple[Array, Carry]:
        if masks is not None:
            masks = [jnp.broadcast_to(mask, (ids.shape[0], *mask.shape[1:])) for mask in masks]
        scanned = nn.scan(_Stack, variable_broadcast="params", split_rngs={"params": False})
        carry, hidden = scanned(self.model, name="stack")(carry, (ids, masks))
        if self.is_initializing():
            nn.Dense(self.model.vocabulary_size, name="head")(hidden)
        return hidden, carry


class _Stack(nn.Module):
    """One step of every layer: a cell of its own for each, and dropout on each one's output."""

    model: Model

    @nn.compact
    def __call__(self, carry: Carry, inputs: tuple[Array, Masks]) -> tuple[Carry, Array]:
        hidden, masks = inputs
        config, after = self.model.config, []
        for layer, before in enumerate(carry):
            cell = _FLAX_CELLS[config.cell](config.hidden_size, name=f"layer_{layer}")
            last, hidden = cell(before, hidden)
            after.append(last)
            hidden = hidden if self.is_initializing() else rounded(hidden, self.model.rounding)
            if masks is not None:
                hidden = _dropped(hidden, masks[layer])
        return tuple(after), hidden


def _dropped(hidden: Array, mask: Array) -> Array:
    """The product is rounded and not the mask: a rounded 1/keep would scale all units alike, by up to 1/256."""
    return (hidden.astype(mask.dtype) * mask).astype(hidden.dtype)


def _products(model: Model) -> Any:
    """Lets a Flax cell read ids and round: its dense layers multiply as `precision.product` does."""

    def intercept(dense: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, nn.Dense) or not (are_ids(args[0]) or model.rounding is not None):
            return dense(*args, **kwargs)
        if module.is_initializing():
            return dense(
                jnp.zeros((*args[0].shape, model.vocabulary_size), jnp.float32) if are_ids(args[0]) else args[0]
            )
        own = module.variables["params"]
        result = product(args[0], own["kernel"], model.rounding)
        return result + own["bias"][None, :] if "bias" in own else result

    return intercept
