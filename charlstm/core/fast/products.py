"""Matrix products with rounded factors: bfloat16 in, float32 out.

A bfloat16 is a float32 without its last 16 bits: 8 significant bits and the same range, so no loss needs scaling.
Tensor cores and TPUs multiply two of them exactly and accumulate in float32 (Kalamkar et al. 2019). Only factors are
rounded here; sums, parameters and their gradients keep the parameters' width.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def are_ids(inputs: Array) -> bool:
    """Whether these are integers, which stand for one-hot rows."""
    return jnp.issubdtype(inputs.dtype, jnp.integer)


def product(inputs: Array, kernel: Array, dtype: Any = None, *, flatten: bool = True) -> Array:
    """inputs @ kernel. The product of a one-hot row with a kernel is one of the kernel's rows.

    Args:
        inputs: [..., D], or integers [...] below D for one-hot rows.
        kernel: [D, F].
        dtype: what both factors are rounded to, forward and backward; None rounds nothing.
        flatten: merge the leading axes, for which XLA multiplies and sums up to twice as fast. Devices that share one
            of these axes would have to exchange it first, so pass False there.

    Returns:
        [..., F] in the kernel's dtype. Each gradient has the dtype of what it belongs to.
    """
    ids = are_ids(inputs)
    shape = inputs.shape if ids else inputs.shape[:-1]
    if flatten:
        inputs = inputs.reshape(-1, *inputs.shape[len(shape) :])
    result: Any  # pyright sees no type through custom_vjp
    if ids:
        result = jnp.take(kernel, inputs, axis=0, mode="clip")
    else:
        result = inputs @ kernel if dtype is None else _rounded_product(inputs, kernel, dtype, flatten)
    return result.reshape(*shape, -1)


def kernel_gradient(inputs: Array, gradient: Array, wide: Any, *, flatten: bool = True) -> Array:
    """A kernel's gradient, [D, F] in dtype `wide`, from its inputs [..., D] and its product's gradient [..., F]."""
    if flatten:
        inputs, gradient = (each.reshape(-1, each.shape[-1]) for each in (inputs, gradient))
        return jnp.matmul(inputs.T, gradient, preferred_element_type=wide)
    return jnp.einsum("...d,...f->df", inputs, gradient, preferred_element_type=wide)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _rounded_product(inputs: Array, kernel: Array, dtype: Any, flatten: bool) -> Array:
    return jnp.matmul(inputs.astype(dtype), kernel.astype(dtype), preferred_element_type=kernel.dtype)


def _forward(inputs: Array, kernel: Array, dtype: Any, flatten: bool) -> tuple[Array, tuple[Array, Array]]:
    return _rounded_product(inputs, kernel, dtype, flatten), (inputs, kernel)


def _backward(dtype: Any, flatten: bool, factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # What JAX derives would round the kernel's gradient to the kernel's rounded dtype.
    inputs, kernel = factors
    gradient, wide = gradient.astype(dtype), kernel.dtype
    d_inputs = jnp.matmul(gradient, kernel.astype(dtype).T, preferred_element_type=wide)
    return d_inputs.astype(inputs.dtype), kernel_gradient(inputs.astype(dtype), gradient, wide, flatten=flatten)


_rounded_product.defvjp(_forward, _backward)
