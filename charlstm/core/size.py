"""How large a model is: its parameters, its operations, and the width that gives it a number of parameters."""

import math
from dataclasses import replace

import jax

from charlstm.config import ModelConfig
from charlstm.core.cells import BUILT_IN
from charlstm.core.network import Model


def count_parameters(config: ModelConfig, vocabulary_size: int) -> int:
    """Numbers that training changes: for G gates, L·G·(H² + H) + G·H·(V + (L - 1)·H) and the head's (H + 1)·V.

    A gru has H biases more in each layer, those inside its reset gate. A cell of one's own is asked for its shapes.
    """
    if config.cell not in BUILT_IN:
        return sum(map(math.prod, _shapes(config, vocabulary_size)))
    gates, hidden, layers = len(BUILT_IN[config.cell].input_kernels), config.hidden_size, config.num_layers
    biases = gates + 1 if config.cell == "gru" else gates
    inputs = vocabulary_size + (layers - 1) * hidden
    return gates * hidden * (inputs + layers * hidden) + layers * biases * hidden + (hidden + 1) * vocabulary_size


def count_operations(config: ModelConfig, vocabulary_size: int) -> int:
    """Floating-point operations of the products that read one symbol, a multiplication and an addition each.

    2·G·H² for the recurrent kernel of each layer, as many for the input kernel of each but the first, whose product is
    the lookup of a row, and 2·H·V for the head. A cell of one's own multiplies by all its kernels, one-hot rows too.
    """
    if config.cell not in BUILT_IN:
        return sum(2 * math.prod(shape) for shape in _shapes(config, vocabulary_size) if len(shape) == 2)
    gates, hidden = len(BUILT_IN[config.cell].input_kernels), config.hidden_size
    return 2 * gates * hidden**2 * (2 * config.num_layers - 1) + 2 * hidden * vocabulary_size


def count_training_operations(config: ModelConfig, vocabulary_size: int) -> int:
    """Operations that train on one symbol: three times those that read it, as both factors' gradients are products."""
    return 3 * count_operations(config, vocabulary_size)


def match_parameters(config: ModelConfig, vocabulary_size: int, wanted: int) -> ModelConfig:
    """The config with the hidden size whose number of parameters is nearest to `wanted`; the smaller of equals."""

    def count(hidden_size: int) -> int:
        return count_parameters(replace(config, hidden_size=hidden_size), vocabulary_size)

    high = 1
    while count(high) < wanted:
        high *= 2
    low = high // 2
    while high - low > 1:  # the count grows with the width, and lies below what is wanted at `low` alone
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    best = min((width for width in (low, high) if width), key=lambda width: abs(count(width) - wanted))
    return replace(config, hidden_size=best)


def _shapes(config: ModelConfig, vocabulary_size: int) -> list[tuple[int, ...]]:
    params = jax.eval_shape(Model(config, vocabulary_size).init, jax.random.key(0))
    return [leaf.shape for leaf in jax.tree.leaves(params)]
