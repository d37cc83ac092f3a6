"""One process at a time trains in a folder, where the file system has locks."""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from charlstm.support.errors import InputError

LOCK = ".lock"
"""The file that is locked; it is removed at the end, and one that a killed process left locks nothing."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def only_writer(folder: Path, say: Callable[[str], object] | None = None, patience: float = 0) -> Iterator[None]:
    """Locks a run's folder while the block runs; InputError if another process has it locked for `patience` seconds.

    The lock is the system's, and ends with the process. Where the file system has none (Lustre without -o flock, some
    FUSE mounts) or this process may not make one, the block runs without, and `say` gets a line about it.
    """
    with warnings.catch_warnings(action="ignore"):  # of a system without fcntl
        from filelock import FileLock, SoftFileLock, Timeout
    # Without fcntl it is a SoftFileLock, a mere file, which would outlive a killed process.
    why = "this system has none" if issubclass(FileLock, SoftFileLock) else ""
    path = folder.absolute() / LOCK
    lock = FileLock(path, timeout=patience, fallback_to_soft=False)
    if path.is_file() and path.stat().st_size:
        raise InputError(f"{path} holds something, and is not the lock of a run; move it away")
    try:
        if not why:
            lock.acquire()
    except Timeout:
        raise InputError(f"another process trains in {folder}; wait for it, or use another --run-dir") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise InputError(f"{path} is not a file; move it away") from None
        if error.errno not in _NO_LOCKS:
            raise
        why = os.strerror(error.errno)
    try:
        if why and say:
            say(f"{folder} is not locked ({why}), so a second process that trains in it goes unnoticed")
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # removed while locked: whoever has opened it finds it gone
                path.unlink()
            lock.release()
