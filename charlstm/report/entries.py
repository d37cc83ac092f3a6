"""Folders of runs and of comparisons become exhibits: what a page or a plot shows of each model, all of one form."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from charlstm.compare import results
from charlstm.compare.results import Interval, ModelResult, Results, SeedResult
from charlstm.core import size as sizes
from charlstm.report import curves
from charlstm.report.curves import Curve
from charlstm.runs import metrics
from charlstm.runs.folder import CONFIG, GRID, Run
from charlstm.support.errors import InputError
from charlstm.support.files import inside, one_line, read_json


@dataclass(frozen=True)
class Text:
    """What a model read: `vocabulary` counts its different symbols."""

    corpus: str
    symbols: str
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One model of a comparison, or one run."""

    result: ModelResult
    text: Text
    runs: tuple[Run, ...]
    """Its finished seeds; the run alone where it is no comparison's."""
    training: Curve | None
    """Smoothed; of the seeds that did not diverge, like the next."""
    validation: Curve | None
    steps: int
    """Of a whole training; 0 where none is finished."""
    compared: bool
    """Whether it is part of a comparison."""
    seeds: int | None = None
    """How many the comparison asks for."""
    confidence: float = 0.95
    """Of its intervals."""
    note: str = ""
    """What a reader must know of its state."""

    @property
    def name(self) -> str:
        """What it is called everywhere; distinct in what `gather` gives."""
        return self.result.name


def gather(folders: Sequence[Path]) -> list[Exhibit]:
    """The exhibits of all folders, in order.

    Raises:
        InputError: a folder is neither a run nor a comparison, a file in it is malformed, or no model is in any.
    """
    found: list[tuple[Path, Exhibit]] = []
    for folder in folders:
        if results.is_comparison(folder):
            found += [(folder, each) for each in of_comparison(results.read(folder), folder)]
        elif folder.is_dir() and not Run.exists(folder):
            raise InputError(f"{folder} is neither a run nor a comparison: it has no {CONFIG} and no {GRID}")
        else:
            found.append((folder, of_run(Run.open(folder))))
    if not found:
        raise InputError("there is nothing to show: the comparison has no models yet")
    return _distinct(found)


def of_comparison(found: Results, folder: Path) -> list[Exhibit]:
    """The models of a comparison whose runs lie in a folder."""
    grid = read_json(path) if (path := inside(folder, GRID)).exists() else {}
    asked = grid.get("seeds")
    wanted = asked if type(asked) is int else max((len(model.seeds) for model in found.models), default=0) or None
    text = Text(found.corpus, found.symbols, found.vocabulary)
    exhibits = []
    for model in found.models:
        runs = tuple(Run.open(inside(folder, seed.run)) for seed in model.seeds)
        steady = [run for run, seed in zip(runs, model.seeds, strict=True) if seed.diverged_after is None]
        records = [metrics.read(run.folder) for run in steady]
        exhibits.append(
            Exhibit(
                result=model,
                text=text,
                runs=runs,
                training=curves.training(records),
                validation=curves.validation(records),
                steps=runs[0].config.train.steps if runs else 0,
                compared=True,
                seeds=wanted,
                confidence=found.confidence,
                note=_note(model, wanted),
            )
        )
    return exhibits


def of_run(run: Run) -> Exhibit:
    """One run, from its config and its metrics; it has no test loss, which `charlstm eval` measures."""
    records, config = metrics.read(run.folder), run.config
    losses = curves.points(records, validation=True)
    best = losses[losses[:, 1].argmin()] if len(losses) else None
    symbols = config.data.batch_size * config.data.seq_length
    seconds, speed = metrics.time_taken(records, symbols)
    last = max((row["step"] for row in records), default=0)
    model = ModelResult(
        name=one_line(run.folder.resolve().name),
        cell=config.model.cell,
        num_layers=config.model.num_layers,
        hidden_size=config.model.hidden_size,
        size=config.model.hidden_size,
        parameters=sizes.parameters(config.model, len(run.vocabulary)),
        learning_rate=config.optimizer.learning_rate,
        operations=float(sizes.training(config.model, len(run.vocabulary)) * symbols * config.train.steps),
        seconds=seconds,
        chars_per_second=speed,
        validation=None if best is None else Interval(mean=float(best[1]), n=1),
        seeds=(SeedResult(seed=config.seed, run=str(run.folder)),),
    )
    return Exhibit(
        result=model,
        text=Text(one_line(config.data.corpus), config.data.symbols, len(run.vocabulary)),
        runs=(run,),
        training=curves.training([records]),
        validation=curves.validation([records]),
        steps=config.train.steps,
        compared=False,
        note="" if last >= config.train.steps else f"step {last:,} of {config.train.steps:,}",
    )


def _note(model: ModelResult, wanted: int | None) -> str:
    done = len(model.seeds)
    if wanted is None:
        return "" if done else "no seed is finished"
    return f"{done} of {wanted} seeds finished" if done < wanted else ""


def _distinct(found: Sequence[tuple[Path, Exhibit]]) -> list[Exhibit]:
    """Exhibits by names that differ: with the folder where a name comes twice, and a number where that does too."""
    often = Counter(exhibit.name for _, exhibit in found)
    seen: Counter[str] = Counter()
    exhibits = []
    for folder, exhibit in found:
        name = exhibit.name
        if often[name] > 1:
            name = one_line(folder / name if exhibit.compared else folder)
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name} ({seen[name]})"
        exhibits.append(replace(exhibit, result=replace(exhibit.result, name=name)))
    return exhibits
