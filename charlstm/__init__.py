"""Character-level recurrent language models in JAX: train, compare, look into and sample.

Every name is imported when it is first used, so that `import charlstm` and `charlstm --help` never load JAX.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlstm.compare.runner import run_grid
    from charlstm.config import (
        Axes,
        DataConfig,
        Experiment,
        Grid,
        ModelConfig,
        OptimizerConfig,
        SampleConfig,
        TrainConfig,
    )
    from charlstm.core.flax_stack import register_cell
    from charlstm.core.network import Model
    from charlstm.core.step import init_state, make_train_step
    from charlstm.data.dataset import read_text
    from charlstm.runs.loading import load_run, save_run
    from charlstm.support.errors import InputError
    from charlstm.support.process import prepare
    from charlstm.training.train import train

__all__ = [
    "Axes", "DataConfig", "Experiment", "Grid", "InputError", "Model", "ModelConfig", "OptimizerConfig", "SampleConfig",
    "TrainConfig", "init_state", "load_run", "make_train_step", "prepare", "read_text", "register_cell", "run_grid",
    "save_run", "train",
]  # fmt: skip

_HOMES = dict.fromkeys(__all__, "config") | {
    "InputError": "support.errors",
    "Model": "core.network",
    "init_state": "core.step",
    "load_run": "runs.loading",
    "make_train_step": "core.step",
    "prepare": "support.process",
    "read_text": "data.dataset",
    "register_cell": "core.flax_stack",
    "run_grid": "compare.runner",
    "save_run": "runs.loading",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("charlstm")
    if name not in _HOMES:
        raise AttributeError(f"module 'charlstm' has no attribute {name!r}")
    value = getattr(import_module(f"charlstm.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
