"""config.json of a run: its config, what it began from, what changed when it went on, and which versions wrote it."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from charlstm.config import CELLS, MOST, Experiment, OptimizerConfig, SampleConfig
from charlstm.data.dataset import Fingerprint
from charlstm.support.errors import InputError
from charlstm.support.files import one_line, read_json
from charlstm.support.schema import STRICT, Flag, Number, Text, Whole, flat, from_dict

_PACKAGES = ("charlstm", "jax", "flax", "orbax-checkpoint")
WRITTEN_BY = "written_by"
"""The key beside the config's own and those of `Story`: versions by package, those `before` that wrote it up to a step,
`run` (its id), and `program` if a program of its own made it."""
_OF_NO_UPDATE = ("train.", "sample.", "model.recurrence", "data.cache")
"""Beginnings of the names of fields from which no update follows."""
Versions = dict[str, str | int]
_FREE = {
    "data.corpus",  # whoever reads the text compares its SHA-256
    "data.cache",  # where the same ids are read from
    "model.recurrence",  # all loops compute the same values
    *("train.steps", "train.patience", "train.validate_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.sample_every", "train.tensorboard"),
    *(f"sample.{each.name}" for each in fields(SampleConfig)),
}
"""No update depends on these; on the steps, those of a schedule do, as ever."""
_ALLOWED = {
    *("model.dropout", "model.dropout_mask", "model.recurrent_dropout", "model.input_dropout", "model.carry_dropout"),
    *("model.remat", "model.dtype", "train.accumulate", "train.deterministic_sums"),
    *(f"optimizer.{each.name}" for each in fields(OptimizerConfig) if each.name != "method"),
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
        was, now = (f"{each:,}" if type(each) is int else repr(each) for each in (self.was, self.now))
        return one_line(f"{self.field} from {was} to {now} at step {self.step:,}")


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


def continued(
    old: Experiment, new: Experiment, step: int = 0, *, allow_change: bool | None = None, name: str = "the run"
) -> Experiment:
    """The config with which a run of `old` goes on as `new` after `step`; a time loop of "auto" leaves it its own.

    Raises InputError, which has the run's `name`, for fewer steps than that, for what cannot change, and, unless
    allowed, for what changes updates; None says that nobody can allow it, as in a comparison.
    """
    if old.model.recurrence != "auto" == new.model.recurrence:
        new = replace(new, model=replace(new.model, recurrence=old.model.recurrence))
    changed = {name: (was, now) for name, was, now in _differences(old, new) if name not in _FREE}
    fixed = [name for name in changed if name not in _ALLOWED]
    # The state has another form without these.
    fixed += [each for each in ("optimizer.weight_decay", "optimizer.average") if 0 in changed.get(each, ())]
    told = ", ".join(f"{name} was {changed[name][0]!r} and is {changed[name][1]!r}" for name in fixed or changed)
    if fixed or (changed and not allow_change):
        never = "this cannot change once a run has begun, so"
        how = never if fixed or allow_change is None else "--allow-change goes on so and records it, or"
        raise InputError(f"{name} began with another config: {one_line(told, 2000)}; {how} use another --run-dir")
    if new.train.steps < step:
        what = f"{name} has made {step:,} steps, so train.steps cannot be {new.train.steps:,}"
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


class Config(NamedTuple):
    """What a config.json holds."""

    config: Experiment
    program: bool
    id: str
    init_from: Origin | None
    changes: tuple[Change, ...]
    backend: str
    versions: Versions
    before: tuple[Versions, ...]


def read_config(path: Path) -> Config:
    """What is in a config.json; raises InputError, which names the file, where it is missing or malformed."""
    values = read_json(path)
    if not isinstance(written_by := values.pop(WRITTEN_BY, {}), dict):
        raise InputError(f"{path} is malformed: {WRITTEN_BY} must be an object; put back the run's own file")
    told = {each.name: values.pop(each.name) for each in fields(Story) if each.name in values}

    def read(unknown: Literal["forbid", "ignore"]) -> tuple[Experiment, Story]:
        return from_dict(values, Experiment, unknown=unknown), from_dict(told, Story, unknown=unknown)

    try:
        config, story = read("forbid")
    except InputError as error:
        if line := newer(path, written_by):
            raise InputError(f"{line}; upgrade charlstm to read it: {error}") from None
        try:
            read("ignore")
        except InputError:
            raise InputError(f"{path} is malformed: {error}; put back the run's own file") from None
        what = f"{path} has a field that this charlstm lacks, so a newer one may have written it"
        raise InputError(f"{what}; upgrade charlstm to read it: {error}") from None
    if (cell := config.model.cell) not in CELLS:
        call = f"charlstm.register_cell({one_line(repr(cell), 80)}, ...)"
        how = f"import the file that calls {call} first, as in charlstm --import FILE sample RUN"
        raise InputError(f"the cell of {path} is not registered; {how}")
    earlier, id_ = written_by.get("before"), str(written_by.get("run", ""))
    before = tuple(map(_known, earlier if isinstance(earlier, list) else []))
    program = written_by.get("program") is True
    backend = str(written_by.get("backend", ""))
    return Config(config, program, id_, story.init_from, story.changes, backend, _known(written_by), before)


def id_of(config: Experiment, fingerprint: Fingerprint, init_from: Origin | None) -> str:
    """A hash of what a run's first state and its updates follow from, whatever its length and wherever its text is."""
    values = {name: value for name, value in flat(config).items() if not name.startswith(_OF_NO_UPDATE)}
    values |= {"data.corpus": fingerprint.sha256, "init_from": init_from and init_from.sha256}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _known(written_by: object) -> Versions:
    """What is understood of an object with versions, in which a newer charlstm may have more."""
    there = written_by if isinstance(written_by, dict) else {}
    named = {name: value for name in _PACKAGES if isinstance(value := there.get(name), str)}
    return named | ({"step": step} if type(step := there.get("step")) is int else {})


def newer(path: Path, versions: Mapping[str, object]) -> str:
    theirs, ours = (str(each.get("charlstm", "")) for each in (versions, installed()))
    if _release(theirs) <= _release(ours):
        return ""
    return f"{path} was written by charlstm {one_line(theirs, 40)}, newer than this one ({ours})"


def installed() -> Versions:
    found = Versions()
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # charlstm, run from a source tree
            found[package] = version(package)
    return found


def _release(text: str) -> list[int]:
    """The numbers of a version such as 1.2.3, without what comes after them."""
    match = re.match(r"\d{1,9}(\.\d{1,9}){0,3}", text)
    return [int(part) for part in match[0].split(".")] if match else []
