"""A trained model as one safetensors file that others load without charlstm, with PyTorch's names and layouts.

Tensors are float32; L counts layers from 0, G the gates of the cell (rnn 1, gru 3: r, z, n, lstm 4: i, f, g, o), D is V
for layer 0, which reads one-hot rows, and H above it:

    rnn.weight_ih_lL [G·H, D], rnn.bias_ih_lL [G·H]     what is read
    rnn.weight_hh_lL [G·H, H], rnn.bias_hh_lL [G·H]     the hidden state
    head.weight [V, H], head.bias [V]                   logits of the next symbol, from the top layer's hidden state

These are the state of `torch.nn.RNN` (tanh), `GRU` or `LSTM` under the name rnn, and of a `Linear` under the name head.
The metadata's entry "charlstm" is what `about` gives, as JSON.
"""

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from charlstm.analysis.settings import under_settings
from charlstm.core.cells import BUILT_IN
from charlstm.core.network import Model, Params
from charlstm.runs.loading import TrainedRun
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line, write_atomic

NAME = "model.safetensors"
_VERSION = 1
"""Of the names and layouts above; it grows when one of them changes."""


@under_settings
def export(found: TrainedRun, output: Path | None = None) -> Path:
    """Writes a model to a file, by default `NAME` in the run's folder, and returns its path.

    The same model gives the same bytes.

    Raises:
        InputError: the cell is not a built-in one, the file's name does not end in .safetensors, it cannot be written,
            or it is a symbolic link that leads out of the run's folder.
    """
    if (cell := found.model.config.cell) not in BUILT_IN:
        raise InputError(f"the cell of {found.run.folder} is {cell!r}; only {', '.join(BUILT_IN)} can be exported")
    path = inside(found.run.folder, NAME) if output is None else output
    if not path.name.endswith(".safetensors"):  # a slip overwrites nothing else
        raise InputError(f"--output is {one_line(path)}; it must end in .safetensors")
    data = save(tensors(found.model, found.params), {"charlstm": json.dumps(about(found))})
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{one_line(path)} cannot be written: {error.strerror}; use another --output") from None
    return path


def tensors(model: Model, params: Params) -> dict[str, np.ndarray]:
    """The parameters by the names above. PyTorch's second bias is zero but for the gru's new gate."""
    fast = replace(model, backend="fast")  # the Flax stack leaves the gates apart, and native packs them
    fused: Any = jax.device_get(fast.fuse(params))
    named = {"head.weight": fused["head"]["kernel"].T, "head.bias": fused["head"]["bias"]}
    for number, layer in enumerate(fused["stack"]):
        named[f"rnn.weight_ih_l{number}"] = layer.kernel.T
        named[f"rnn.weight_hh_l{number}"] = layer.recurrent.T
        named[f"rnn.bias_ih_l{number}"] = layer.bias
        inner = layer.inner_bias
        named[f"rnn.bias_hh_l{number}"] = np.zeros_like(layer.bias) if inner is None else inner
    return {name: np.ascontiguousarray(part, np.float32) for name, part in named.items()}


def about(found: TrainedRun) -> dict[str, Any]:
    """What a reader has to know beside the tensors; one entry, since safetensors changes their order in each save."""
    config, vocabulary = found.model.config, found.run.vocabulary
    return {
        "format_version": _VERSION,
        "charlstm_version": version("charlstm"),
        "cell": config.cell,
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "vocabulary_size": len(vocabulary),
        "symbols": found.run.config.data.symbols,
        "vocabulary": list(vocabulary.characters),
        "dtype": config.dtype,
        "step": found.step,
    }
