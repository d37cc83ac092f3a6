"""An LSTM layer through cuDNN, NVIDIA's own time loop, with the parameters of every other backend. Unmeasured on a GPU.

`jax.experimental.rnn` wraps cuDNN's CUDNN_LSTM mode: float32 arrays, whose products run in TF32 on Ampere and later
unless `jax_default_matmul_precision` is "highest", as JAX's others do. One call runs one layer, so that dropout stays
outside. cuDNN multiplies the inputs itself, and so needs ids as one-hot rows, [T, B, V] floats.

From CUDA 10.2 on, cuDNN's LSTMs may need CUBLAS_WORKSPACE_CONFIG=:4096:8 to give the same bits twice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import rnn
from jax.sharding import Mesh, PartitionSpec


def runs_on(device: Any) -> bool:
    """Whether this is an NVIDIA GPU."""
    return "cuda" in device.client.platform_version.lower()


def pack(kernel: Array, recurrent: Array, bias: Array) -> Array:
    """A layer's parameters as cuDNN's one vector, [4·H·(D + H + 2)].

    cuDNN keeps W_ih [4·H, D], W_hh [4·H, H], b_ih [4·H] and b_hh [4·H], row-major, with the gates in the order i, f, g,
    o, which is ours. Its two biases add up: ours, [4·H], is the first, and the second is zero.
    """
    return jnp.concatenate([kernel.T.ravel(), recurrent.T.ravel(), bias, jnp.zeros_like(bias)])


def run_lstm(
    inputs: Array, kernel: Array, recurrent: Array, bias: Array, carry: tuple[Array, Array], mesh: Mesh | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """Run one layer over T steps of inputs [T, B, D]: hidden [T, B, H] after each step, and c and h after the last.

    Args:
        inputs, kernel, recurrent, bias: the layer's; its parameters as `pack` takes them.
        carry: c and h before the first step, each [B, H].
        mesh: the devices that share B, along its only axis; None where one device holds all of it.
    """
    packed = pack(kernel, recurrent, bias)
    if mesh is None:
        return _layer(inputs, packed, carry)
    # XLA cannot look into a foreign call to partition it, and would have every device run all rows.
    rows, later_rows = PartitionSpec(*mesh.axis_names), PartitionSpec(None, *mesh.axis_names)
    specs: Any = {"in_specs": (later_rows, PartitionSpec(), rows), "out_specs": (later_rows, rows)}
    return jax.shard_map(_layer, mesh=mesh, **specs, check_vma=False)(inputs, packed, carry)


def _layer(inputs: Array, packed: Array, carry: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    (steps, batch, width), (c, h) = inputs.shape, carry
    lengths = jnp.full((batch,), steps, jnp.int32)
    sizes = width, h.shape[-1], 1, 0.0, False  # one layer, no dropout, one direction
    result: Any = rnn.lstm(inputs.swapaxes(0, 1), h[None], c[None], packed, lengths, *sizes)
    hidden, h, c = result
    return hidden.swapaxes(0, 1), (c[0], h[0])
