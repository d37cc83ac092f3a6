"""How large a model is, by arithmetic alone: its parameters, its operations, and the width that gives it a size."""

from dataclasses import replace

from charlstm.config import Cell, Experiment, ModelConfig
from charlstm.support.errors import InputError
from charlstm.support.files import memory

_GATES: dict[Cell, int] = {"rnn": 1, "gru": 3, "lstm": 4}


def name_of(config: ModelConfig) -> str:
    """What a comparison calls a model, such as ``lstm-2x84``: two layers of 84 units."""
    return f"{config.cell}-{config.num_layers}x{config.hidden_size}"


def parameters(config: ModelConfig, vocabulary_size: int) -> int:
    """Numbers that training changes: for G gates, L·G·(H² + H) + G·H·(V + (L - 1)·H) and the head's (H + 1)·V.

    A gru has H biases more in each layer, those inside of its reset gate.
    """
    gates, hidden, layers = _GATES[config.cell], config.hidden_size, config.num_layers
    biases = gates + 1 if config.cell == "gru" else gates
    inputs = vocabulary_size + (layers - 1) * hidden
    return gates * hidden * (inputs + layers * hidden) + layers * biases * hidden + (hidden + 1) * vocabulary_size


def refuse_what_no_memory_holds(config: Experiment, vocabulary_size: int, states: int = 1) -> None:
    """Raises InputError where this machine has less memory than so many states of a training: they go through the host
    on their way to a file and back. Nothing of that size is made first, as a stranger's config may ask for terabytes.
    """
    model = config.model
    carry = config.data.batch_size * model.hidden_size * model.num_layers * (2 if model.cell == "lstm" else 1)
    count = parameters(model, vocabulary_size)
    needed = 4 * (3 * count + carry) * states  # Adam keeps two moments of each parameter
    if needed > memory():
        needs = f"{needed / 2**30:,.1f} GiB{f' for {states} states of it' if states > 1 else ''}"
        raise InputError(
            f"a model of {count:,} parameters with {config.data.batch_size:,} rows needs {needs}, and this machine has"
            f" {memory() / 2**30:,.1f}; lower model.hidden_size, model.num_layers or data.batch_size"
        )


def operations(config: ModelConfig, vocabulary_size: int) -> int:
    """Floating-point operations of the products that read one symbol, a multiplication and an addition each.

    2·G·H² for the recurrent kernel of each layer, as many for the input kernel of each but the first, whose product is
    the lookup of a row, and 2·H·V for the head.
    """
    gates, hidden = _GATES[config.cell], config.hidden_size
    return 2 * gates * hidden**2 * (2 * config.num_layers - 1) + 2 * hidden * vocabulary_size


def training(config: ModelConfig, vocabulary_size: int) -> int:
    """Operations that train on one symbol: three times those that read it, as both factors' gradients are products."""
    return 3 * operations(config, vocabulary_size)


def matched(config: ModelConfig, vocabulary_size: int, wanted: int) -> ModelConfig:
    """The config with the hidden size whose number of parameters is nearest to `wanted`; the smaller of equals."""

    def count(hidden_size: int) -> int:
        return parameters(replace(config, hidden_size=hidden_size), vocabulary_size)

    high = 1
    while count(high) < wanted:
        high *= 2
    low = high // 2
    while high - low > 1:  # the count grows with the width, and lies below what is wanted at `low` alone
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    best = min((width for width in (low, high) if width), key=lambda width: abs(count(width) - wanted))
    return replace(config, hidden_size=best)
