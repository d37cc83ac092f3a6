"""The leaves of a state as bits: on the host and back on a device, and the record that finds one that changed.

A leaf is a jax.Array, or a jax.ShapeDtypeStruct where only its form is known. A typed random key is stored as its key
data, since files know numbers only.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.support.files import one_line


def to_host(state: Any) -> Any:
    """The state's bits, in NumPy arrays of their own."""
    bits = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)
    # On a CPU, device_get gives views of the very buffers that the next step overwrites.
    return jax.tree.map(lambda leaf: np.array(leaf, order="C"), jax.device_get(bits))


def to_device(host: Any, like: Any) -> Any:
    """The inverse of `to_host`, on the default device."""

    def put(bits: np.ndarray, form: Any) -> jax.Array:
        array = jax.device_put(bits)
        return jax.random.wrap_key_data(array, dtype=form.dtype) if _is_key(form) else array

    return jax.tree.map(put, host, like)


def blank(like: Any) -> Any:
    """Arrays as `to_host` would make them, with nothing in them."""

    def empty(form: Any) -> np.ndarray:
        bits = jax.eval_shape(jax.random.key_data, form) if _is_key(form) else form
        return np.empty(bits.shape, bits.dtype)

    return jax.tree.map(empty, like)


def record(state: Any, host: Any) -> list[dict[str, Any]]:
    """Name, shape, dtype and SHA-256 of each leaf, in tree order, as plain JSON values.

    Raises:
        TypeError: a leaf is not a jax.Array.
    """
    hashes = [_sha256(bits) for bits in jax.tree.leaves(host)]
    return [form | {"sha256": each} for form, each in zip(_forms(state), hashes, strict=True)]


def mismatch(record: Any, like: Any) -> str | None:
    """How a record's forms differ from those of `like`, by the first leaf that does; None if they do not."""
    if not isinstance(record, list) or not all(isinstance(entry, dict) for entry in record):
        return "its integrity record is malformed"
    forms = _forms(like)
    for entry, form in zip(record, forms, strict=False):
        for what, value in form.items():
            if entry.get(what) != value:
                return f"{form['name']}: its {what} is {one_line(entry.get(what), 80)} there, and {value} in this model"
    if len(record) != len(forms):
        return f"it has {len(record)} arrays, and this model has {len(forms)}"
    return None


def damage(record: list[dict[str, Any]], like: Any, host: Any) -> str | None:
    """The first leaf whose bits are not those that were recorded; None if all are."""
    for entry, wanted, bits in zip(record, jax.tree.leaves(blank(like)), jax.tree.leaves(host), strict=True):
        whole = (bits.shape, bits.dtype) == (wanted.shape, wanted.dtype) and _sha256(bits) == entry.get("sha256")
        if not whole:
            return f"{entry['name']} does not match its SHA-256"
    return None


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
