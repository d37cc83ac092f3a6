"""Read run and comparison folders into entries: what a page or a plot shows of each model or run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from charlstm.compare import results
from charlstm.compare.results import Interval, ModelResult
from charlstm.core import size as sizes
from charlstm.report import curves
from charlstm.report.curves import Curve
from charlstm.runs import metrics
from charlstm.runs.folder import CONFIG, GRID, Run
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line, read_json
from charlstm.support.schema import sentence


@dataclass(frozen=True)
class Corpus:
    """The text that a model read; `vocabulary` counts its distinct symbols."""

    name: str
    symbols: str
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of a comparison, or one run."""

    result: ModelResult
    corpus: Corpus
    runs: tuple[Run, ...]
    """The model's finished seeds, or the run itself."""
    training: Curve | None
    """Smoothed training loss; like `validation`, without the seeds that diverged."""
    validation: Curve | None
    compared: bool  # whether it is a model of a comparison
    confidence: float = 0.95  # of the intervals
    note: str = ""
    """What is unfinished, such as "2 of 3 seeds finished"."""

    @property
    def name(self) -> str:
        """The name shown everywhere; `gather` makes it distinct."""
        return self.result.name


def gather(folders: Sequence[Path]) -> list[Entry]:
    """The entries of all folders, in order, each folder once. Where a name occurs twice, its folder stands for it.

    Raises:
        InputError: a folder is neither a run nor a comparison, a file in it is malformed, or there is nothing to show.
    """
    found = [(folder, entry) for folder in dict.fromkeys(folders) for entry in _read(folder)]
    if not found:
        raise InputError("there is nothing to show: the comparison has no models yet")
    count, entries = Counter(entry.name for _, entry in found), []
    for folder, entry in found:
        if count[entry.name] > 1:
            name = one_line(folder / entry.name if entry.compared else folder)
            entry = replace(entry, result=replace(entry.result, name=name))
        entries.append(entry)
    return entries


def ngram_rows(folders: Sequence[Path]) -> list[ModelResult]:
    """The n-gram models that comparisons among these folders are compared with."""
    found = [results.read(each) for each in dict.fromkeys(folders) if (each / results.RESULTS).exists()]
    return [row for each in found for row in each.rows[len(each.models) :]]


def _read(folder: Path) -> list[Entry]:
    if (folder / results.RESULTS).exists() or (folder / GRID).exists():
        return _read_comparison(folder)
    if folder.is_dir() and not Run.exists(folder):
        raise InputError(f"{folder} is neither a run nor a comparison: it has no {CONFIG} and no {GRID}")
    return [_read_run(folder)]


def _read_comparison(folder: Path) -> list[Entry]:
    found, entries = results.read(folder), []
    seeds = read_json(path).get("seeds") if (path := inside(folder, GRID)).exists() else None
    for model in found.models:
        runs = tuple(Run.open(inside(folder, seed.run)) for seed in model.seeds)
        kept = [run for run, seed in zip(runs, model.seeds, strict=True) if seed.diverged_after is None]
        records = [metrics.read(run.folder) for run in kept]
        entries.append(
            Entry(
                result=model,
                corpus=Corpus(found.corpus, found.symbols, found.vocabulary),
                runs=runs,
                training=curves.training(records),
                validation=curves.validation(records),
                compared=True,
                confidence=found.confidence,
                note=f"{len(runs)} of {seeds} seeds finished" if isinstance(seeds, int) and len(runs) < seeds else "",
            )
        )
    return entries


def _read_run(folder: Path) -> Entry:
    """A run as its config and metrics describe it; only `charlstm eval` and comparisons measure a test loss."""
    run = Run.open(folder)
    records, config = metrics.read(run.folder), run.config
    vocabulary, symbols = run.vocabulary.size, config.data.batch_size * config.data.seq_length
    validated = curves.points(records, validation=True)[:, 1]
    seconds, speed = metrics.time_taken(records, symbols)
    last, steps = max((row["step"] for row in records), default=0), config.train.steps
    losses = [(step, loss) for step, loss in curves.points(records, validation=True)]
    how = "by a program with an optimizer, a loss or data of its own" if run.program else ""
    unfinished = f"step {last:,} of {steps:,}" if last < steps and not run.program else ""
    notes = how, metrics.ended_early(run, losses, last) or unfinished, str(run.init_from or ""), *map(str, run.changes)
    try:
        model = ModelResult(
            name=one_line(run.folder.resolve().name),
            cell=config.model.cell,
            num_layers=config.model.num_layers,
            hidden_size=config.model.hidden_size,
            size=config.model.hidden_size,
            parameters=sizes.count_parameters(config.model, vocabulary),
            learning_rate=config.optimizer.learning_rate,
            operations=float(sizes.count_training_operations(config.model, vocabulary) * symbols * config.train.steps),
            seconds=seconds,
            chars_per_second=speed,
            validation=Interval(mean=float(validated.min()), n=1) if len(validated) else None,
        )
    except ValidationError as error:
        raise InputError(f"{folder} holds a number that cannot be shown: {sentence(error)}") from None
    return Entry(
        result=model,
        corpus=Corpus(one_line(config.data.corpus), config.data.symbols, vocabulary),
        runs=(run,),
        training=curves.training([records]),
        validation=curves.validation([records]),
        compared=False,
        note="; ".join(filter(None, notes)),
    )
