"""The ways in which a command ends early: wrong input, a failed training, or a signal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """The input is wrong (exit code 2). The message is one line: what is wrong, and what to do."""


class TrainingError(RuntimeError):
    """Training cannot continue (exit code 1)."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal stopped a run after `step`, 0 for none, and all of it is saved (exit code 128 + signal)."""

    def __init__(self, signal_number: int, step: int, of: str = "") -> None:
        where = f"after step {step:,}" if step else "before the first step"
        super().__init__(f"stopped {where}{f' of {of}' if of else ''}")
        self.signal_number, self.step = signal_number, step


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """A hint such as ``'; did you mean seq_length?'``, or an empty string where nothing is as similar as `cutoff`."""
    near = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raises InputError with what to install where the block imports a package of the extra `name` that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        what = f"this needs {error.name}, which is not installed; pip install 'charlstm[{name}]'"
        raise InputError(what) from None
