"""The words a person types become a call of one room. Rooms that import JAX are imported when they are called."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlstm.cli.arguments import (
    Compare,
    Corpora,
    Eval,
    Export,
    Report,
    Sample,
    Train,
    compare_arguments,
    parse,
    train_arguments,
)
from charlstm.support.errors import InputError, Interrupted, MissingExtraError, TrainingError, did_you_mean
from charlstm.support.files import one_line


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
    except InputError as error:
        return _fail(str(error), 2)
    except TrainingError as error:
        return _fail(str(error), 1)
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
    _note([message])
    return code


def _dispatch(words: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "eval": _eval,
        "sample": _sample,
        "compare": _compare,
        "report": _report,
        "export": _export,
        "corpora": _corpora,
    }
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("charlstm"))
        return 0
    if words[0] not in commands:
        hint = did_you_mean(words[0], commands) or f"; there are {', '.join(commands)}"
        raise InputError(f"there is no command {words[0]!r}{hint}")
    commands[words[0]](words[1:])
    return 0


def _overview() -> str:
    rows = {
        "train [EXPERIMENT]": Train,
        "eval RUN": Eval,
        "sample RUN": Sample,
        "compare EXPERIMENT": Compare,
        "report RUN ...": Report,
        "export RUN": Export,
        "corpora": Corpora,
    }
    lines = "\n".join(f"  {usage:<20} {kind.__doc__}" for usage, kind in rows.items())
    return (
        "charlstm: train, evaluate and sample character-level recurrent language models.\n\n"
        f"usage: charlstm COMMAND ...\n\n{lines}\n\n"
        "`charlstm COMMAND --help` lists what a command takes. A first run: charlstm train"
    )


def _train(words: list[str]) -> None:
    name, parsed = train_arguments(words)
    from charlstm.cli.terminal import Reporter
    from charlstm.data import corpora
    from charlstm.runs.folder import default_folder

    config = replace(parsed.config, data=replace(parsed.config.data, corpus=corpora.resolve(parsed.config.data.corpus)))
    folder = parsed.run_dir or default_folder(name)
    _prepare_devices()
    from charlstm.training.train import train

    train(config, folder, Reporter())


def _eval(words: list[str]) -> None:
    asked = parse(Eval, words)
    _prepare_devices()
    from charlstm.analysis.evaluate import evaluate
    from charlstm.analysis.gradient_reach import described, gradient_lags
    from charlstm.cli.terminal import write
    from charlstm.data import corpora
    from charlstm.runs.loading import trained
    from charlstm.training.begin import Text, encoded

    found = trained(asked.run, asked.checkpoint)
    data = found.run.config.data
    _note(found.notes)
    if asked.text is not None:
        pieces = corpora.pieces(corpora.resolve(str(asked.text)), data.symbols)
        found.run.vocabulary.refuse_unknown(pieces)  # all of them at once; encoding stops at the first piece
        ids, what = encoded(found.run.vocabulary, pieces), str(asked.text)
    else:
        # The file that the config names is read, and never shown; a stranger's folder cannot have the hash of a secret.
        text = Text.read(found.run.config)
        found.run.refuse_other_text(text.fingerprint)
        found.run.refuse_other_vocabulary(text.vocabulary)
        ids = getattr(text.splits, asked.split)
        what = f"{asked.split} split"
    if not len(ids):
        raise InputError(f"the {what} of {asked.run} is empty; its fraction in the run's config is 0")
    result = evaluate(found.model, found.params, ids, rows=1 if asked.exact else None)
    lags = gradient_lags(found.model, found.params, ids) if asked.lags else None
    if asked.json:
        print(
            json.dumps(
                {
                    "run": str(asked.run),
                    "step": found.step,
                    "split": None if asked.text else asked.split,
                    "text": str(asked.text) if asked.text else None,
                    "exact": asked.exact,
                    "characters": result.characters,
                    "loss": result.loss,
                    "bits_per_char": result.bits_per_char,
                }
                | ({"lags": lags.norms.tolist(), "reach": lags.reach()} if lags else {})
            )
        )
    else:
        how = "in one row" if asked.exact else "in warmed rows"
        write(
            f"{what}, step {found.step:,}: {result.loss:.5f} nats, {result.bits_per_char:.5f} bits per character"
            f" over {result.characters:,} {data.symbols} {how}\n"
        )
        if lags:
            print("\n".join(described(lags)))


def _sample(words: list[str]) -> None:
    asked = parse(Sample, words)
    if asked.num < 1:
        raise InputError(f"--num is {asked.num}; it must be at least 1")
    _prepare_devices()
    from charlstm.analysis.sample import text_stream, texts
    from charlstm.cli.terminal import write
    from charlstm.runs.loading import trained

    found = trained(asked.run, asked.checkpoint)
    _note(found.notes)
    names = ("prime", "length", "temperature", "top_n", "seed")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(asked, name)) is not None}
    config = replace(found.run.config.sample, **given)
    vocabulary, symbols = found.run.vocabulary, found.run.config.data.symbols
    # The config's own prime was written before the vocabulary was known; only a typed one is taken at its word.
    skip = asked.skip_unknown or asked.prime is None
    how: dict[str, Any] = {"vocabulary": vocabulary, "symbols": symbols, "skip_unknown": skip}
    drawn: Iterable[Iterable[str]]
    replace(config, seed=config.seed + asked.num - 1)  # refuses the last seed before anything is shown of the first
    if asked.stream:
        seeds = range(config.seed, config.seed + asked.num)
        drawn = (text_stream(found.model, found.params, config=replace(config, seed=seed), **how) for seed in seeds)
    else:
        drawn = ([text] for text in texts(found.model, found.params, config=config, num=asked.num, **how))
    for number, pieces in enumerate(drawn):
        if asked.num > 1:
            write(f"--- seed {config.seed + number} ---\n")
        for piece in pieces:
            write(piece)
        write("\n")


def _compare(words: list[str]) -> None:
    name, run_dir, grid = compare_arguments(words)
    from charlstm.cli.terminal import Reporter, write
    from charlstm.data import corpora
    from charlstm.report.tables import show
    from charlstm.runs.folder import default_folder
    from charlstm.support.files import inside

    data = replace(grid.base.data, corpus=corpora.resolve(grid.base.data.corpus))
    folder = run_dir or default_folder(name)
    _prepare_devices()
    from charlstm.compare.runner import compare

    found = compare(replace(grid, base=replace(grid.base, data=data)), folder, Reporter())
    drawn = f"plots: {folder}/plots\npage: {folder}/report.html\n"
    try:  # before anything is shown: what they read may be malformed
        from charlstm.report.page import write_page
        from charlstm.report.plots import plots

        plots([folder], inside(folder, "plots"))
        write_page([folder], folder / "report.html")
    except MissingExtraError as error:
        drawn = ""
        _note([f"no plots and no page: {error}"])
    show(found)
    write(f"\nthe table as Markdown, CSV and JSON: {folder}/results.*\n{drawn}")


def _report(words: list[str]) -> None:
    asked = parse(Report, words)
    if not asked.runs:
        raise InputError("`charlstm report` needs the folder of a run or of a comparison; see `charlstm report --help`")
    _prepare_devices()
    from charlstm.cli.terminal import write
    from charlstm.report.page import write_page

    output = asked.output or (asked.runs[0] if len(asked.runs) == 1 else Path()) / "report.html"
    write_page(asked.runs, output)
    write(f"{output}\n")


def _export(words: list[str]) -> None:
    asked = parse(Export, words)
    _prepare_devices()
    from charlstm.cli.terminal import write
    from charlstm.runs.export import export, refuse_other_kind
    from charlstm.runs.loading import trained

    if asked.output is not None:
        refuse_other_kind(asked.output)  # before the model is read
    found = trained(asked.run, asked.checkpoint)
    _note(found.notes)
    write(f"{export(found, asked.output)}\n")


def _corpora(words: list[str]) -> None:
    parse(Corpora, words)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from charlstm.data.corpora import catalogue
    from charlstm.support.text import printable

    table = Table(box=None, pad_edge=False)
    for title in ("name", "characters", "text", "where it is"):
        table.add_column(title, overflow="fold", justify="right" if title == "characters" else "left")
    for entry in catalogue():
        table.add_row(entry.name, f"{entry.characters:,}", entry.title, Text(printable(entry.place)))
    Console(highlight=False).print(table)
    print("\nany UTF-8 file of your own: charlstm train --data.corpus PATH")


def _prepare_devices() -> None:
    from charlstm.support.process import prepare

    prepare()


def _note(notes: Sequence[str]) -> None:
    for note in notes:
        # Names and fields are in it that a stranger chose: one line, and nothing in it that a terminal would obey.
        print(f"charlstm: {one_line(note, 4000)}", file=sys.stderr)
