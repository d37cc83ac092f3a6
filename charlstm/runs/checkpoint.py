"""State to disk and back, to the bit: the only Orbax room.

A checkpoint is the folder STEP, which Orbax renames into place once all of it is written, with two items: `state`, the
arrays, and `integrity`, a JSON record of each leaf's name, shape, dtype and SHA-256 beside the validation loss, the
number of devices and a SHA-256 of the record itself.
Reading one runs no code from it: the arrays are TensorStore's, the rest is JSON.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax

from charlstm.runs import arrays as leaves, orbax_manager
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import foreign, one_line, read_json, refuse_misread, write_json

_AROUND_AN_ARRAY = 2**16
"""Bytes; a file tells about 2 kB of an array."""
_UNSEALED = {"step", "validation_loss", "leaves", "devices"}
"""What is in a record without a SHA-256 of its own, as charlstm wrote them at first."""
_OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)


class Restored(NamedTuple):
    """A state from disk, the step it was saved at, and one line for each newer checkpoint that is broken."""

    step: int
    state: Any
    notes: tuple[str, ...]
    devices: int | None
    """How many devices it lay on when it was saved."""


class _BrokenError(Exception):
    """A checkpoint that cannot be used, by its own fault; the message says why."""


class Checkpoints:
    """The checkpoints in a folder: the `keep` newest, and the best by validation loss.

    One writable instance may be open on a folder at a time, and opening it removes what a killed save left behind.
    Everything in the folder that is no checkpoint stays as it is. Not thread-safe; close it, or use it in a `with`.

    Args:
        folder: made when missing, unless read_only.
        keep: newest checkpoints that stay; at least 1.
        read_only: writes nothing, and lists what is there when it is opened.
    """

    def __init__(self, folder: Path, keep: int, read_only: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is not a folder, so no checkpoint fits in it; move it away")
        refuse_misread(folder, "\\") if read_only else refuse_misread(folder)
        self._folder, self._keep, self._read_only, self._closed = folder.absolute(), keep, read_only, False
        if not read_only and folder.exists():
            self._sweep()
        self._manager = orbax_manager.make_manager(self._folder, read_only, policy=self)
        self._losses = {step: self._stored_loss(step) for step in self._ours()}
        self._broken: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the save in progress and frees what Orbax holds. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            try:
                self.wait()
            finally:
                self._manager.close()

    def wait(self) -> None:
        """Returns when every checkpoint is whole on disk.

        Raises:
            TrainingError: one could not be written, such as on a full disk.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._manager.reload()  # Orbax forgets at once what the new checkpoint, had it come, would have replaced
            raise self._not_written(error) from error

    def save(self, step: int, state: Any, validation_loss: float | None = None) -> None:
        """Begins to save a state; the files are written while the caller goes on.

        The state is copied to the host before this returns, so its buffers may be donated or overwritten then.
        A step that is on disk and whole, for a state of these shapes, stays as it is, but for a validation loss that it
        had not; one that is broken is replaced.

        Args:
            step: updates done so far; names the checkpoint.
            state: a pytree of jax.Arrays, typed random keys among them.
            validation_loss: lowest is best; None, NaN and infinity never are.

        Raises:
            TrainingError: this checkpoint or the one before it could not be written.
            TypeError: a leaf is not a jax.Array.
        """
        if self._read_only:
            raise RuntimeError(f"{self._folder} is open for reading only")
        self.wait()
        if validation_loss is not None:
            validation_loss = float(validation_loss) if math.isfinite(validation_loss) else None
        if step in self._ours() and step not in self._broken:
            try:
                self._load(step, state)
                self._complete(step, state, validation_loss)
                return
            except _BrokenError:
                self._broken.add(step)
        host = leaves.to_host(state)
        record = {"step": step, "validation_loss": validation_loss, "leaves": leaves.record(state, host)}
        record["devices"] = max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state))
        try:
            self._make_room(step)
            self._losses[step] = validation_loss
            orbax_manager.write(self._manager, step, host, _sealed(record))
        except Exception as error:
            raise self._not_written(error) from error

    def steps(self) -> list[int]:
        """Steps of the checkpoints, rising, once a save in progress is done. A broken one counts until it is read."""
        self.wait()
        return self._ours()

    def latest(self) -> int | None:
        """The newest step; None without a checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the lowest validation loss, the newest of equals; None if no checkpoint has one."""
        return self._best(self.steps())

    def restore(self, step: int, like: Any) -> Any:
        """The state saved at a step, bit for bit, on the default device whatever devices it was saved on.

        Args:
            step: one of `steps()`.
            like: a pytree of jax.Arrays or jax.ShapeDtypeStructs: the structure, shapes and dtypes to expect.

        Raises:
            InputError: there is no such checkpoint, it is damaged, or it is of another model.
            TrainingError: the system failed while it was read.
        """
        if step not in (there := self.steps()):
            raise InputError(f"there is no checkpoint {step} in {self._folder}; there are {there or 'none'}")
        try:
            return self._load(step, like)
        except _BrokenError as error:
            raise InputError(f"checkpoint {step} in {self._folder} cannot be used: {error}") from error

    def restore_newest(self, like: Any) -> Restored | None:
        """The newest state that is whole; broken ones on the way are named in its notes. None without a checkpoint.

        A later save removes those broken ones, so that they take no place among the newest.

        Raises:
            InputError: there are checkpoints, and none can be used.
            TrainingError: the system failed while one was read; it is neither skipped nor removed for that.
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

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's preservation policy. Its own BestN needs the metrics files that it cannot read when torn."""
        steps = [each.step for each in checkpoints if not self._path(each.step).is_symlink()]
        kept = {*sorted(steps)[-self._keep :], self._best(steps)}
        # What a link leads to is not ours; Orbax's parallel deleter would empty it.
        return [each.step in kept or self._path(each.step).is_symlink() for each in checkpoints]

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _record_path(self, step: int) -> Path:
        return self._path(step) / "integrity" / orbax_manager.RECORD

    def _ours(self) -> list[int]:
        return sorted({step for step in self._manager.all_steps() if not self._path(step).is_symlink()})

    def _best(self, steps: Sequence[int]) -> int | None:
        scored = [(loss, -step) for step in steps if (loss := self._losses.get(step)) is not None]
        return -min(scored)[1] if scored else None

    def _not_written(self, error: Exception) -> TrainingError:
        why = _reason(error) if self._folder.is_dir() else "the folder is gone"
        return TrainingError(f"a checkpoint could not be written to {self._folder}: {why}")

    def _record(self, step: int) -> dict[str, Any]:
        self._refuse_foreign(step)
        try:
            record = read_json(path := self._record_path(step))
        except InputError as error:
            self._raise_if_of_the_system(error.__context__, step)
            raise _BrokenError(f"its integrity record cannot be read ({error})") from error
        whole = record == _sealed(record) if "sha256" in record else record.keys() <= _UNSEALED
        if not whole:
            raise _BrokenError(f"{path.name} does not match its SHA-256")
        return record

    def _raise_if_of_the_system(self, error: BaseException | None, step: int) -> None:
        """A process that has too many files open, say, finds nothing wrong with a checkpoint."""
        if isinstance(error, MemoryError):
            raise error
        text = str(error)  # TensorStore's is no OSError, and ends with what the system said
        if said := next((each for each in map(os.strerror, _OF_THE_SYSTEM) if each in text), None):
            where = self._path(step)
            raise TrainingError(
                f"{where} cannot be read: {said}; mend that, or move it away to go on without it"
            ) from error

    def _refuse_foreign(self, step: int, most: float = math.inf) -> None:
        """Before anything is read: no link is followed, no pipe waited for, and no file of a terabyte taken in."""
        try:
            if odd := foreign(self._path(step), most):
                raise _BrokenError(odd)
        except OSError as error:
            self._raise_if_of_the_system(error, step)
            raise _BrokenError(f"its folder cannot be read ({error.strerror})") from error

    def _stored_loss(self, step: int) -> float | None:
        try:
            loss = self._record(step).get("validation_loss")
        except _BrokenError:
            return None
        return loss if isinstance(loss, float) and math.isfinite(loss) else None

    def _complete(self, step: int, state: Any, validation_loss: float | None) -> None:
        """Adds the loss to a checkpoint of this state that had none; its arrays are not touched."""
        if validation_loss is None or self._losses.get(step) is not None:
            return
        record = self._record(step)
        if record.get("leaves") != leaves.record(state, leaves.to_host(state)):
            return
        try:
            write_json(self._record_path(step), _sealed(record | {"validation_loss": validation_loss}))
        except OSError as error:
            raise self._not_written(error) from error
        self._losses[step] = validation_loss

    def _sweep(self) -> None:
        """Removes what a save that was killed or failed has left; to be called while none is in progress."""
        for path in self._folder.iterdir():
            if not orbax_manager.is_unfinished(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()  # what a link leads to is not ours

    def _make_room(self, step: int) -> None:
        """Removes what is known to be broken, and moves aside what bears the step's name and is no checkpoint."""
        self._sweep()
        for broken in self._broken & set(self._ours()):
            self._manager.delete(broken)
        self._broken.clear()
        path = self._path(step)
        if path.is_symlink() or path.exists():
            path.rename(path.with_name(f"{step}.moved-aside"))
            self._manager.reload()

    def _load(self, step: int, like: Any) -> Any:
        record = self._record(step).get("leaves", [])
        if problem := leaves.mismatch(record, like):
            raise _BrokenError(problem)
        blank = leaves.blank(like)
        sizes = [bits.nbytes for bits in jax.tree.leaves(blank)]
        self._refuse_foreign(step, most=4 * sum(sizes) + _AROUND_AN_ARRAY * len(sizes))
        try:
            host = orbax_manager.read(self._manager, step, blank)
        except Exception as error:
            self._raise_if_of_the_system(error, step)
            raise _BrokenError(f"its arrays cannot be read ({type(error).__name__}: {_reason(error)})") from error
        if problem := leaves.damage(record, like, host):
            raise _BrokenError(problem)
        return leaves.to_device(host, like)


def _sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the SHA-256 of all that it says else."""
    said = {name: value for name, value in record.items() if name != "sha256"}
    return said | {"sha256": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}


def _reason(error: Exception) -> str:
    """The end of TensorStore's long chain, which is what the system said, such as "No space left on device"."""
    return one_line(str(error).rsplit('": ', 1)[-1], 200)
