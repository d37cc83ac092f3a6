"""Orbax, set up for one process, one folder and NumPy arrays: quiet, and clean when something fails."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

RECORD = "integrity.json"
"""The file of a checkpoint's `integrity` item."""

# Orbax warns of what is meant (read_only) and logs a traceback of what it raises anyway; a person needs neither.
_SOURCE = os.path.dirname(ocp.__file__)
logging.getLogger("absl").addFilter(lambda record: not record.pathname.startswith(_SOURCE))


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Awaits each array on its own. Orbax awaits all of them together: at the first error it closes the event loop that
    the others report to, and each of those then prints a traceback (on a full disk, or from a truncated file)."""

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(infos)
        triples = zip(values, infos, args, strict=True)
        writes = [await super(_OneByOne, self).serialize([value], [info], [arg]) for value, info, arg in triples]
        return [future for futures in writes for future in futures]

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[np.ndarray]:
        arrays: list[np.ndarray] = []
        for info, arg in zip(infos, args, strict=True):
            (stored,) = await self.metadata([info])
            _refuse_other_form(stored, arg)
            arrays += await super().deserialize([info], [arg])
        return arrays


@dataclass
class _Form(ocp.RestoreArgs):
    """What an array in a file must be like."""

    shape: tuple[int, ...] = ()
    stored: Any = None
    """Its dtype; `dtype` would ask for a conversion."""


def _refuse_other_form(stored: Any, form: _Form) -> None:
    """Raises ValueError before anything is read of an array that a stranger's file says takes terabytes."""
    if (tuple(stored.shape), stored.dtype) != (form.shape, form.stored):
        raise ValueError(f"an array is {stored.dtype} {list(stored.shape)}, and not {form.stored} {list(form.shape)}")
    chunk = stored.storage.chunk_shape
    if math.prod(chunk) > max(math.prod(form.shape), 1):
        raise ValueError(f"an array of {list(form.shape)} is said to be in chunks of {list(chunk)}")


def make_manager(folder: Path, read_only: bool, policy: Any) -> ocp.CheckpointManager:
    """A manager of checkpoints with the items `state` (a pytree of NumPy arrays) and `integrity` (JSON).

    Args:
        policy: says which checkpoints stay, see `ocp.checkpoint_managers.PreservationPolicy`.
    """
    # The arrays to write are copies already, and a registry of one type reads nothing else from a stranger's file.
    handlers = ocp.type_handlers.create_type_handler_registry((np.ndarray, _OneByOne(deepcopy_host_arrays=False)))
    return ocp.CheckpointManager(
        folder,
        item_handlers={
            "state": ocp.PyTreeCheckpointHandler(type_handler_registry=handlers),
            "integrity": ocp.JsonCheckpointHandler(filename=RECORD),
        },
        options=ocp.CheckpointManagerOptions(
            read_only=read_only,
            create=not read_only,
            preservation_policy=policy,
            # Where a folder cannot be made, its writers would wait for it for five minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            # Orbax's own metrics would be read now, and one torn file of them would stop every later run.
            lightweight_initialize=True,
        ),
    )


def write(manager: ocp.CheckpointManager, step: int, host: Any, record: dict[str, Any]) -> None:
    """Begins to write a checkpoint; the arrays in `host` belong to Orbax from here on."""
    args = ocp.args.Composite(state=ocp.args.PyTreeSave(host), integrity=ocp.args.JsonSave(record))
    manager.save(step, args=args, force=True)  # unforced, Orbax skips a step below the newest


def read(manager: ocp.CheckpointManager, step: int, blank: Any) -> Any:
    """The arrays of a checkpoint, in the tree of `blank`. Whatever is damaged raises whatever TensorStore makes of it.

    They are NumPy arrays, so the shardings in the file, which may name devices that are not here, are never asked for.
    """
    forms = jax.tree.map(lambda bits: _Form(restore_type=np.ndarray, shape=bits.shape, stored=bits.dtype), blank)
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore(blank, restore_args=forms))
    return manager.restore(step, args=args)["state"]


def is_unfinished(path: Path) -> bool:
    """Whether this is what a save that was killed or failed has left."""
    return path.name.endswith(ocp.path.step.TMP_DIR_SUFFIX) or ocp.path.step.is_tmp_checkpoint(path)
