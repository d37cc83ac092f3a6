"""The arrays of a state as bits, on the host and back on a device, and the integrity record that finds a changed one.

A leaf is a jax.Array, or a jax.ShapeDtypeStruct; a typed random key is stored as its key data.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import find_foreign, one_line, read_json

RECORD = "integrity.json"
_UNSEALED = {"step", "validation_loss", "leaves", "devices"}  # the keys of a record before it had a SHA-256 of its own
_SYSTEM_FAILURES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)


class BrokenError(Exception):
    """A checkpoint is unusable through its own fault; the message says why."""


class MisplacedError(BrokenError):
    """A checkpoint is of another step or run than its place says, and may be whole."""


class GoneError(InputError):
    """There is no such checkpoint, or no longer: its run trains on, and keeps the newest ones."""


def to_host(state: Any) -> Any:
    """Copies a state's bits into NumPy arrays."""
    bits = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)
    # On a CPU, device_get returns views of buffers that the next step overwrites.
    return jax.tree.map(lambda leaf: np.array(leaf, order="C"), jax.device_get(bits))


def to_device(host: Any, like: Any) -> Any:
    """The inverse of `to_host`, on the default device."""

    def put(bits: np.ndarray, form: Any) -> jax.Array:
        array = jax.device_put(bits)
        return jax.random.wrap_key_data(array, dtype=form.dtype) if _is_key(form) else array

    return jax.tree.map(put, host, like)


def blank(like: Any) -> Any:
    """Arrays like those of `to_host`, of bits that no state has: Orbax leaves those that it does not find.

    They take no memory.
    """

    def fill(form: Any) -> np.ndarray:
        form = jax.eval_shape(jax.random.key_data, form) if _is_key(form) else form
        return np.broadcast_to(np.full(np.dtype(form.dtype).itemsize, 255, np.uint8).view(form.dtype)[0], form.shape)

    return jax.tree.map(fill, like)


def fields_of(state: Any) -> dict[str, Any]:
    """The fields of a state by name; those that are None stay out, as in versions that lacked them."""
    named = dict(state._asdict() if hasattr(state, "_asdict") else state)
    return {name: tree for name, tree in named.items() if tree is not None}


def split(state: Any) -> dict[str, Any]:
    """The items of a state: its params, if it has any, apart from its other fields."""
    fields = fields_of(state)
    items = {"params": fields.pop("params"), "state": fields} if "params" in fields else {"state": state}
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


def leaf_records(state: Any, host: Any) -> list[dict[str, Any]]:
    """Name, shape, dtype and SHA-256 of each leaf, in tree order, as JSON values; TypeError for one that is none."""
    return [form | {"sha256": _sha256(bits)} for form, bits in zip(_forms(state), jax.tree.leaves(host), strict=True)]


def check_forms(records: list[dict[str, Any]], like: Any) -> None:
    """Raises BrokenError at the first leaf whose recorded name, shape or dtype is not that of `like`."""
    forms = _forms(like)
    for entry, form in zip(records, forms, strict=False):
        for what, value in form.items():
            if (there := entry.get(what)) != value:
                told = f"its {what} is {one_line(there, 80)} there, and {value} in this model"
                raise BrokenError(f"{form['name']}: {told}")
    if len(records) != len(forms):
        raise BrokenError(f"it has {len(records)} arrays, and this model has {len(forms)}")


def check_stored(stored: Any, shape: Sequence[int], dtype: Any) -> None:
    """Raises ValueError unless TensorStore opened an array as charlstm writes it, in one chunk, as zstd or plain.

    Its memory is then that of the array: other codecs believe what a file says about its length.
    """
    codec, chunk = stored.codec.to_json(), [*(stored.chunk_layout.read_chunk.shape or ())]
    there, expected = (stored.dtype.numpy_dtype, [*stored.shape]), (np.dtype(dtype), [*shape])
    if there != expected or chunk != [max(side, 1) for side in shape]:
        told = f"{there[0]} {there[1]} in chunks of {chunk}"
        raise ValueError(f"an array is {told}, and not {expected[0]} {expected[1]} in one")
    compressor = codec.get("compressor") or {"id": "zstd"}
    if codec.get("driver") != "zarr" or codec.get("filters") or compressor.get("id") != "zstd":
        raise ValueError(f"an array is stored as {one_line(codec, 80)}, and not with zstd")


def check_bits(records: list[dict[str, Any]], host: Any) -> None:
    """Raises BrokenError at the first array whose bits differ from those recorded."""
    for entry, bits in zip(records, jax.tree.leaves(host), strict=True):
        if _sha256(bits) != entry.get("sha256"):
            raise BrokenError(f"{entry['name']} does not match its SHA-256")


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Adds to a record the SHA-256 of the rest of it."""
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return rest | {"sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def read_record(folder: Path) -> dict[str, Any]:
    """The integrity record of a checkpoint. Raises as `reading`, also if it does not match its SHA-256."""
    with reading(folder, "integrity") as path:
        record = read_json(path / RECORD)
    if record != seal(record) if "sha256" in record else not record.keys() <= _UNSEALED:
        raise BrokenError(f"{RECORD} does not match its SHA-256")
    leaves = record.get("leaves")
    if not isinstance(leaves, list) or not all(isinstance(leaf, dict) for leaf in leaves):
        raise BrokenError("its integrity record is malformed")
    return record


@contextmanager
def reading(folder: Path, item: str, most: float = math.inf) -> Iterator[Path]:
    """Checks that an item of a checkpoint, which the block then reads, holds no link or pipe and at most `most` bytes.

    Raises BrokenError for a fault of its own, and TrainingError where the system failed, as with too many open files.
    """
    try:
        if problem := find_foreign(folder) or find_foreign(folder / item, most):
            raise BrokenError(problem)
        yield folder / item
    except (MemoryError, BrokenError):
        raise
    except Exception as error:
        text = f"{error} {error.__context__}"  # TensorStore's is no OSError, and ends with the system's words
        if why := next((each for each in map(os.strerror, _SYSTEM_FAILURES) if each in text), None):
            message = f"{folder} cannot be read: {why}; mend that, or move it away to go on without it"
            raise TrainingError(message) from error
        raise BrokenError(f"its {item} cannot be read ({type(error).__name__}: {reason(error)})") from error


def reason(error: Exception) -> str:
    """The end of TensorStore's long chain, which is what the system said, such as "No space left on device"."""
    return one_line(str(error).rsplit('": ', 1)[-1], 200)


def _forms(tree: Any) -> list[dict[str, Any]]:
    forms = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is of type {type(leaf).__name__}; a checkpoint holds jax.Arrays")
        forms.append({"name": name, "shape": list(leaf.shape), "dtype": str(leaf.dtype)})
    return forms


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _sha256(bits: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(bits).reshape(-1).view(np.uint8).data).hexdigest()
