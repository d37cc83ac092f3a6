"""How JAX is set up for a program of charlstm's own. A library that others import leaves their settings alone."""

import os
from pathlib import Path

CACHE_AT_LEAST_SECONDS = 0.1
"""Programs that compile faster than this are compiled again each time."""


def prepare() -> None:
    """To be called before anything runs on a device: XLA keeps what it compiled for the next process.

    The platform's cache folder is used, unless `JAX_COMPILATION_CACHE_DIR` names another;
    `JAX_ENABLE_COMPILATION_CACHE=0` turns the cache off. An entry is found again only by the same program, shapes,
    version of JAX and kind of device, so a stale one is never run.
    """
    # XLA's C++ side prints what it raises anyway, and of each entry that it cannot use on this processor.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHE_AT_LEAST_SECONDS)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := _cache_folder()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _cache_folder() -> Path | None:
    """charlstm's place in the platform's cache folder; None where nothing can be written."""
    import pooch

    folder = Path(pooch.os_cache("charlstm")) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
