"""The command line."""

import signal
import sys
from collections.abc import Sequence


def main() -> None:
    """The program `charlstm`."""
    try:
        from charlstm.cli import commands
    except KeyboardInterrupt:  # while it is imported, which is no reason for a traceback
        sys.exit(128 + signal.SIGINT)
    commands.main()


def run(words: Sequence[str]) -> int:
    """Carry out one command line, and return its exit code: 0, 1 for a failure, 2 for wrong input, 128 + signal."""
    from charlstm.cli import commands

    return commands.run(words)
