"""charlstm's places in the platform's cache folder."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path | None:
    """charlstm's place in the platform's cache folder; None for a user who has no home, and so no such place."""
    import pooch

    with suppress(RuntimeError, KeyError):
        if (folder := Path(pooch.os_cache("charlstm"))).is_absolute():
            return folder
    return None


def own_folder(name: str) -> Path | None:
    """A place in the cache for what is run, and so is this user's alone. None where it cannot be that."""
    if not (cache := cache_folder()):
        return None
    folder = cache / name
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
            return None
        if found.st_mode & 0o022 and os.name == "posix":  # others may have put programs there
            shutil.rmtree(folder)
            folder.mkdir()
        folder.chmod(0o700)
        for path in folder.iterdir():  # a full disk left it, and JAX would fail to read it for good
            with suppress(FileNotFoundError):  # another process was done with it
                if not path.stat().st_size:
                    path.unlink()
        return folder if os.access(folder, os.W_OK) else None
    return None
