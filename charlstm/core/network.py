"""Ids and a carry to logits and a carry: the model, whichever backend runs it.

A model is a value, its parameters are a tree, and everything else is a pure function of both. The tree is that of
`flax_stack.FlaxStack` for every backend, and all give the same values:

    native  runs whole layers on a CPU in compiled code of our own, where that was loaded (`support.native`)
    fast    hoists the input products out of a time loop whose gradient is written by hand (`core.fast`)
    flax    the Flax stack itself, for reading, as the reference, and for cells of one's own
    cudnn   leaves whole layers to NVIDIA's library
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from charlstm import config as registry
from charlstm.config import ModelConfig, Weights
from charlstm.core.cells import BUILT_IN, reset
from charlstm.core.dropout import Masks, add_row_of_zeros, drop_weights, keep_mask, output_masks
from charlstm.core.fast import cudnn, native
from charlstm.core.fast.loop import fuse, run_layer
from charlstm.core.fast.products import are_ids, product
from charlstm.core.flax_stack import FLAX_CELLS, FlaxStack, RegisteredCell, run_step
from charlstm.core.sharding import Layout

Params = Any
Carry = tuple[Any, ...]
"""One entry a layer: (c, h) for lstm, h for gru and rnn, each [B, H]; a `RegisteredCarry` for a cell of one's own."""
Backend = Literal["native", "fast", "flax", "cudnn"]


@dataclass(frozen=True)
class Model:
    """A stack of L recurrent layers over V symbols, and a dense softmax layer. Hashable, for jit to close over.

    Raises:
        ValueError: the cell is neither built in nor registered, or a backend is asked for that cannot run it here.
    """

    config: ModelConfig
    vocabulary_size: int
    mesh: Mesh | None = None
    """The devices that share the rows B of what it reads; None where one device holds whole arrays."""
    backend: Any = None
    """The `Backend` that runs it; by default what the config's `recurrence` means here, resolved when it is made."""
    weights: Weights = "float32"
    """The type in which the native core holds kernels while it draws text; int8 is for those of `rounding.to_int8`."""
    flax_cell: Any = None
    """The Flax class of the cell, looked up when the model is made; a name that is registered again leaves it."""

    def __post_init__(self) -> None:
        if self.flax_cell is None:
            registry.check_cell(self.config.cell)
            object.__setattr__(self, "flax_cell", FLAX_CELLS.get(self.config.cell) or registry.CELLS[self.config.cell])
        if self.backend is None:
            object.__setattr__(self, "backend", _resolve_backend(self.config, self.mesh))
        if self.config.recurrent_dropout and self.config.cell not in BUILT_IN:
            raise ValueError(f"recurrent_dropout is for {', '.join(BUILT_IN)}; it must be 0 for {self.config.cell!r}")

    def on(self, layout: Layout) -> "Model":
        """This model for rows that lie as `layout` says."""
        return replace(self, mesh=layout.shared_mesh)

    @property
    def cell(self) -> Any:
        """The cell's functions: a `cells.Cell`, or a `RegisteredCell`."""
        return BUILT_IN.get(self.config.cell) or RegisteredCell(self.flax_cell)

    @property
    def rounding(self) -> Any:
        """The dtype of products' factors and of activations between layers; None is that of the parameters."""
        return jnp.bfloat16 if self.config.dtype == "bfloat16" else None

    @partial(jax.jit, static_argnums=0)  # compiled as one program, it takes a second instead of three
    def init(self, key: Array) -> Params:
        """Fresh float32 parameters: orthogonal recurrent kernels, normal others, zero biases but the forget gate's.

        A normal kernel's variance is 1 / fan-in (LeCun et al. 1998). The fan-in of the first layer is 1 and not V, as a
        character reads one row of it: with 1/V the gates hardly see the text at first, and training stalls there. The
        forget gate's bias starts at `forget_bias` (Gers et al. 2000; Jozefowicz et al. 2015, section 2.2). A cell of
        one's own is initialized as it asks, but for the scale of the kernels that the first layer's input reads.
        """
        params = self._init_flax(self.vocabulary_size, key)
        # The kernels that read the input are those whose shape follows the vocabulary.
        wider = jax.eval_shape(partial(self._init_flax, self.vocabulary_size + 1), key)
        first, other = params["stack"]["layer_0"], wider["stack"]["layer_0"]
        scale = self.vocabulary_size**0.5
        scaled = jax.tree.map(lambda leaf, form: leaf if leaf.shape == form.shape else leaf * scale, first, other)
        params["stack"]["layer_0"] = scaled
        if self.config.cell == "lstm":
            for gates in params["stack"].values():
                gates["hf"]["bias"] = jnp.full_like(gates["hf"]["bias"], self.config.forget_bias)
        return params

    def zero_carry(self, batch_size: int, dtype: Any = jnp.float32) -> Carry:
        """The state before the first character."""
        one = self.cell.zero_carry(batch_size, self.config.hidden_size, dtype)
        return (one,) * self.config.num_layers

    def apply(
        self, params: Params, ids: Array, carry: Carry, dropout_key: Array | None = None, resets: Any = None
    ) -> tuple[Array, Carry]:
        """Read a window.

        Args:
            params: a tree as `init` makes it.
            ids, carry: [B, T] integers below V, and the state before them.
            dropout_key: draws the dropout masks while training; None, for evaluation and sampling, drops nothing.
            resets: [B, T] bool, at which ids a row's carry is zero before they are read; None where it never is.

        Returns:
            logits [B, T, V] in float32 or wider, one row for each id read, and the carry after the window.
        """
        masks = None
        if dropout_key is not None:
            masks = output_masks(dropout_key, self.config, ids.shape, params["head"]["kernel"].dtype)
            params, ids, carry = self.drop_read(dropout_key, params, ids, carry)
        if self.backend == "flax":
            logits, carry = self._over_time(partial(self._stack.apply, {"params": params}), ids, carry, masks, resets)
        else:
            hidden, carry = self.read(self.fuse(params), ids, carry, masks, resets)
            # Transposing the logits moves fewer bytes than transposing the hidden states.
            logits = self.head(params, hidden)
        return logits.swapaxes(0, 1), carry

    def fuse(self, params: Params) -> Params:
        """The parameters in the form that `read` and `head` take: the gates of a layer side by side.

        A loop that reads a symbol at a time fuses once, before it.
        """
        if self.backend == "flax":
            return params
        layers = [params["stack"][f"layer_{layer}"] for layer in range(self.config.num_layers)]
        fused: list[Any] = [fuse(self.cell, gates) for gates in layers]
        if self.backend == "native" and fused[0].kernel.dtype == jnp.float32:  # the core has no wider numbers
            fused = [native.pack(self.cell, layer, self.rounding) for layer in fused]
        return {"stack": fused, "head": params["head"]}

    def read(
        self, fused: Params, ids: Array, carry: Carry, masks: Masks = None, resets: Array | None = None
    ) -> tuple[Array, Carry]:
        """The top layer's hidden states [T, B, H] for ids [B, T], and the carry after them; `resets` as in `apply`."""
        flax = partial(self._stack.apply, {"params": fused}, method="read")
        read = flax if self.backend == "flax" else partial(self._read, fused)
        return self._over_time(read, ids, carry, masks, resets)

    def head(self, params: Params, hidden: Array) -> Array:
        """Logits [..., V] of the symbol that follows a top layer's hidden state [..., H]."""
        logits = product(hidden, params["head"]["kernel"], self.rounding, flatten=self.mesh is None)
        return logits + params["head"]["bias"].reshape((1,) * (logits.ndim - 1) + (-1,))

    def top(self, carry: Carry) -> Array:
        """The top layer's hidden state [B, H] inside a carry."""
        return self.cell.hidden(carry[-1])

    def step_with(self, fused: Params, carry: Carry, ids: Array, nudges: Array) -> Carry:
        """The carry after ids [B], with nudges [L, B, H] added to the new hidden states before anything reads them."""
        shown, after = ids[None], []
        for layer in range(self.config.num_layers):
            last = self.cell.add_hidden(self._run_layer(fused, layer, shown, carry[layer], None)[1], nudges[layer])
            shown = self.cell.hidden(last)[None]
            after.append(last)
        return tuple(after)

    def drop_read(self, key: Array, params: Params, ids: Array, carry: Carry) -> tuple[Params, Array, Carry]:
        """What a window of training reads: parameters, ids and a carry of which some are dropped."""
        config, stack = self.config, dict(params["stack"])
        weights_key, ids_key, carry_key = (jax.random.fold_in(key, number) for number in range(3))
        for layer in range(config.num_layers if config.recurrent_dropout else 0):
            layer_key, name = jax.random.fold_in(weights_key, layer), f"layer_{layer}"
            names = self.cell.recurrent_kernels
            stack[name] = drop_weights(layer_key, config.recurrent_dropout, stack[name], names)
        if config.input_dropout:  # id V is one-hot in none of V places
            ids = jnp.where(keep_mask(ids_key, ids.shape, config.input_dropout), ids, self.vocabulary_size)
            if self.backend != "flax":  # the others look a row up
                stack["layer_0"] = add_row_of_zeros(stack["layer_0"], self.cell.input_kernels)
        if config.carry_dropout:
            carry = reset(carry, ~keep_mask(carry_key, ids.shape[:1], config.carry_dropout))
        return {**params, "stack": stack}, ids, carry

    @property
    def _stack(self) -> FlaxStack:
        return FlaxStack(self.flax_cell, self.config.hidden_size, self.config.num_layers, self.vocabulary_size)

    def _init_flax(self, vocabulary_size: int, key: Array) -> Params:
        stack = replace(self, vocabulary_size=vocabulary_size)._stack
        return stack.init(key, jnp.zeros((1, 1), jnp.int32), self.zero_carry(1))["params"]

    def _over_time(self, read: Callable[..., Any], ids: Array, carry: Carry, masks: Masks, resets: Any) -> Any:
        inputs = ids.T, masks, None if resets is None else resets.T
        if self.config.remat:
            return _read_in_chunks(lambda inputs, carry: read(inputs[0], carry, *inputs[1:]), inputs, carry)
        return read(inputs[0], carry, *inputs[1:])

    def _read(self, fused: Params, ids: Array, carry: Carry, masks: Masks, resets: Any) -> tuple[Array, Carry]:
        """As `read`, of ids and resets [T, B]."""
        hidden, after = ids, []
        for layer in range(self.config.num_layers):
            hidden, last = self._run_layer(fused, layer, hidden, carry[layer], resets)
            after.append(last)
            if masks is not None:
                # The product is rounded and not the mask: a rounded 1/keep would scale all units by up to 1/256.
                hidden = (hidden.astype(masks[layer].dtype) * masks[layer]).astype(hidden.dtype)
        return hidden, tuple(after)

    def _run_layer(self, fused: Params, number: int, inputs: Array, carry: Any, resets: Any) -> tuple[Array, Any]:
        """One layer over T steps: its output [T, B, H] for inputs [T, B, D] or ids [T, B], and its carry after them."""
        if self.backend == "flax":  # of one step: the stack reads longer windows as a whole
            cell = self.flax_cell(features=self.config.hidden_size)
            step = partial(cell.apply, {"params": fused["stack"][f"layer_{number}"]})
            carry, output = run_step(step, carry, self._one_hot(inputs, fused)[0])
            return output[None], carry
        if isinstance(layer := fused["stack"][number], native.PackedLayer):
            return native.run_layer(self.cell, layer, inputs, carry, resets, self.rounding, self.mesh)
        if self.backend != "cudnn" or len(inputs) == 1:  # which cuDNN's fused steps cannot help
            return run_layer(self.cell, layer, inputs, carry, resets, self.rounding, self.mesh is None)
        if resets is not None:
            raise ValueError("cuDNN resets no row inside a window; use recurrence fast for data.documents")
        kernel, recurrent, bias, _ = layer
        return cudnn.run_lstm(self._one_hot(inputs, fused), kernel, recurrent, bias, carry, self.mesh)

    def _one_hot(self, inputs: Array, fused: Params) -> Array:
        """Ids as one-hot rows, and anything else as it is."""
        dtype = fused["head"]["kernel"].dtype
        return jax.nn.one_hot(inputs, self.vocabulary_size, dtype=dtype) if are_ids(inputs) else inputs


def _resolve_backend(config: ModelConfig, mesh: Mesh | None) -> Backend:
    asked = config.recurrence
    if config.cell not in BUILT_IN:
        if asked not in ("auto", "plain") or config.dtype != "float32":
            raise ValueError(f"cell {config.cell!r} runs as a Flax stack alone; use recurrence auto and dtype float32")
        return "flax"
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    if asked == "cudnn":
        if not cudnn.runs_on(device):
            raise ValueError("model.recurrence is 'cudnn', and JAX sees no NVIDIA GPU here; use model.recurrence fast")
        return "cudnn"
    has_native = native.is_bound() and device.platform == "cpu"
    if asked == "native" and not has_native:
        raise ValueError("model.recurrence is 'native', and no native core was loaded for a CPU; use auto or fast")
    if asked in ("auto", "native") and has_native:
        return "native"
    # cuDNN has run on no card yet, so auto does not choose it. Flax's cells cannot round the factors of their products
    # alone; the fast loop, whose values are theirs, can.
    return "flax" if asked == "plain" and config.dtype == "float32" else "fast"


def _read_in_chunks(read: Callable[[Any, Any], tuple[Array, Any]], inputs: Any, carry: Any) -> tuple[Array, Any]:
    """Read T steps in chunks of √T, rounded up; a gradient keeps the carries between them and reads each chunk again.

    One more forward pass buys O(√T) memory for what lies inside the layers (Chen et al. 2016, section 4.1).
    """
    time = len(inputs[0])
    length = math.isqrt(time - 1) + 1
    read_again = jax.checkpoint(read, prevent_cse=False)  # pyright: ignore[reportPrivateImportUsage]

    def chunk(length: int, carry: Any, start: Array | int) -> tuple[Any, Array]:
        def cut(each: Array) -> Array:
            return each if len(each) == 1 else lax.dynamic_slice_in_dim(each, start, length)

        output, carry = read_again(jax.tree.map(cut, inputs), carry)
        return carry, output

    chunks, rest = divmod(time, length)
    carry, output = lax.scan(partial(chunk, length), carry, length * jnp.arange(chunks))
    output = output.reshape(-1, *output.shape[2:])
    if rest:
        carry, last = chunk(rest, carry, time - rest)
        output = jnp.concatenate([output, last])
    return output, carry
