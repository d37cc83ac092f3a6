"""What a run began from, what may change when it continues, and what its config.json keeps of both."""

from dataclasses import fields, replace
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from charlstm.config import MOST, Experiment, OptimizerConfig, SampleConfig
from charlstm.support.errors import InputError
from charlstm.support.files import one_line
from charlstm.support.schema import STRICT, Flag, Number, Text, Whole, flat

_FREE = {
    "data.corpus",  # whoever reads the text compares its SHA-256
    "model.recurrence",  # all loops compute the same values
    *("train.steps", "train.patience", "train.validate_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.sample_every", "train.tensorboard"),
    *(f"sample.{each.name}" for each in fields(SampleConfig)),
}
"""No update depends on these; on the steps, those of a schedule do, as ever."""
_ALLOWED = {
    *("model.dropout", "model.dropout_mask", "model.remat", "model.dtype"),
    *(f"optimizer.{each.name}" for each in fields(OptimizerConfig)),
}
"""The updates to come depend on these. All others are part of the state, or of what was read."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Change:
    """A field of a run that has another value from a step on."""

    step: Annotated[Whole, Field(ge=0, le=MOST)]
    """How many updates were made with the value before."""
    field: Text
    was: Flag | Whole | Number | Text
    now: Flag | Whole | Number | Text

    def __str__(self) -> str:
        return one_line(f"{self.field} was {self.was!r} up to step {self.step:,}, and is {self.now!r}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Origin:
    """The run whose parameters another began with."""

    run: Text
    """Its folder, absolute."""
    step: Annotated[Whole, Field(ge=0, le=MOST)]
    sha256: Text
    """Of the parameters."""

    def __str__(self) -> str:
        return one_line(f"began with the parameters of {self.run} after step {self.step:,}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Story:
    """Where a run comes from, and its changes in order; the keys of a config.json beside the config's own."""

    init_from: Origin | None = None
    changes: tuple[Change, ...] = ()


def continued(old: Experiment, new: Experiment, step: int = 0, *, allow_change: bool = False) -> Experiment:
    """The config with which a run of `old` goes on as `new` after `step`; a time loop of "auto" leaves it its own.

    Raises InputError for fewer steps than that, for what cannot change, and, unless allowed, for what changes updates.
    """
    if old.model.recurrence != "auto" == new.model.recurrence:
        new = replace(new, model=replace(new.model, recurrence=old.model.recurrence))
    changed = {name: (was, now) for name, was, now in _differences(old, new) if name not in _FREE}
    fixed = [name for name in changed if name not in _ALLOWED]
    if 0 in changed.get("optimizer.weight_decay", ()):
        fixed.append("optimizer.weight_decay")  # without it, the optimizer's state has another form
    told = ", ".join(f"{name} was {changed[name][0]!r} and is {changed[name][1]!r}" for name in fixed or changed)
    if fixed:
        what = f"the run began with another config: {one_line(told, 2000)}"
        raise InputError(f"{what}; this cannot change once a run has begun, so use another --run-dir")
    if changed and not allow_change:
        what = f"the run began with another config: {one_line(told, 2000)}"
        raise InputError(f"{what}; --allow-change goes on so and records it, or use another --run-dir")
    if new.train.steps < step:
        what = f"train.steps was {old.train.steps} and is {new.train.steps}, and the run stands at step {step}"
        raise InputError(f"{what}; {step} ends it there, or use another --run-dir")
    return new


def changes(old: Experiment, new: Experiment, step: int) -> tuple[Change, ...]:
    """What a run that goes on as `new` after `step` records: what updates depend on, or how many more there are."""
    recorded = _ALLOWED | ({"train.steps"} if new.train.steps > step else set())
    return tuple(
        Change(step=step, field=name, was=was, now=now) for name, was, now in _differences(old, new) if name in recorded
    )


def _differences(old: Experiment, new: Experiment) -> list[tuple[str, Any, Any]]:
    after = flat(new)
    return [(name, was, after[name]) for name, was in flat(old).items() if was != after[name]]
