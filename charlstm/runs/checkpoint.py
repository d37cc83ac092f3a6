"""Checkpoints of a run: a state to disk and back, bit for bit. The only module that imports Orbax.

A checkpoint is the folder STEP, which Orbax renames into place once it is complete. Its items are `params`; `state`,
the other fields; and `integrity`, a JSON record with the name, shape, dtype and SHA-256 of every array, the validation
loss and the number of devices. Old checkpoints hold the params in `state`. Reading one executes nothing.

Orbax writes, atomically and asynchronously (`AsyncCheckpointer`). Which checkpoints stay is decided here: the stock
`BestN` ranks by a metrics file of Orbax's own, which old checkpoints lack, and of which one torn copy raises whenever
`CheckpointManager` opens the folder (0.12.8, `_get_metrics` catches FileNotFoundError alone).
"""

import errno
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from charlstm.runs import arrays
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import check_orbax_path, find_foreign, one_line, read_json, write_json
from charlstm.support.limits import memory

_ARRAYS, _RECORD = ("params", "state"), "integrity.json"
_UNFINISHED = ".orbax-checkpoint-tmp"
"""In the name of what Orbax writes, and of what is being removed."""
_BYTES_PER_ARRAY = 2**16
"""Allowed on disk beside an array's own bytes; Orbax writes about 2 kB."""
_SYSTEM_FAILURES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)

# Orbax logs a traceback of every error that it raises, too.
_ORBAX = os.path.dirname(ocp.__file__)
logging.getLogger("absl").addFilter(lambda record: not record.pathname.startswith(_ORBAX))


class Restored(NamedTuple):
    """A state from disk, the step it was saved at, and one line for each newer checkpoint that is broken."""

    step: int
    state: Any
    notes: tuple[str, ...]
    devices: int | None
    """How many devices held it when it was saved."""


class _BrokenError(Exception):
    """A checkpoint is unusable through its own fault; the message says why."""


class Checkpoints:
    """The checkpoints in a folder: the `keep` newest, and the best by validation loss.

    A folder has one writer at a time; opening one removes what a killed save left behind, and nothing else. Not
    thread-safe; close it, or use it in a `with`.

    Args:
        folder: made if missing, unless read_only.
        keep: how many of the newest checkpoints stay; at least 1.
        read_only: write nothing.
    """

    def __init__(self, folder: Path, keep: int, read_only: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so no checkpoint fits in it; move it away")
        check_orbax_path(folder, "\\") if read_only else check_orbax_path(folder)
        self._folder, self._keep, self._saving = folder.absolute(), keep, False
        self._losses: dict[int, float | None] = {}
        self._broken: set[int] = set()
        # A registry of one type reads nothing else from a stranger's file. The arrays to write are copies already.
        types = ocp.type_handlers.create_type_handler_registry((np.ndarray, _NumpyHandler(deepcopy_host_arrays=False)))
        self._reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=types))
        self._writer = None
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            items: Any = {each: ocp.PyTreeCheckpointHandler(type_handler_registry=types) for each in _ARRAYS}
            self._handler = _CompositeHandler(integrity=ocp.JsonCheckpointHandler(filename=_RECORD), **items)
            # Where a folder cannot be made, the threads that write to it would keep the process for five minutes.
            options = ocp.AsyncOptions(create_directories_asynchronously=False)
            self._writer = ocp.AsyncCheckpointer(self._handler, async_options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the save in progress and frees what Orbax holds. Closing again does nothing."""
        if self._writer is not None:
            try:
                self.wait()
            finally:
                self._writer.close()
                self._writer = None

    def wait(self) -> None:
        """Returns once every checkpoint is complete on disk.

        Raises:
            TrainingError: one could not be written, for example on a full disk.
        """
        saving, self._saving = self._saving, False
        if saving and self._writer is not None:
            with self._writing():
                self._handler.join()
                self._writer.wait_until_finished()
                steps = self._steps()
                self._remove({*steps[: -self._keep]} - {self._best(steps)})

    def save(self, step: int, state: Any, validation_loss: float | None = None, devices: int | None = None) -> None:
        """Starts to save a state; the files are written in the background.

        The state is copied to the host before this returns, so its buffers may be donated or overwritten. An intact
        checkpoint of the step, for a state of these shapes, stays as it is, except that it gets a validation loss if it
        has none; a broken one is replaced.

        Args:
            step: updates done so far; names the checkpoint.
            state: a NamedTuple or dict of pytrees of jax.Arrays.
            validation_loss: the lowest is best; None, NaN and infinity never are.
            devices: how many share the rows of a batch, to be told by `restore_newest`; by default, how many hold it.

        Raises:
            TrainingError: this checkpoint or the one before it could not be written.
            TypeError: a leaf is not a jax.Array.
        """
        if self._writer is None:
            raise RuntimeError(f"{self._folder} is open for reading only, or closed")
        self.wait()
        loss = float(validation_loss) if validation_loss is not None and math.isfinite(validation_loss) else None
        if step in self._steps() and step not in self._broken:
            try:
                self._load(step, state)
                self._add_loss(step, state, loss)
                return
            except _BrokenError:
                self._broken.add(step)
        host = arrays.to_host(state)
        record = {"step": step, "validation_loss": loss, "leaves": arrays.leaf_records(state, host)}
        record["devices"] = devices or max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state))
        items = {name: ocp.args.PyTreeSave(tree) for name, tree in _split(host).items()}
        with self._writing():
            self._sweep()
            self._remove(self._broken)
            self._broken.clear()
            if os.path.lexists(path := self._path(step)):  # and is no checkpoint
                path.rename(path.with_name(f"{step}.moved-aside"))
            self._losses[step], self._saving = loss, True
            self._writer.save(path, _Items(integrity=ocp.args.JsonSave(arrays.seal(record)), **items))

    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending, after a save in progress; a broken one counts until it is read."""
        self.wait()
        return self._steps()

    def latest(self) -> int | None:
        """The newest step; None without a checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest validation loss, the newest of equals; None if no checkpoint has one."""
        return self._best(self.steps())

    def restore(self, step: int, like: Any, *, params_only: bool = False) -> Any:
        """The state saved at a step, bit for bit, on the default device.

        Args:
            step: one of `steps()`.
            like: a pytree of jax.Arrays or jax.ShapeDtypeStructs: the structure, shapes and dtypes to expect.
            params_only: read the state's params alone; `like` is a dict with nothing else.

        Raises:
            InputError: there is no such checkpoint, it is damaged, or it is of another model.
            TrainingError: the system failed while it was read.
        """
        if step not in (there := self.steps()):
            raise InputError(f"there is no checkpoint {step} in {self._folder}; there are {there or 'none'}")
        try:
            return self._load(step, like, params_only)
        except _BrokenError as error:
            raise InputError(f"checkpoint {step} in {self._folder} cannot be used: {error}") from error

    def restore_params(self, step: int, like: Any) -> Any:
        """The params of a state, whichever optimizer made them; raises as `restore`, and reads nothing else."""
        return self.restore(step, {"params": like}, params_only=True)["params"]

    def restore_newest(self, like: Any) -> Restored | None:
        """The newest intact state; its notes name the broken ones that were skipped. None without a checkpoint.

        The next save removes the broken ones, which would otherwise count among the newest.

        Raises:
            InputError: there are checkpoints, and none can be used.
            TrainingError: the system failed while one was read, which neither skips nor removes it.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                state, devices = self._load(step, like), self._record(step).get("devices")
                known = devices if type(devices) is int and devices > 0 else None
                return Restored(step, state, tuple(notes), known)
            except _BrokenError as error:
                self._broken.add(step)
                notes.append(f"checkpoint {step} is skipped: {error}")
        if notes:
            raise InputError(f"no checkpoint in {self._folder} can be used ({'; '.join(notes)}); use another --run-dir")
        return None

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _steps(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        with os.scandir(self._folder) as entries:  # a link leads to what is not ours
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(int(name) for name in names if name.isdecimal() and len(name) < 20 and str(int(name)) == name)

    def _best(self, steps: Sequence[int]) -> int | None:
        for step in {*steps} - self._losses.keys():
            self._losses[step] = self._stored_loss(step)
        scored = [(loss, -step) for step in steps if (loss := self._losses[step]) is not None]
        return -min(scored)[1] if scored else None

    def _remove(self, steps: set[int]) -> None:
        for step in steps & {*self._steps()}:  # renamed first, so that a kill leaves no half of a checkpoint
            shutil.rmtree(self._path(step).rename(self._folder / f"{step}{_UNFINISHED}"))

    def _sweep(self) -> None:
        """Removes what a killed or failed save left; only to be called while none is in progress."""
        for path in self._folder.iterdir():
            if _UNFINISHED in path.name:
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            why = _reason(error) if self._folder.is_dir() else "the folder is gone"
            raise TrainingError(f"a checkpoint could not be written to {self._folder}: {why}") from error

    @contextmanager
    def _reading(self, step: int, item: str, most: float = math.inf) -> Iterator[Path]:
        """Checks an item of a checkpoint, to be read in the block; tells a broken one from a failure of the system.

        No link is followed, no pipe waited for, and no more than so many bytes read. A process that has, say, too many
        files open finds nothing wrong with a checkpoint.
        """
        path = self._path(step)
        try:
            if problem := find_foreign(path) or find_foreign(path / item, most):
                raise _BrokenError(problem)
            yield path / item
        except (MemoryError, _BrokenError):
            raise
        except Exception as error:
            text = f"{error} {error.__context__}"  # TensorStore's is no OSError, and ends with the system's words
            if why := next((each for each in map(os.strerror, _SYSTEM_FAILURES) if each in text), None):
                raise TrainingError(
                    f"{path} cannot be read: {why}; mend that, or move it away to go on without it"
                ) from error
            raise _BrokenError(f"its {item} cannot be read ({type(error).__name__}: {_reason(error)})") from error

    def _record(self, step: int) -> dict[str, Any]:
        with self._reading(step, "integrity") as path:
            record = read_json(path / _RECORD)
        if not arrays.is_sealed(record):
            raise _BrokenError(f"{_RECORD} does not match its SHA-256")
        return record

    def _stored_loss(self, step: int) -> float | None:
        try:
            loss = self._record(step).get("validation_loss")
        except _BrokenError:
            return None
        return loss if isinstance(loss, float) and math.isfinite(loss) else None

    def _add_loss(self, step: int, state: Any, loss: float | None) -> None:
        """Adds the loss to a checkpoint of this very state that has none; its arrays are not touched."""
        if loss is None or self._stored_loss(step) is not None:
            return
        record = self._record(step)
        if record.get("leaves") == arrays.leaf_records(state, arrays.to_host(state)):
            with self._writing():
                write_json(self._path(step) / "integrity" / _RECORD, arrays.seal(record | {"validation_loss": loss}))
            self._losses[step] = loss

    def _load(self, step: int, like: Any, params_only: bool = False) -> Any:
        records = self._record(step).get("leaves", [])
        if params_only and isinstance(records, list):
            records = [each for each in records if isinstance(each, dict) and _is_param(str(each.get("name")))]
        if problem := arrays.find_mismatch(records, like):
            raise _BrokenError(problem)
        blank = arrays.blank(like)
        if os.path.lexists(self._path(step) / "params"):
            host = _join({name: self._read(step, name, tree) for name, tree in _split(blank).items()}, like)
        else:  # an old checkpoint, or a state without params
            host = self._read(step, "state", blank, partial=params_only)
        if problem := arrays.find_damage(records, like, host):
            raise _BrokenError(problem)
        return arrays.to_device(host, like)

    def _read(self, step: int, item: str, blank: Any, partial: bool = False) -> Any:
        """An item as NumPy arrays, since the shardings on disk may name devices that are not here."""
        leaves = jax.tree.leaves(blank)
        most = memory() if partial else _BYTES_PER_ARRAY * (1 + len(leaves)) + 4 * sum(bits.nbytes for bits in leaves)
        forms = jax.tree.map(
            lambda bits: ocp.ArrayRestoreArgs(restore_type=np.ndarray, dtype=bits.dtype, global_shape=bits.shape), blank
        )
        with self._reading(step, item, most) as path:
            args = ocp.args.PyTreeRestore(blank, restore_args=forms, partial_restore=partial)
            return self._reader.restore(path, args=args)


class _CompositeHandler(ocp.CompositeCheckpointHandler):
    """Can be joined: where one item fails, Orbax raises at once and leaves the others writing (`ChainedFuture`)."""

    _writes: Sequence[Any] = ()

    async def async_save(self, *args: Any, **kwargs: Any) -> Any:
        self._writes = await super().async_save(*args, **kwargs) or ()
        return self._writes

    def join(self) -> None:
        for write in self._writes:
            with suppress(Exception):
                write.result()


@ocp.args.register_with_handler(_CompositeHandler, for_save=True, for_restore=True)
class _Items(ocp.args.Composite):
    pass


class _NumpyHandler(ocp.type_handlers.NumpyHandler):
    """Awaits one array at a time, and reads none that is not as expected.

    Orbax gathers all of them: the first error closes the event loop that the others report to, and each of those then
    prints "RuntimeError: Event loop is closed" (0.12.8; on a full disk, and for truncated files). It also reads any
    shape that a file claims, such as one of terabytes.
    """

    async def serialize(self, values: Sequence[Any], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(infos)
        triples = zip(values, infos, args, strict=True)
        writes = [await super(_NumpyHandler, self).serialize([value], [info], [arg]) for value, info, arg in triples]
        return [future for futures in writes for future in futures]

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> Sequence[np.ndarray]:
        found: list[np.ndarray] = []
        for info, form in zip(infos, args, strict=True):
            (stored,) = await self.metadata([info])
            there, expected = f"{stored.dtype} {list(stored.shape)}", f"{form.dtype} {list(form.global_shape)}"
            chunk: Any = stored.storage and stored.storage.chunk_shape
            if there != expected or math.prod(chunk) > max(math.prod(form.global_shape), 1):
                raise ValueError(f"an array is {there} in chunks of {list(chunk)}, and not {expected}")
            found += await super().deserialize([info], [form])
        return found


def _split(state: Any) -> dict[str, Any]:
    """The items of a state: its params, if it has any, apart from its other fields."""
    fields = dict(state._asdict() if hasattr(state, "_asdict") else state)
    items = {"params": fields.pop("params"), "state": fields} if "params" in fields else {"state": state}
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


def _join(items: dict[str, Any], like: Any) -> Any:
    """The inverse of `_split`, for a state with params."""
    fields = items.pop("state", {}) | items
    return fields if isinstance(like, dict) else like._replace(**fields)


def _is_param(name: str) -> bool:
    return f"{name}/".startswith("params/")


def _reason(error: Exception) -> str:
    """The end of TensorStore's long chain, which is what the system said, such as "No space left on device"."""
    return one_line(str(error).rsplit('": ', 1)[-1], 200)
