"""`charlstm` in a process that says what it is at, so that a kill can be aimed at it.

python -m benchmarks.victim PIPE DEATH WORD ...

PIPE is the number of a file that is open for writing. One letter goes there whenever the process turns to something
else, see PHASES. DEATH is empty, or PHASE:N for a process that kills itself there, which no machine's speed can change.
Nothing else about the command is changed, but that it waits for its first update.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PHASES = {
    "start": b"i",
    "restoring": b"r",
    "compilation": b"c",
    "step": b"u",
    "validation": b"v",
    "sampling": b"t",
    "save": b"w",
}
"""`compilation` is the first update, and `save` lasts until the files of the one before are whole."""


class _Teller:
    def __init__(self, pipe: int, death: str) -> None:
        self._pipe, self._now, self._began = pipe, "start", Counter[str]()
        self._death, _, occurrence = death.partition(":")
        self._occurrence = int(occurrence or 0)

    def tell(self, phase: str) -> None:
        self._now = phase
        os.write(self._pipe, PHASES[phase])
        self._began[phase] += 1
        if phase != "save":  # which is at its middle where the call ends: the files are written after it
            self._die(phase)

    def _die(self, phase: str) -> None:
        if (phase, self._began[phase]) == (self._death, self._occurrence):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        before = self._now
        self.tell(phase)
        try:
            yield
        finally:
            self._die(phase)
            self._now = before
            os.write(self._pipe, PHASES[before])

    def wrapped(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **named: Any) -> Any:
            with self.during(phase):
                return call(*args, **named)

        return told


def main() -> int:
    """Carry out one command line of charlstm."""
    teller = _Teller(int(sys.argv[1]), sys.argv[2])
    teller.tell("start")
    from charlstm import cli
    from charlstm.runs.checkpoint import Checkpoints
    from charlstm.runs.loading import TrainedRun
    from charlstm.training import loop, seeds

    loop.evaluate = teller.wrapped("validation", loop.evaluate)
    TrainedRun.sample = teller.wrapped("sampling", TrainedRun.sample)
    seeds.jit_update = _telling(seeds.jit_update, teller)
    Checkpoints.save = teller.wrapped("save", Checkpoints.save)
    Checkpoints.restore_newest = teller.wrapped("restoring", Checkpoints.restore_newest)
    return cli.run(sys.argv[3:])


def _telling(make: Callable[..., Any], teller: _Teller) -> Callable[..., Any]:
    def made(*args: Any) -> Callable[..., Any]:
        update, compiled = make(*args), False

        def step(*values: Any) -> Any:
            nonlocal compiled
            if compiled:
                teller.tell("step")
                return update(*values)
            import jax

            teller.tell("compilation")
            done = jax.block_until_ready(update(*values))
            teller.tell("step")
            compiled = True
            return done

        return step

    return made


if __name__ == "__main__":
    sys.exit(main())
