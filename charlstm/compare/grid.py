"""A grid becomes the models that it compares, each with the config of its runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from charlstm.config import Cell, Experiment, Grid
from charlstm.core.size import matched, name_of, parameters
from charlstm.runs.folder import refuse_changes
from charlstm.support.errors import InputError


@dataclass(frozen=True)
class Candidate:
    """A model of the grid. Its runs differ in their seeds alone."""

    name: str
    """Such as ``lstm-2x84``: two layers of 84 units. Its folder's name."""
    size: int
    """Of the grid's sizes, the one that it belongs to."""
    config: Experiment
    """Of its first run."""
    parameters: int
    baseline: str | None
    """The name of the model that it is compared with; None for that model itself, or where the grid has none."""
    published: float | None
    """Test loss from elsewhere, nats per character."""

    def run(self, number: int) -> Experiment:
        """The config of its run of a number, counted from 0."""
        return replace(self.config, seed=self.config.seed + number)


def candidates(grid: Grid, vocabulary_size: int) -> list[Candidate]:
    """The grid's models: size by size, cell by cell, depth by depth.

    Raises:
        InputError: two of them are the same.
    """
    published = {(each.cell, each.num_layers, each.size): each.test for each in grid.published}

    def make(size: int, cell: Cell, layers: int, baseline: str | None) -> Candidate:
        base = grid.base
        model = replace(base.model, cell=cell, num_layers=layers, hidden_size=size)
        if grid.match_parameters:
            wanted = parameters(replace(base.model, cell="lstm", num_layers=1, hidden_size=size), vocabulary_size)
            model = matched(model, vocabulary_size, wanted)
        rate = getattr(grid, f"{cell}_learning_rate") or base.optimizer.learning_rate
        optimizer = replace(base.optimizer, learning_rate=rate)
        name = name_of(model)
        return Candidate(
            name,
            size,
            replace(base, model=model, optimizer=optimizer),
            parameters(model, vocabulary_size),
            baseline if baseline != name else None,
            published.get((cell, layers, size)),
        )

    found: list[Candidate] = []
    for size in grid.sizes:
        has_baseline = grid.baseline_cell in grid.cells and grid.baseline_layers in grid.layers
        baseline = make(size, grid.baseline_cell, grid.baseline_layers, None).name if has_baseline else None
        found += [make(size, cell, layers, baseline) for cell in grid.cells for layers in grid.layers]
    if len({each.name for each in found}) < len(found):
        names = ", ".join(each.name for each in found)
        raise InputError(f"two models of the grid are the same, of {names}; sizes must lie further apart")
    return found


def refuse_other_grid(old: Grid, new: Grid, vocabulary_size: int, begun: Callable[[Candidate, int], bool]) -> None:
    """Raises InputError unless `new` has every run of `old` that was begun, and the same config for it.

    Args:
        old, new: the grids.
        vocabulary_size: V.
        begun: whether a model's run of a number was begun.
    """
    before, after = ({each.name: each for each in candidates(grid, vocabulary_size)} for grid in (old, new))
    for name, candidate in before.items():
        runs = [number for number in range(old.seeds) if begun(candidate, number)]
        if not runs:
            continue
        if name not in after:
            raise InputError(f"the comparison began with {name} too, which this grid lacks; use another --run-dir")
        refuse_changes(candidate.config, after[name].config)
        if candidate.config.train.steps != after[name].config.train.steps:
            raise InputError("train.steps cannot change in a comparison that has begun; use another --run-dir")
        if max(runs) >= new.seeds:
            raise InputError(
                f"the comparison began {max(runs) + 1} seeds of {name}, not {new.seeds}; use another --run-dir"
            )
