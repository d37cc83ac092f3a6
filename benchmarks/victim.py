"""`charlstm` in a process that says what it is at, so that a kill can be aimed at it.

python -m benchmarks.victim PIPE WORD ...

PIPE is the number of a file that is open for writing. One letter goes there whenever the process turns to something
else, see PHASES, and nothing else about the command is changed.
"""

import os
import sys
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
    def __init__(self, pipe: int) -> None:
        self._pipe, self._now = pipe, b""

    def tell(self, phase: str) -> None:
        self._now = PHASES[phase]
        os.write(self._pipe, self._now)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        before = self._now
        self.tell(phase)
        yield
        self._now = before
        os.write(self._pipe, before)

    def wrapped(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **named: Any) -> Any:
            with self.during(phase):
                return call(*args, **named)

        return told


def main() -> int:
    """Carry out one command line of charlstm."""
    teller = _Teller(int(sys.argv[1]))
    teller.tell("start")
    from charlstm import cli, train
    from charlstm.checkpoint import Checkpoints

    train.evaluate = teller.wrapped("validation", train.evaluate)
    train.sampled = teller.wrapped("sampling", train.sampled)
    train.make_train_step = _telling(train.make_train_step, teller)
    Checkpoints.save = teller.wrapped("save", Checkpoints.save)
    Checkpoints.restore_newest = teller.wrapped("restoring", Checkpoints.restore_newest)
    return cli.run(sys.argv[2:])


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
