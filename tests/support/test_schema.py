"""Configs and grids come back from JSON as they were, and each wrong value is one line that names its field."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from charlstm.config import (
    CELLS,
    MOST,
    DataConfig,
    Experiment,
    Grid,
    ModelConfig,
    OptimizerConfig,
    Published,
    SampleConfig,
    TrainConfig,
    check_cell,
)
from charlstm.support.errors import InputError
from charlstm.support.files import parse_json
from charlstm.support.schema import flat, from_dict, sentence, to_dict

counts, text = st.integers(1, MOST), st.text(st.characters(exclude_categories=[]))
fractions = st.floats(0, 0.49)
rates = st.floats(1e-300, 3e38) | st.integers(1, 100)
cells = st.sampled_from([*CELLS]) | text
experiments = st.builds(
    Experiment,
    seed=st.integers(0, 2**31),
    data=st.builds(
        DataConfig,
        corpus=text.filter(bool),
        symbols=st.sampled_from(["characters", "bytes"]),
        batch_size=counts,
        seq_length=counts,
        validation_fraction=fractions,
        test_fraction=fractions,
        held_out=st.sampled_from(["end", "rows"]),
    ),
    model=st.builds(
        ModelConfig,
        cell=cells,
        hidden_size=st.integers(1, 2**16),
        num_layers=st.integers(1, 100),
        dropout=fractions,
        forget_bias=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        recurrence=st.sampled_from(["auto", "fast", "plain"]),
        remat=st.booleans(),
    ),
    optimizer=st.builds(OptimizerConfig, learning_rate=rates, warmup_steps=st.integers(0, MOST), b1=fractions),
    train=st.builds(TrainConfig, steps=counts, validate_every=st.integers(0), tensorboard=st.booleans()),
    sample=st.builds(SampleConfig, prime=text, temperature=st.floats(0, 1e300), seed=st.integers(0, 2**32 - 1)),
)
grids = st.builds(
    Grid,
    cells=st.lists(cells, min_size=1, max_size=9, unique=True),
    layers=st.lists(st.integers(1, 100), min_size=1, max_size=9, unique=True),
    sizes=st.lists(st.integers(1, 2**16), min_size=1, max_size=9, unique=True),
    seeds=st.integers(1, 1000),
    learning_rates=st.dictionaries(cells, rates),
    base=experiments,
    published=st.lists(
        st.builds(Published, cell=cells, num_layers=counts, size=counts, test=st.floats(0, 10)), max_size=3
    ),
)


@given(experiments | grids)
def test_what_is_written_as_json_comes_back(config: Any) -> None:
    written = json.dumps(to_dict(config), allow_nan=False)
    read = from_dict(parse_json(written), type(config))
    assert read == config
    assert json.dumps(to_dict(read)) == written
    assert replace(config) == config


@given(experiments)
def test_configs_are_frozen_and_their_hashes_agree(config: Experiment) -> None:
    again = from_dict(to_dict(config), Experiment)
    assert hash(again) == hash(config)
    assert hash(again.model) == hash(config.model)
    with pytest.raises(FrozenInstanceError):
        config.model.hidden_size = 3  # pyright: ignore[reportAttributeAccessIssue]


FIELDS = flat(Experiment())
OUTSIDE = {
    **{name: [0, -1, MOST + 1, 10**30] for name in ("data.batch_size", "data.seq_length", "train.steps")},
    **{name: [-0.1, 1, 1e300] for name in ("data.test_fraction", "optimizer.b1", "optimizer.b2", "optimizer.average")},
    **{f"model.{name}": [-0.1, 1] for name in ("dropout", "recurrent_dropout", "input_dropout", "carry_dropout")},
    "train.accumulate": [0, -1, MOST + 1],
    **{name: [-1, 2**32] for name in ("seed", "sample.seed")},
    **{name: [-1] for name in ("train.validate_every", "train.checkpoint_every", "train.sample_every", "sample.top_n")},
    "train.patience": [-1],
    "model.hidden_size": [0, 2**16 + 1],
    "model.num_layers": [0, 101],
    "optimizer.learning_rate": [0, -1, 1e39, 10**400],
    "optimizer.grad_clip": [0, float("inf"), float("nan")],
    "optimizer.decay_to": [1.1],
    "optimizer.warmup_steps": [-1, MOST + 1],
    "sample.temperature": [-1e-9],
    "train.keep_checkpoints": [0],
    "data.corpus": [""],
}


def nested(name: str, value: Any) -> dict[str, Any]:
    *group, field = name.split(".")
    return {group[0]: {field: value}} if group else {field: value}


def refusal(values: Any) -> str:
    with pytest.raises(InputError) as error:
        from_dict(values, Experiment)
    line = str(error.value)
    assert line.isprintable() and len(line) < 400
    return line


@given(st.sampled_from([(name, value) for name, values in OUTSIDE.items() for value in values]))
def test_a_value_out_of_bounds_is_one_line_that_names_the_dotted_field(case: tuple[str, Any]) -> None:
    name, value = case
    line = refusal(nested(name, value))
    assert line.startswith(f"{name} is ") and "; it must be " in line


CHOICES = {
    "data.symbols",
    "data.documents",
    "data.held_out",
    "model.dropout_mask",
    "model.recurrence",
    "model.dtype",
    "optimizer.method",
    "optimizer.schedule",
}
scalars = st.none() | st.booleans() | st.integers(1, 3) | st.floats(0.1, 0.4) | st.sampled_from(["1", "0.1", "True"])
anything = scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars)


@given(st.sampled_from([*FIELDS]), anything)
def test_a_value_of_another_type_is_never_converted(name: str, value: Any) -> None:
    wanted = type(FIELDS[name])
    assume(type(value) not in ((int, float) if wanted is float else (wanted,)) or name in CHOICES)
    line = refusal(nested(name, value))
    assert line.startswith(f"{name} is ") and "it must be " in line


def test_a_whole_number_is_a_float_where_one_belongs() -> None:
    assert repr(SampleConfig(temperature=2)) == repr(SampleConfig(temperature=2.0))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"model": {"hidden_size": 0}}, "model.hidden_size is 0; it must be at least 1"),
        ({"model": {"hiden_size": 3}}, "there is no field model.hiden_size; did you mean hidden_size?"),
        ({"modle": {}}, "there is no field modle; did you mean model?"),
        ({"model": {"dtype": "float16"}}, "model.dtype is 'float16'; it must be one of float32, bfloat16"),
        ({"model": 3}, "model is 3; it must be an object with fields"),
        ([], "it must be an object with fields"),
        ({"seed": True}, "seed is True; it must be a whole number"),
        ({"data": {"corpus": 3}}, "data.corpus is 3; it must be text"),
        ({"data": {"test_fraction": 0.97}}, "data.validation_fraction + test_fraction is 1.02; it must be below 1"),
        ({"model": {"cell": "gru", "recurrence": "cudnn"}}, "model.recurrence is 'cudnn'; it must be auto, fast or"),
        ({"train": {"accumulate": 5}}, "train.accumulate is 5; it must divide data.batch_size, 32"),
        (
            {"train": {"deterministic_sums": True}, "optimizer": {"method": "muon"}},
            "train.deterministic_sums is True; Muon's updates have no such promise, so use adam",
        ),
    ],
)
def test_a_message_says_what_is_wrong_and_what_to_do(values: Any, line: str) -> None:
    assert refusal(values).startswith(line)


def test_fields_of_a_group_are_named_after_a_prefix() -> None:
    with pytest.raises(ValidationError) as error:
        ModelConfig(num_layers=0)
    assert sentence(error.value, ModelConfig, "model.") == "model.num_layers is 0; it must be at least 1"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"hiden_size": 3}, "there is no field hiden_size; did you mean hidden_size?"),
        ({"cell": "gru", "recurrence": "cudnn"}, "recurrence is 'cudnn'; it must be auto, fast or plain"),
    ],
)
def test_construction_is_checked_like_reading(fields: dict[str, Any], line: str) -> None:
    for make in (ModelConfig, partial(replace, ModelConfig())):
        with pytest.raises(ValidationError) as error:
            make(**fields)
        assert sentence(error.value, ModelConfig).startswith(line)


def test_every_field_has_its_bounds_or_its_choices_tested() -> None:
    unbounded = {"model.cell", "model.forget_bias", "model.remat", "train.tensorboard", "sample.prime"}
    unbounded |= {"data.separator", "data.cache", "train.deterministic_sums"}
    others = {"data.validation_fraction", "optimizer.decay_every", "optimizer.weight_decay", "sample.length"}
    assert set(FIELDS) == {*OUTSIDE, *CHOICES, *unbounded, *others}
    assert all(each.kw_only for each in fields(Experiment))


@pytest.mark.parametrize("name", CELLS)
def test_built_in_cells_are_known(name: str) -> None:
    check_cell(name)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("lsmt", "cell is 'lsmt'; it must be one of rnn, gru, lstm; did you mean lstm?"),
        ("LSTM", "did you mean lstm?"),
        ("mgu", "import the file that calls charlstm.register_cell('mgu', ...) first"),
    ],
)
def test_an_unknown_cell_is_named_with_what_to_do(name: str, line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        check_cell(name)
    assert line in str(error.value)
