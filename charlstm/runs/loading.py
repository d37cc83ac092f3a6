"""The folder of a run becomes a model and its parameters, to evaluate or to sample."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from charlstm.runs.checkpoint import Checkpoints
from charlstm.config import ModelConfig
from charlstm.support.errors import InputError
from charlstm.core.network import Model, Params
from charlstm.runs.folder import Run
from charlstm.core.size import refuse_what_no_memory_holds
from charlstm.core.step import initial_state


class Trained(NamedTuple):
    """A model as it was after `step` updates."""

    run: Run
    model: Model
    params: Params
    step: int
    notes: tuple[str, ...]
    """One line for each checkpoint that could not be used."""


def trained(folder: Path, checkpoint: str = "best") -> Trained:
    """The parameters in a run's checkpoint.

    Args:
        folder: of the run.
        checkpoint: "best" by validation (the newest where none was validated), "latest", a step, or "fresh" for the
            parameters before the first update.

    Raises:
        InputError: the folder is not a run, or the checkpoint is not there or not whole.
    """
    run = Run.open(folder)
    refuse_what_no_memory_holds(run.config, len(run.vocabulary))
    model = Model(_anywhere(run.config.model), len(run.vocabulary))
    if checkpoint == "fresh":
        return Trained(run, model, initial_state(run.config, model).params, 0, ())
    like = jax.eval_shape(lambda: initial_state(run.config, model))
    with Checkpoints(run.checkpoints, run.config.train.keep_checkpoints, read_only=True) as checkpoints:
        if not checkpoints.steps():
            raise InputError(f"{folder} has no checkpoint yet; training makes one when it ends or is interrupted")
        notes: tuple[str, ...] = ()
        if checkpoint not in ("best", "latest"):
            if not (checkpoint.isascii() and checkpoint.isdigit() and len(checkpoint) < 20):  # int() has a limit too
                raise InputError(f"--checkpoint is {checkpoint!r}; it must be best, latest, fresh or a step")
            return Trained(run, model, checkpoints.restore(int(checkpoint), like).params, int(checkpoint), notes)
        if checkpoint == "best" and (best := checkpoints.best()) is not None:
            try:
                return Trained(run, model, checkpoints.restore(best, like).params, best, notes)
            except InputError as error:
                notes = (f"{error}; the newest whole one is used",)
        restored = checkpoints.restore_newest(like)
        assert restored is not None  # there are steps, and it raises when none of them is whole
        return Trained(run, model, restored.state.params, restored.step, notes + restored.notes)


def _anywhere(config: ModelConfig) -> ModelConfig:
    """What was trained with cuDNN can be read where there is no GPU: the parameters are the same."""
    return replace(config, recurrence="auto") if config.recurrence == "cudnn" else config
