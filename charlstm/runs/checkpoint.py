"""Checkpoints of a run: a state to disk and back, bit for bit. The only module that imports Orbax.

A checkpoint is the folder STEP, which Orbax renames into place once it is complete. Its items are `params`; `state`,
the other fields; and `integrity`, a JSON record. Old checkpoints hold the params in `state`. Reading executes nothing.

Which checkpoints stay is decided here: Orbax's manager ranks by a metrics file that old checkpoints lack, and raises
where one copy of it is torn (0.12.8, `CheckpointManager._get_metrics`).
"""

import asyncio
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from charlstm.runs import arrays
from charlstm.runs.arrays import RECORD, BrokenError, GoneError, MisplacedError
from charlstm.runs.steps import best_of, latest_of, numbered, place_for, record_of, remove, sweep
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import check_orbax_path, identity, move_aside, write_json
from charlstm.support.process import memory

_BYTES_PER_ARRAY = 2**16  # allowed on disk beside an array's own bytes; Orbax writes about 2 kB

# Orbax logs a traceback of every error that it raises, too.
_ORBAX = os.path.dirname(ocp.__file__)
logging.getLogger("absl").addFilter(lambda record: not record.pathname.startswith(_ORBAX))


class Restored(NamedTuple):
    """A state from disk, one line for each newer checkpoint that is broken, and how many devices held it, if known."""

    step: int
    state: Any
    notes: tuple[str, ...]
    devices: int | None


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints in a folder: the `keep` newest, and the best by validation loss. Not thread-safe.

    A folder has one writer at a time, which makes it, or clears what a killed save left behind and nothing else.
    """

    def __init__(self, folder: Path, keep: int, read_only: bool = False, run: str = "") -> None:
        """Opens a folder; those of another run than `run`, where both are known, are not used."""
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so no checkpoint fits in it; move it away")
        check_orbax_path(folder, "\\") if read_only else check_orbax_path(folder)
        self._folder, self._keep, self._run, self._saving = folder.absolute(), keep, run, False
        self._skipped: dict[int, bool] = {}  # whether it is whole, and merely not here
        self._arrays = _NumpyHandler()
        # A registry of one type reads nothing else from a stranger's file.
        types = ocp.type_handlers.create_type_handler_registry((np.ndarray, self._arrays))
        # Of several processes that train together one saves, and whoever reads does so alone: Orbax need not meet them.
        here = jax.process_index()
        alone: Any = {
            "multiprocessing_options": ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
        }
        tree = partial(ocp.PyTreeCheckpointHandler, type_handler_registry=types, **alone)
        self._reader = ocp.Checkpointer(tree(), **alone)
        self._writer = None
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._identity = identity(self._folder)
            sweep(self._folder)
            record = ocp.JsonCheckpointHandler(filename=RECORD, **alone)
            items: Any = {"params": tree(), "state": tree(), "integrity": record}
            handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(**alone), **items)
            # Where a folder cannot be made, the threads that write to it would keep the process for five minutes.
            options = ocp.AsyncOptions(create_directories_asynchronously=False)
            self._writer = ocp.AsyncCheckpointer(handler, async_options=options, **alone)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the save in progress and frees what Orbax holds."""
        self._reader.close()
        if self._writer is not None:
            try:
                self.wait()
            finally:
                self._writer.close()
                self._writer = None

    def wait(self) -> None:
        """Returns once every checkpoint is on disk; raises TrainingError if one could not be written."""
        saving, self._saving = self._saving, False
        if saving and self._writer is not None:
            with self._writing():
                self._arrays.join()
                self._writer.wait_until_finished()
                sweep(self._folder)
                steps = self._steps()
                remove(self._folder, {*steps[: -self._keep]} - {best_of(self._folder, steps, self._run)})

    def save(self, step: int, state: Any, validation_loss: float | None = None, devices: int | None = None) -> None:
        """Copies a state to the host, so that its buffers may be donated, and writes it in the background.

        It takes the place of an older checkpoint of the step once it is whole. `devices` share the rows of a batch; by
        default, those that hold the state are counted. Raises TrainingError if this one or the one before could not be
        written.
        """
        if self._writer is None:
            raise RuntimeError(f"{self._folder} is open for reading only, or closed")
        self.wait()
        loss = None if validation_loss is None or not math.isfinite(validation_loss) else float(validation_loss)
        host = arrays.to_host(state)
        record = {"step": step, "validation_loss": loss, "leaves": arrays.leaf_records(state, host)}
        record |= {"run": self._run} if self._run else {}
        record["devices"] = devices or max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state))
        items: dict[str, Any] = {name: ocp.args.PyTreeSave(tree) for name, tree in arrays.split(host).items()}
        with self._writing():
            sweep(self._folder)
            whole = {each for each, misplaced in self._skipped.items() if misplaced}
            remove(self._folder, {*self._skipped} - whole)
            for path in map(self._path, whole | ({step} - {*self._steps()})):
                if os.path.lexists(path):  # and is no checkpoint, or not of this run and step
                    move_aside(path)
            self._skipped.clear()
            self._saving = True
            self._writer.save(
                place_for(self._folder, step),
                ocp.args.Composite(integrity=ocp.args.JsonSave(arrays.seal(record)), **items),
            )

    def record_loss(self, step: int, validation_loss: float) -> None:
        """Adds the validation loss of a checkpoint that was saved without one, whose arrays stay as they are."""
        self.wait()
        with self._writing():
            if (record := self._record(step)).get("validation_loss") is None:
                sealed = arrays.seal(record | {"validation_loss": float(validation_loss)})
                write_json(self._path(step) / "integrity" / RECORD, sealed)

    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending, after a save in progress; a broken one counts until it is read."""
        self.wait()
        return self._steps()

    def latest(self) -> int | None:
        """The newest step of this run; a broken one counts until it is read."""
        return latest_of(self._folder, self.steps(), self._run)

    def best(self) -> int | None:
        """The step with the lowest validation loss, the first of equals; None if no checkpoint has one."""
        steps = self.steps()
        while True:  # one that went away meanwhile may have been the best, until there was a better
            found, there = best_of(self._folder, steps, self._run), self._steps()
            if there == steps:
                return found
            steps = there

    def restore(self, step: int, like: Any) -> Any:
        """The state saved at a step, bit for bit, on the default device; `like` may be {"params": ...} alone.

        Raises InputError unless there is one, it is intact and `like` it, GoneError where a process that trains has
        removed it; TrainingError where the system failed.
        """
        if step not in (there := self.steps()):
            raise GoneError(f"there is no checkpoint {step} in {self._folder}; there are {str(there)[1:-1] or 'none'}")
        before = identity(self._path(step))
        try:
            return self._load(step, like)
        except BrokenError as error:
            if identity(self._path(step)) != before:
                raise GoneError(f"checkpoint {step} in {self._folder} was removed by its training; try again") from None
            raise InputError(f"checkpoint {step} in {self._folder} cannot be used: {error}") from error

    def restore_params(self, step: int, like: Any) -> Any:
        """The params of a state, whichever optimizer made them; nothing else is read. Raises as `restore`."""
        return self.restore(step, {"params": like})["params"]

    def restore_newest(self, like: Any, most: float = math.inf) -> Restored | None:
        """The newest intact state, of step `most` at most; None without a checkpoint.

        The next save removes the broken ones that were skipped, and moves aside those of another place. Raises
        InputError where none can be used. A failure of the system, a TrainingError, skips and removes none.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                if step > most:
                    raise MisplacedError(f"it is newer than the run's metrics, which end at step {most}")
                state, devices = self._load(step, like), self._record(step).get("devices")
                known = devices if type(devices) is int and devices > 0 else None
                return Restored(step, state, tuple(notes), known)
            except BrokenError as error:
                self._skipped[step] = isinstance(error, MisplacedError)
                notes.append(f"checkpoint {step} is skipped: {error}")
        if notes:
            raise InputError(f"no checkpoint in {self._folder} can be used ({'; '.join(notes)}); use another --run-dir")
        return None

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _steps(self) -> list[int]:
        return numbered(self._folder)

    def _record(self, step: int) -> dict[str, Any]:
        return record_of(self._folder, step, self._run)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises TrainingError for what goes wrong, and where a run's folder was moved and another took its name."""
        try:
            self._check_folder()
            yield
            self._check_folder()
        except Exception as error:
            ours = identity(self._folder) == self._identity
            why = arrays.reason(error) if ours else "the folder is gone, or another has its name"
            raise TrainingError(f"a checkpoint could not be written to {self._folder}: {why}") from error

    def check_folder(self) -> None:
        """Raises TrainingError where the folder is gone, or is no longer the one that was opened."""
        with self._writing():
            pass

    def _check_folder(self) -> None:
        if identity(self._folder) != self._identity:
            raise FileNotFoundError

    def _load(self, step: int, like: Any) -> Any:
        records = self._record(step)["leaves"]
        if params_only := isinstance(like, dict) and like.keys() == {"params"}:
            records = [each for each in records if str(each.get("name")).split("/")[0] == "params"]
        arrays.check_forms(records, like)
        blank = arrays.blank(like)
        if os.path.lexists(self._path(step) / "params"):
            items = {name: self._read(step, name, tree) for name, tree in arrays.split(blank).items()}
            fields = items.pop("state", {}) | items
        else:  # an old checkpoint, or a state without params
            fields = self._read(step, "state", arrays.fields_of(blank), params_only)
        host = fields if isinstance(like, dict) else like._replace(**fields)
        arrays.check_bits(records, host)
        return arrays.to_device(host, like)

    def _read(self, step: int, item: str, blank: Any, params_only: bool = False) -> Any:
        """An item as NumPy arrays, since the shardings on disk may name devices that are not here."""
        sizes = [_BYTES_PER_ARRAY + 4 * bits.nbytes for bits in jax.tree.leaves(blank)]
        form = partial(ocp.ArrayRestoreArgs, restore_type=np.ndarray)
        forms = jax.tree.map(lambda bits: form(dtype=bits.dtype, global_shape=bits.shape), blank)
        args = ocp.args.PyTreeRestore(blank, restore_args=forms, partial_restore=params_only)
        with arrays.reading(self._path(step), item, memory() if params_only else _BYTES_PER_ARRAY + sum(sizes)) as path:
            return self._reader.restore(path, args=args)


class _NumpyHandler(ocp.type_handlers.NumpyHandler):
    """Writes all arrays of an item before it raises, and reads none that is not as expected, such as one of terabytes.

    Orbax gathers them: the first error closes the event loop that the others report to, and each of those then prints
    "RuntimeError: Event loop is closed" (0.12.8; on a full disk, and for truncated files). An event loop for each array
    would do too, but takes three file descriptors, of which macOS gives 256.
    """

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)  # they are copies already
        self._writes: list[Any] = []

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        writes = await super().serialize(values, infos, args)
        self._writes += writes
        return writes

    async def _background_serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> None:
        write = super()._background_serialize
        writes = [write([value], [info], [arg]) for value, info, arg in zip(values, infos, args, strict=True)]
        for error in await asyncio.gather(*writes, return_exceptions=True):
            if error:
                raise error

    def join(self) -> None:
        """Waits for all writes: Orbax raises the first error and leaves the others writing (`ChainedFuture`)."""
        while self._writes:
            with suppress(Exception):
                self._writes.pop().result()

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[np.ndarray]:
        found: list[np.ndarray] = []
        for info, form in zip(infos, args, strict=True):
            # A chunk that is absent is an error, whatever the file of a stranger says.
            spec = ocp.type_handlers.get_json_tspec_read(info, use_ocdbt=info.is_ocdbt_checkpoint)
            stored = await tensorstore.open(tensorstore.Spec(spec), open=True, context=info.ts_context)
            arrays.check_stored(stored, form.global_shape, form.dtype)
            found.append(await stored.read())
        return found
