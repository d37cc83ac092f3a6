"""The command line."""

from charlstm.cli.commands import main, run

__all__ = ["main", "run"]
