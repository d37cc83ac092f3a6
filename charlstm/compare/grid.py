"""The models that a grid compares, each with the config of its runs."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from charlstm.config import Experiment, Grid
from charlstm.core.size import count_parameters, match_parameters
from charlstm.runs.config_file import continued
from charlstm.support.errors import InputError
from charlstm.support.schema import sentence

LENGTH = ("steps", "validate_every")
"""Fields of `train` that decide how long a run is, and at which step it may be best."""


@dataclass(frozen=True)
class GridModel:
    """A model of a grid. Its runs differ in their seeds alone."""

    name: str
    """Such as ``lstm-2x84``: two layers of 84 units."""
    size: int
    """Of the grid's sizes, the one that it belongs to."""
    config: Experiment
    """The config of its first run."""
    parameters: int
    published: float | None
    """A test loss that others report, in nats per character."""
    baseline: str | None = None
    """The name of the model that it is compared with; None for that model itself, or where the grid has none."""

    def run(self, number: int) -> Experiment:
        """The config of one of its runs, which are counted from 0."""
        return replace(self.config, seed=self.config.seed + number)

    def folder(self, number: int) -> str:
        """Where that run lies in the comparison's folder, such as ``lstm-2x84/seed-0``."""
        return f"{self.name}/seed-{self.config.seed + number}"


def grid_models(grid: Grid, vocabulary_size: int) -> list[GridModel]:
    """The models of a grid, size by size, cell by cell; InputError where two are the same, or one is impossible."""
    found: list[GridModel] = []
    try:
        for size in grid.sizes:
            axes = itertools.product(grid.cells, grid.layers)
            ours = {(cell, layers): _model(grid, size, cell, layers, vocabulary_size) for cell, layers in axes}
            base = ours.get((grid.baseline_cell, grid.baseline_layers))
            found += [each if each is base else replace(each, baseline=base and base.name) for each in ours.values()]
    except ValidationError as error:
        raise InputError(sentence(error)) from None
    if len({each.name for each in found}) < len(found):
        names = ", ".join(each.name for each in found)
        raise InputError(f"two models of the grid are the same, of {names}; sizes must lie further apart")
    return found


def _model(grid: Grid, size: int, cell: str, layers: int, vocabulary_size: int) -> GridModel:
    base = grid.base
    model = replace(base.model, cell=cell, num_layers=layers, hidden_size=size)
    if grid.match_parameters:
        wanted = count_parameters(replace(base.model, cell="lstm", num_layers=1, hidden_size=size), vocabulary_size)
        model = match_parameters(model, vocabulary_size, wanted)
    rate = grid.learning_rates.get(cell, base.optimizer.learning_rate)
    published = {(each.cell, each.num_layers, each.size): each.test for each in grid.published}
    return GridModel(
        name=f"{cell}-{layers}x{model.hidden_size}",
        size=size,
        config=replace(base, model=model, optimizer=replace(base.optimizer, learning_rate=rate)),
        parameters=count_parameters(model, vocabulary_size),
        published=published.get((cell, layers, size)),
    )


def check_same_grid(old: Grid, new: Grid, vocabulary_size: int, begun: Callable[[GridModel, int], bool]) -> None:
    """Raises InputError unless `new` has every run of `old` that was `begun`, by its number, with the same config."""
    before, after = ({each.name: each for each in grid_models(grid, vocabulary_size)} for grid in (old, new))
    for name, model in before.items():
        runs = [number for number in range(old.seeds) if begun(model, number)]
        if not runs:
            continue
        if name not in after:
            raise InputError(f"the comparison began with {name} too, which this grid lacks; use another --run-dir")
        continued(model.config, after[name].config)
        for field in LENGTH:
            if getattr(model.config.train, field) != getattr(after[name].config.train, field):
                what = f"train.{field} cannot change in a comparison that has begun"
                raise InputError(f"{what}; use another --run-dir")
        if max(runs) >= new.seeds:
            raise InputError(
                f"the comparison began {max(runs) + 1} seeds of {name}, not {new.seeds}; use another --run-dir"
            )
