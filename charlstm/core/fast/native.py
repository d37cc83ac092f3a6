"""Whole layers through the native core, `native.cc`, with the parameters and the values of the loop in JAX.

A program binds what `support.native` has compiled and loaded; without it nothing here is called. One call runs one
layer over a window: the input's product or rows, the time loop and the gates, and backward the gradients of all of
them, so that neither projected inputs nor gate gradients are written to memory as a whole.

Shapes: B batch, T time, D input, H hidden, G gates; time-major.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from charlstm.core.cells import Cell, CellCarry, Gru, Lstm
from charlstm.core.fast.loop import FusedLayer
from charlstm.core.fast.products import are_ids

_core: Any = None


def bind(core: Any) -> None:
    """Lets models run in a core that was loaded, a `ctypes.CDLL` whose calls JAX knows; None unbinds it."""
    global _core
    _core = core


def is_bound() -> bool:
    """Whether there is a core."""
    return _core is not None


class PackedLayer(NamedTuple):
    """A layer's parameters as the loop in JAX takes them, and once more as the native core reads them."""

    layer: FusedLayer
    packed: Any
    """[..] float32; None in a gradient."""


class Spec(NamedTuple):
    """What a call is compiled for besides shapes."""

    cell: Cell
    round: bool
    """Whether the factors of products are rounded to bfloat16."""

    def call(self, name: str, forms: Any, vmap_method: str | None = "broadcast_all") -> Any:
        """A call of the core's for this cell."""
        call = jax.ffi.ffi_call(f"charlstm_{type(self.cell).__name__}_{name}", forms, vmap_method=vmap_method)
        return partial(call, round=self.round)

    def size(self, name: str, *numbers: int) -> int:
        """A number that the core knows of this cell."""
        return getattr(_core, f"charlstm_{type(self.cell).__name__}_{name}")(*numbers)


def pack(cell: Cell, layer: FusedLayer, dtype: Any) -> PackedLayer:
    """Parameters for many calls of `run_layer`; `dtype` as there."""
    still = jax.lax.stop_gradient(layer)  # `run_layer` differentiates in the layer itself
    return PackedLayer(layer, pack_for(Spec(cell, dtype is not None), still, len(layer.recurrent), jnp.float32))


def pack_for(spec: Spec, layer: FusedLayer, hidden: int, weights: Any) -> Array:
    """The parameters of `hidden` units as the core reads them, in weights of float32 or int8."""
    kernel, recurrent, bias, inner = layer
    inner = jnp.zeros(0, bias.dtype) if inner is None else inner[-hidden:]
    size = spec.size("packed_size", len(kernel) + len(recurrent), hidden, jnp.dtype(weights).itemsize)
    return spec.call("pack", jax.ShapeDtypeStruct((size,), weights))(kernel, recurrent, bias, inner)


def run_layer(
    cell: Cell,
    packed: PackedLayer,
    inputs: Array,
    carry: CellCarry,
    resets: Array | None,
    dtype: Any,
    mesh: Mesh | None,
) -> tuple[Array, CellCarry]:
    """The layer's output [T, B, H] for inputs [T, B, D] or ids [T, B], and the carry after the last step.

    Args:
        cell, packed: a value of `cells.BUILT_IN`, and what `pack` makes of its parameters.
        inputs, carry: float32 but for ids, or of `dtype`.
        resets: [T, B] bool, which rows' carries are zero before a step; None where no row's is.
        dtype: bfloat16, for factors rounded to it, or None. The output has it.
        mesh: the devices that share B, along its only axis; None where one device holds all of it.
    """
    run: Any = partial(_layer, Spec(cell, dtype is not None))
    inputs = inputs.astype(jnp.int32 if are_ids(inputs) else jnp.float32)  # the core's only types
    if mesh is not None:  # XLA cannot look into a foreign call to partition it
        rows, later = PartitionSpec(*mesh.axis_names), PartitionSpec(None, *mesh.axis_names)
        specs: Any = {"in_specs": (PartitionSpec(), later, rows, later), "out_specs": (later, rows)}
        run = jax.shard_map(run, mesh=mesh, **specs, check_vma=False)
    hidden, last = run(packed, inputs, carry, resets)
    return (hidden if dtype is None else hidden.astype(dtype)), last


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(spec: Spec, packed: PackedLayer, inputs: Array, carry: CellCarry, resets: Array | None) -> Any:
    hidden, last, _ = _run(spec, packed, inputs, carry, resets, keep=False)
    return hidden, last


def _forward(spec: Spec, packed: PackedLayer, inputs: Array, carry: CellCarry, resets: Array | None) -> Any:
    hidden, last, saved = _run(spec, packed, inputs, carry, resets, keep=True)
    layer = packed.layer
    return (hidden, last), (layer.kernel, layer.recurrent, inputs, carry, resets, hidden, saved)


def _run(spec: Spec, packed: PackedLayer, inputs: Array, carry: Any, resets: Any, *, keep: bool) -> Any:
    c, h = parts_of(spec.cell, carry)
    (time, batch), (width, _) = inputs.shape[:2], packed.layer.kernel.shape
    saved = spec.size("saved_floats", h.shape[1])
    forms = floats(time, batch, h.shape[1]), floats(*c.shape), floats(*h.shape), floats(time * keep, batch, saved)
    run = spec.call("forward", forms)
    hidden, c, h, saved = run(packed.packed, inputs, c, h, _flags(resets, batch), width=np.int64(width))
    return hidden, ((c, h) if isinstance(spec.cell, Lstm) else h), saved


def _backward(spec: Spec, kept: Any, gradients: tuple[Array, CellCarry]) -> Any:
    (kernel, recurrent, inputs, carry, resets, hidden, saved), (d_hidden, d_last) = kept, gradients
    (_, h), (d_c, d_h) = parts_of(spec.cell, carry), parts_of(spec.cell, d_last)
    is_gru, width = isinstance(spec.cell, Gru), h.shape[1]
    forms = (
        floats(*((0,) if are_ids(inputs) else inputs.shape)),
        *(floats(*each.shape) for each in (kernel, recurrent)),
        floats(recurrent.shape[1] + width * is_gru),
        *(floats(*each.shape) for each in (d_c, d_h)),
    )
    d_x, d_kernel, d_recurrent, d_bias, d_c, d_h = spec.call("backward", forms)(
        kernel, recurrent, inputs, h, _flags(resets, len(h)), hidden, saved, d_hidden, d_c, d_h
    )
    # r and z have one sum each, and so one gradient for both of their biases; n has two.
    d_inner = jnp.concatenate([d_bias[: 2 * width], d_bias[3 * width :]]) if is_gru else None
    d_layer = FusedLayer(d_kernel, d_recurrent, d_bias[: recurrent.shape[1]], d_inner)
    d_carry = (d_c, d_h) if isinstance(spec.cell, Lstm) else d_h
    return PackedLayer(d_layer, None), (None if are_ids(inputs) else d_x), d_carry, None


_layer.defvjp(_forward, _backward)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _flags(resets: Array | None, batch: int) -> Array:
    return jnp.zeros((0, batch), bool) if resets is None else resets


def parts_of(cell: Cell, carry: Any) -> tuple[Array, Array]:
    """The cell state, without values where a cell has none, and the hidden state: of a carry or its gradient."""
    return carry if isinstance(cell, Lstm) else (carry[..., :0], carry)
