"""The ways a command ends early: the input is wrong, the training is, or someone stopped it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """Something a person gave is wrong. The message is one line: what is wrong, and what to do (exit code 2)."""


class MissingExtraError(InputError):
    """A package that is optional, and needed for what was asked, is not installed."""


class TrainingError(RuntimeError):
    """Training cannot go on, for a reason of its own (exit code 1)."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal stopped a run after `step`, and everything is saved (exit code 128 + signal)."""

    def __init__(self, signal_number: int, step: int, of: str = "") -> None:
        super().__init__(f"stopped after step {step:,}{f' of {of}' if of else ''}")
        self.signal_number, self.step = signal_number, step


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as ``'; did you mean seq_length?'``, or an empty string where nothing is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raises InputError with what to install where the block imports a package of the extra `name` that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"this needs {error.name}, which is not installed; pip install 'charlstm[{name}]'"
        raise MissingExtraError(message) from None
