"""A signal becomes a note that a loop can act on when its work is whole."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Value = TypeVar("Value")


class _LeftError(BaseException):
    """A signal came while nothing was at stake. No library's `except Exception` may take it for an error."""


class Received(list[int]):
    """The numbers of the signals that came."""

    _leaves = False

    def unless(self, work: Callable[[], Value]) -> Value | None:
        """What some work gives, or None: the first signal ends it at once.

        It is for long work that changes nothing before it is done. Where Python takes no exception, such as in a
        callback of its garbage collector, that signal is only noted, and the work goes on to its end.
        """
        told = sys.unraisablehook
        try:
            try:
                sys.unraisablehook = lambda each: None if each.exc_type is _LeftError else told(each)
                self._leaves = True
                self._leave()
                return work()
            finally:
                self._leaves = False
                sys.unraisablehook = told
        except _LeftError:
            return None

    def note(self, number: int, _frame: object) -> None:
        """Handles a signal; a second one acts at once."""
        self.append(number)
        if len(self) > 1:
            raise KeyboardInterrupt(number)
        self._leave()

    def _leave(self) -> None:
        if self._leaves and self:
            raise _LeftError


@contextmanager
def collected() -> Iterator[Received]:
    """Collects SIGINT and SIGTERM instead of dying of them."""
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, received.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
