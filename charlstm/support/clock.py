"""The seconds in which this process runs: after Ctrl-Z, or while a laptop sleeps, it does not."""

import threading
import time
from contextlib import AbstractContextManager

_TICK, _PAUSE = 0.25, 1.5


class Clock(AbstractContextManager["Clock"]):
    """Counts seconds in a `with`, but not those of a pause, but for the first quarter of a second.

    A thread looks at the time, and was not there when it is much later than it should be. No system tells of all
    pauses: SIGSTOP cannot be caught, SIGCONT does not say how long it was, some monotonic clocks go on in a laptop's
    sleep, a frozen container gets no signal, and the time of the CPU stands still while a GPU works.
    """

    def __init__(self) -> None:
        self._lock, self._over = threading.Lock(), threading.Event()
        self._last, self._paused = time.perf_counter(), 0.0

    def __enter__(self) -> "Clock":
        self._last = time.perf_counter()
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def __call__(self) -> float:
        with self._lock:  # whichever thread is the first after a pause finds it
            now = time.perf_counter()
            if now - self._last > _PAUSE:
                self._paused += now - self._last - _TICK
            self._last = now
            return now - self._paused

    def _look(self) -> None:
        while not self._over.wait(_TICK):
            self()
