"""The commands. Modules that import JAX are imported when a command needs them, so that --help is quick."""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from charlstm.cli import arguments, reading
from charlstm.cli.experiments import run_file
from charlstm.cli.parsing import option_of, parse
from charlstm.cli.terminal import (
    finish_output,
    keep_output_apart,
    keep_streams,
    print_note,
    print_notes,
    to_json,
    write,
)
from charlstm.config import explain
from charlstm.support import hosts, process
from charlstm.support.errors import InputError, Interrupted, TrainingError, did_you_mean
from charlstm.support.files import inside
from charlstm.training import star


def main() -> None:
    """The program `charlstm`."""
    keep_streams()
    sys.unraisablehook = _end_if_interrupted
    try:
        sys.exit(run(sys.argv[1:]))
    finally:
        finish_output()


def run(words: Sequence[str]) -> int:
    """Carry out one command line, and return its exit code: 0, 1 for a failure, 2 for wrong input, 128 + signal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to stop
    try:
        code = _dispatch(list(words))
        print(end="", flush=True)  # what fails, fails here
        return code
    except BrokenPipeError:  # the reader of our output has seen enough; a training has ended before it writes any
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if (told := _told(error)) is None:
            star.wait_for_loss()  # of a process, from which it may come: JAX raises errors of several kinds then
            star.end(f"{type(error).__name__}: {error}", 1)
            raise
        return _fail(*told)


def _told(error: BaseException) -> tuple[str, int] | None:
    """What a person reads of an error, and the exit code; None for one that nobody expects."""
    if isinstance(error, ValidationError):
        return explain(error), 2
    if isinstance(error, InputError | TrainingError):
        return str(error), 2 if isinstance(error, InputError) else 1
    if isinstance(error, Interrupted):
        return f"{error}; the same command continues from there", 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 128 + signal.SIGINT
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1
    if "Unable to initialize backend" in str(error):
        return f"JAX cannot start: {error}", 2
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the latter is XLA's
        return "there is too little memory; lower --data.batch-size, --data.seq-length or --model.hidden-size", 1
    return None


def _end_if_interrupted(lost: Any) -> None:
    """Ctrl-C in a destructor or a callback of the garbage collector, which lose it, ends the process too."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        os._exit(_fail("interrupted", 128 + signal.SIGINT))
    sys.__unraisablehook__(lost)


def _fail(message: str, code: int) -> int:
    if star.speaks():
        print_notes([message])
    star.end(message, code)  # after it is printed: a launcher kills all where one ends with another code than 0
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
    on_ray = any(option_of(word) == "--on" for word in words)  # Ray's own way to start under Slurm
    if words[0] not in ("train", "corpora") and not on_ray and (found := hosts.launcher()):
        what = f"{found.name} started this as one of several processes, and `charlstm {words[0]}` is one process"
        raise InputError(f"{what}; start it once, as with srun -n 1 or mpirun -n 1 (`charlstm train` takes several)")
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


def _train(words: list[str]) -> None:
    place, shared = arguments.find_place(words)
    if place is None:
        _train_here(words)
        return
    keep_output_apart()
    tell = print_note if place.speaks else lambda _: None
    star.join(place, shared, {name: version(name) for name in ("charlstm", "jax")}, tell)
    process.prepare(tell=tell)  # before a text is read, since JAX waits five minutes for the devices of the others
    (_follow if place.number else _train_here)(words)
    star.leave()


def _follow(words: list[str]) -> None:
    """Train as another process says, which has the run."""
    corpus = arguments.follow_arguments(words)
    from charlstm.training.follow import follow

    follow(corpus, signals=True)


def _train_here(words: list[str]) -> None:
    folder, asked, notes = arguments.train_arguments(words)
    config = replace(asked.config, data=arguments.find_text(asked.config.data, words))
    print_notes(notes)
    process.prepare(tell=print_note)
    from charlstm.cli.progress import TrainProgress
    from charlstm.training.train import train

    how: Any = {"allow_change": asked.allow_change, "init_from": _init_from(asked, folder)}
    train(config, folder, **how, watch=TrainProgress(), signals=True)


def _init_from(asked: arguments.Train, folder: Path) -> Any:
    """What a run begins with: the run that was asked for or, where a config.json is repeated, the one in that."""
    from charlstm.runs.folder import Run
    from charlstm.runs.transfer import load_repeated

    repeats = asked.experiment and asked.experiment.suffix == ".json" and not Run.exists(folder)
    if asked.init_from or not (asked.experiment and repeats):
        return asked.init_from
    return load_repeated(asked.experiment)


def _compare(words: list[str]) -> None:
    folder, grid, on, notes = arguments.compare_arguments(words)
    grid = replace(grid, base=replace(grid.base, data=arguments.find_text(grid.base.data, words)))
    print_notes(notes)
    process.prepare(start=on is None, tell=print_note)
    if on is not None:
        import jax

        jax.config.update("jax_platforms", "cpu")  # GPUs are for the tasks
    from charlstm.cli.progress import GridProgress
    from charlstm.compare.runner import run_grid
    from charlstm.report.tables import show

    with GridProgress() as watch:
        found = run_grid(grid, folder, on=on, watch=watch, signals=True)
    show(found)
    write(f"\nthe table as Markdown, CSV and JSON: {folder}/results.*\n")
    for what, draw in (("plots", _draw_plots), ("page", _draw_page)):
        try:
            place = draw(folder)
        except Exception as error:  # a picture's trouble is none of the comparison's
            why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            print_notes([f"no {what}: {why}"])
        else:
            write(f"{what}: {place}\n")


def _draw_plots(folder: Path) -> Path:
    from charlstm.report.plots import plots

    plots([folder], output := inside(folder, "plots"))
    return output


def _draw_page(folder: Path) -> Path:
    from charlstm.report.page import write_page

    write_page([folder], output := folder / "report.html")
    return output


def _report(words: list[str]) -> None:
    asked = parse(arguments.Report, words)
    if not asked.runs:
        raise InputError("`charlstm report` needs the folder of a run or of a comparison; see `charlstm report --help`")
    process.prepare(start=False)  # a page needs no GPU, unless it has to draw a sample
    from charlstm.report.page import write_page

    output = asked.output or (asked.runs[0] if len(asked.runs) == 1 else Path()) / "report.html"
    write_page(asked.runs, output)
    write(f"{output}\n")


def _compile(words: list[str]) -> None:
    parse(arguments.Compile, words)
    from charlstm.support import native

    try:
        write(f"{native.find_core(print_note, again=True)}\n")
    except native.UnavailableError as error:
        raise InputError(f"the native core cannot be compiled: {error}") from None


def _corpora(words: list[str]) -> None:
    asked = parse(arguments.Corpora, words)
    from charlstm.data.corpora import catalogue

    if asked.json:
        rows = [each._asdict() | {"path": each.place if os.path.isfile(each.place) else None} for each in catalogue()]
        write("[\n" + ",\n".join(map(to_json, rows)) + "\n]\n")
        return
    for entry in catalogue():
        write(f"{entry.name:<20} {entry.characters:>11,} characters  {entry.title} ({entry.place})\n")
    own = "any UTF-8 file of your own, compressed too, a folder of them, or a quoted glob"
    print(f"\n{own}: charlstm train --data.corpus PATH")


_COMMANDS: dict[str, tuple[type, Callable[[list[str]], None]]] = {
    "train [EXPERIMENT]": (arguments.Train, _train),
    "eval RUN": (arguments.Eval, reading.evaluate),
    "score RUN [FILE]": (arguments.Score, reading.score),
    "sample RUN": (arguments.Sample, reading.sample),
    "look RUN": (arguments.Look, reading.look),
    "compare EXPERIMENT": (arguments.Compare, _compare),
    "report RUN ...": (arguments.Report, _report),
    "export RUN": (arguments.Export, reading.export),
    "compile": (arguments.Compile, _compile),
    "corpora": (arguments.Corpora, _corpora),
}
