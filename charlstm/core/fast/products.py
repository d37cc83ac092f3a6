"""Matrix products with rounded factors: bfloat16 in, float32 out.

A bfloat16 is a float32 without its last 16 bits: 8 significant bits, the same range, so no loss needs scaling. Tensor
cores and TPUs multiply two of them exactly and add up in float32 (Kalamkar et al. 2019, "A study of bfloat16 for deep
learning training"). Only factors are rounded here; sums, parameters and their gradients stay as wide as the parameters.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def rounded(values: Array, dtype: Any) -> Array:
    """The values in a dtype; None leaves them as they are."""
    return values if dtype is None else values.astype(dtype)


def are_ids(inputs: Array) -> bool:
    """Whether integers stand for one-hot rows."""
    return jnp.issubdtype(inputs.dtype, jnp.integer)


def product(inputs: Array, kernel: Array, dtype: Any) -> Array:
    """inputs @ kernel. The product of a one-hot row with a kernel is one of the kernel's rows.

    Args:
        inputs: [..., D], or integers [...] below D for one-hot rows.
        kernel: [D, F].
        dtype: what both are rounded to before they are multiplied, forward and backward; None rounds nothing.

    Returns:
        [..., F] in the kernel's dtype. Gradients have the dtypes of what they belong to.
    """
    ids = are_ids(inputs)
    shape = inputs.shape if ids else inputs.shape[:-1]
    if _on_one_device():
        inputs = inputs.reshape(-1, *inputs.shape[len(shape) :])
    result: Any  # pyright sees no type through custom_vjp
    if ids:
        result = jnp.take(kernel, inputs, axis=0, mode="clip")
    else:
        result = inputs @ kernel if dtype is None else _product(inputs, kernel, dtype)
    return result.reshape(*shape, -1)


def kernel_gradient(inputs: Array, gradient: Array, wide: Any) -> Array:
    """The gradient in a kernel from its inputs [..., D] and the gradient in its product [..., F]: [D, F], in `wide`."""
    if _on_one_device():
        inputs, gradient = (each.reshape(-1, each.shape[-1]) for each in (inputs, gradient))
        return jnp.matmul(inputs.T, gradient, preferred_element_type=wide)
    return jnp.einsum("...d,...f->df", inputs, gradient, preferred_element_type=wide)


def _on_one_device() -> bool:
    """Whether leading axes may become one, which XLA multiplies, and adds up rows' gradients of, up to twice as fast.

    Devices that share an axis would first have to fetch each other's part of it. Where the axes of a mesh are manual,
    an array is one device's own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.are_all_axes_manual


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(inputs: Array, kernel: Array, dtype: Any) -> Array:
    return jnp.matmul(inputs.astype(dtype), kernel.astype(dtype), preferred_element_type=kernel.dtype)


def _forward(inputs: Array, kernel: Array, dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    return _product(inputs, kernel, dtype), (inputs, kernel)


def _backward(dtype: Any, factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # What JAX derives would round the kernel's gradient to the kernel's rounded dtype.
    inputs, kernel = factors
    gradient, wide = gradient.astype(dtype), kernel.dtype
    d_inputs = jnp.matmul(gradient, kernel.astype(dtype).T, preferred_element_type=wide)
    return d_inputs.astype(inputs.dtype), kernel_gradient(inputs.astype(dtype), gradient, wide)


_product.defvjp(_forward, _backward)
