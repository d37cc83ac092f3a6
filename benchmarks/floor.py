"""What the machine can do at best: float32 products for training, streaming of weights for drawing one text.

Both are measured with PyTorch and with JAX, on all cores, in the same turns as the contenders, because machines drift;
of a round the better of the two counts.
"""

# pyright: reportMissingImports=false
from collections.abc import Callable
from typing import Literal

from benchmarks.contenders import Work
from benchmarks.shapes import FLOAT, Size, streamed_bytes
from charlstm.support.process import cores

Rate = Literal["products", "weights"]
SIDE = 2048
"""Rows of the square matrices that are multiplied: large enough for a library's best rate."""
_PASSES = 64
"""Times that a run streams the weights, so that starting it does not count."""
FLOORS = {"floor-pytorch": "torch", "floor-jax": "jax"}
"""Contenders that only measure a rate, and what each must be able to import."""


def measure(name: str, rate: Rate, size: Size, side: int = SIDE) -> Work:
    """A run of products, whose amount is operations, or of streamed weights, whose amount is bytes.

    Weights are streamed by a matrix-vector product with a square matrix of as many bytes as a drawn character reads of
    the model, again and again: what of a model stays in a cache, stays in it here.
    """
    if rate == "products":
        ways = (_torch_products if name == "floor-pytorch" else _jax_products)(side)
        return Work(2 * side**3, {"": ways})
    side = round((streamed_bytes(size) / FLOAT) ** 0.5)
    ways = (_torch_weights if name == "floor-pytorch" else _jax_weights)(side)
    return Work(_PASSES * FLOAT * side**2, {"": ways})


def _torch_products(side: int) -> Callable[[], float]:
    import torch

    torch.set_num_threads(cores())
    left, right, out = torch.randn(side, side), torch.randn(side, side), torch.empty(side, side)

    def run() -> float:
        torch.mm(left, right, out=out)
        return float(2 * side**3)

    return run


def _torch_weights(side: int) -> Callable[[], float]:
    import torch

    torch.set_num_threads(cores())
    weights, first = torch.randn(side, side) / side**0.5, torch.randn(side)

    @torch.inference_mode()
    def run() -> float:
        vector = first
        for _ in range(_PASSES):
            vector = torch.mv(weights, vector)
        return float(_PASSES * FLOAT * side**2)

    return run


def _jax_products(side: int) -> Callable[[], float]:
    import jax

    left, right = jax.random.normal(jax.random.key(0), (2, side, side))
    product = jax.jit(lambda left, right: left @ right)

    def run() -> float:
        product(left, right).block_until_ready()
        return float(2 * side**3)

    return run


def _jax_weights(side: int) -> Callable[[], float]:
    import jax

    weights = jax.random.normal(jax.random.key(0), (side, side)) / side**0.5
    first = jax.random.normal(jax.random.key(1), (side,))
    # Each product needs the one before it, so that none is left out; the scale keeps the vector's length.
    stream = jax.jit(lambda weights, first: jax.lax.fori_loop(0, _PASSES, lambda _, vector: weights @ vector, first))

    def run() -> float:
        stream(weights, first).block_until_ready()
        return float(_PASSES * FLOAT * side**2)

    return run
