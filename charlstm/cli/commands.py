"""The commands. Modules that import JAX are imported when a command needs them, so that --help is quick."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from charlstm.cli import arguments
from charlstm.cli.experiments import run_file
from charlstm.cli.terminal import write
from charlstm.config import Experiment, explain
from charlstm.support import process
from charlstm.support.errors import InputError, Interrupted, MissingExtraError, TrainingError, did_you_mean
from charlstm.support.files import inside, one_line


def main() -> None:
    """The program `charlstm`."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Carry out one command line, and return its exit code: 0, 1 for a failure, 2 for wrong input, 128 + signal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to stop
    try:
        return _dispatch(list(words))
    except ValidationError as error:
        return _fail(explain(error), 2)
    except (InputError, TrainingError) as error:
        return _fail(str(error), 2 if isinstance(error, InputError) else 1)
    except Interrupted as stop:
        print(f"{stop}; the same command continues from there", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt as error:
        return _fail("interrupted", 128 + (error.args[0] if error.args else signal.SIGINT))
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except Exception as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):  # the latter is XLA's
            raise
        return _fail("there is too little memory; lower --data.batch-size, --data.seq-length or --model.hidden-size", 1)


def _fail(message: str, code: int) -> int:
    _print_notes([message])
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--import":
        if len(words) < 3:
            raise InputError("--import is followed by a Python file, such as one that registers a cell, and a command")
        run_file(Path(words[1]))
        return _dispatch(words[2:])
    if words[0] == "--version":
        import charlstm

        print(charlstm.__version__)
        return 0
    commands = {usage.split()[0]: command for usage, (_, command) in _COMMANDS.items()}
    if words[0] not in commands:
        hint = did_you_mean(words[0], commands) or f"; there are {', '.join(commands)}"
        raise InputError(f"there is no command {words[0]!r}{hint}")
    commands[words[0]](words[1:])
    return 0


def overview() -> str:
    """What `charlstm --help` prints."""
    lines = "\n".join(f"  {usage:<20} {kind.__doc__}" for usage, (kind, _) in _COMMANDS.items())
    return f"""charlstm: train, evaluate and sample character-level recurrent language models.

usage: charlstm [--import FILE] COMMAND ...

{lines}

`charlstm COMMAND --help` lists what a command takes; FILE is Python that registers a cell.
A first run: charlstm train"""


def _place(config: Experiment, folder: Path | None, name: str) -> tuple[Experiment, Path]:
    """The config with its corpus found, and the folder to write to."""
    from charlstm.data import corpora
    from charlstm.runs.folder import default_folder

    data = replace(config.data, corpus=corpora.resolve(config.data.corpus))
    return replace(config, data=data), folder or default_folder(name)


def _train(words: list[str]) -> None:
    name, parsed = arguments.train_arguments(words)
    config, folder = _place(parsed.config, parsed.run_dir, name)
    process.prepare()
    from charlstm.cli.progress import TrainProgress
    from charlstm.training.train import train

    train(config, folder, watch=TrainProgress(), signals=True)


def _eval(words: list[str]) -> None:
    asked = arguments.parse(arguments.Eval, words)
    process.prepare()
    from charlstm.analysis.evaluate import evaluate
    from charlstm.analysis.gradient_reach import gradient_reach
    from charlstm.cli.summary import reach_table
    from charlstm.data import corpora
    from charlstm.data.dataset import encode_pieces
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint)
    _print_notes(found.notes)
    symbols, separator = found.config.data.symbols, found.config.data.separator
    if asked.text is None:
        # The file that the config names is read, and never shown; a stranger's folder cannot have the hash of a secret.
        ids, what, source = found.ids(asked.split), f"{asked.split} split", {"split": asked.split, "text": None}
    else:
        pieces, what = corpora.pieces(str(asked.text), symbols, separator), str(asked.text)
        found.vocabulary.check_known(pieces)  # all of them at once; encoding stops at the first piece
        ids, source = encode_pieces(found.vocabulary, pieces), {"split": None, "text": what}
    newline = found.run.newline
    result = evaluate(found.model, found.params, ids, rows=1 if asked.exact else None, newline=newline)
    try:
        reach = gradient_reach(found.model, found.params, ids, newline=newline) if asked.lags else None
    except ValueError as error:
        raise InputError(str(error)) from None
    if asked.json:
        values = {"run": str(asked.run), "step": found.step, **source, "exact": asked.exact}
        values |= result._asdict() | {"bits_per_char": result.bits_per_char}
        print(json.dumps(values | ({"lags": reach.norms.tolist(), "reach": reach.reach()} if reach else {})))
        return
    how = "in one row" if asked.exact else "in warmed rows"
    write(
        f"{what}, step {found.step:,}: {result.loss:.5f} nats, {result.bits_per_char:.5f} bits per character"
        f" over {result.characters:,} {symbols} {how}\n"
    )
    if reach:
        print("\n".join(reach_table(reach)))


def _sample(words: list[str]) -> None:
    asked = arguments.parse(arguments.Sample, words)
    if asked.num < 1:
        raise InputError(f"--num is {asked.num}; it must be at least 1")
    process.prepare()
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint)
    _print_notes(found.notes)
    names = ("length", "temperature", "top_n", "seed")
    how: dict[str, Any] = {name: value for name in names if (value := getattr(asked, name)) is not None}
    seed = replace(found.config.sample, **how).seed
    replace(found.config.sample, **dict(how, seed=seed + asked.num - 1))  # checks all before anything is shown
    how["skip_unknown"] = asked.skip_unknown
    drawn: Iterable[Iterable[str]]
    if asked.stream:
        drawn = (found.stream(asked.prime, **dict(how, seed=seed + number)) for number in range(asked.num))
    else:
        drawn = ([text] for text in found.samples(asked.prime, asked.num, **how))
    for number, pieces in enumerate(drawn):
        if asked.num > 1:
            write(f"--- seed {seed + number} ---\n")
        for piece in chain(pieces, ["\n"]):
            write(piece)


def _compare(words: list[str]) -> None:
    name, run_dir, grid = arguments.compare_arguments(words)
    base, folder = _place(grid.base, run_dir, name)
    process.prepare()
    from charlstm.cli.progress import GridProgress
    from charlstm.compare.runner import run_grid
    from charlstm.report.tables import show

    with GridProgress() as watch:
        found = run_grid(replace(grid, base=base), folder, watch=watch, signals=True)
    drawn = f"plots: {folder}/plots\npage: {folder}/report.html\n"
    try:  # before anything is shown: what they read may be malformed
        from charlstm.report.page import write_page
        from charlstm.report.plots import plots

        plots([folder], inside(folder, "plots"))
        write_page([folder], folder / "report.html")
    except MissingExtraError as error:
        drawn = ""
        _print_notes([f"no plots and no page: {error}"])
    show(found)
    write(f"\nthe table as Markdown, CSV and JSON: {folder}/results.*\n{drawn}")


def _report(words: list[str]) -> None:
    asked = arguments.parse(arguments.Report, words)
    if not asked.runs:
        raise InputError("`charlstm report` needs the folder of a run or of a comparison; see `charlstm report --help`")
    process.prepare()
    from charlstm.report.page import write_page

    output = asked.output or (asked.runs[0] if len(asked.runs) == 1 else Path()) / "report.html"
    write_page(asked.runs, output)
    write(f"{output}\n")


def _export(words: list[str]) -> None:
    asked = arguments.parse(arguments.Export, words)
    process.prepare()
    from charlstm.runs.export import export
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint)
    _print_notes(found.notes)
    write(f"{export(found, asked.output)}\n")


def _corpora(words: list[str]) -> None:
    arguments.parse(arguments.Corpora, words)
    from charlstm.data.corpora import catalogue

    for entry in catalogue():
        write(f"{entry.name:<20} {entry.characters:>9,} characters  {entry.title} ({entry.place})\n")
    own = "any UTF-8 file of your own, compressed too, a folder of them, or a quoted glob"
    print(f"\n{own}: charlstm train --data.corpus PATH")


_COMMANDS: dict[str, tuple[type, Callable[[list[str]], None]]] = {
    "train [EXPERIMENT]": (arguments.Train, _train),
    "eval RUN": (arguments.Eval, _eval),
    "sample RUN": (arguments.Sample, _sample),
    "compare EXPERIMENT": (arguments.Compare, _compare),
    "report RUN ...": (arguments.Report, _report),
    "export RUN": (arguments.Export, _export),
    "corpora": (arguments.Corpora, _corpora),
}


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        # Names and fields are in it that a stranger chose: one line, and nothing in it that a terminal would obey.
        print(f"charlstm: {one_line(note, 4000)}", file=sys.stderr)
