"""The models of a grid, their widths, and what a grid that has begun can become."""

import json
from dataclasses import replace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reference import CELLS

from charlstm.compare.grid import check_same_grid, grid_models
from charlstm.config import Axes, Experiment, Grid, ModelConfig, OptimizerConfig, Published, TrainConfig
from charlstm.core.network import Model
from charlstm.core.size import count_operations, count_parameters, match_parameters
from charlstm.support.errors import InputError
from charlstm.support.files import parse_json
from charlstm.support.schema import from_dict, sentence, to_dict

V = 87
MATCHED = Grid(sizes=(64, 128), match_parameters=True, seeds=2)


@pytest.mark.slow
@given(st.sampled_from(CELLS), st.integers(1, 4), st.integers(1, 40), st.integers(1, 60))
def test_parameters_are_those_of_the_model(cell: str, layers: int, hidden: int, vocabulary: int) -> None:
    config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    forms = jax.eval_shape(Model(config, vocabulary).init, jax.random.key(0))
    assert count_parameters(config, vocabulary) == sum(leaf.size for leaf in jax.tree.leaves(forms))


@given(st.sampled_from(CELLS), st.integers(1, 4), st.integers(1, 200), st.integers(1, 60_000))
def test_no_other_width_is_nearer(cell: str, layers: int, vocabulary: int, wanted: int) -> None:
    config = ModelConfig(cell=cell, num_layers=layers)
    found = match_parameters(config, vocabulary, wanted).hidden_size
    distances = [
        abs(count_parameters(replace(config, hidden_size=width), vocabulary) - wanted)
        for width in range(max(found - 2, 1), found + 3)
    ]
    assert abs(count_parameters(replace(config, hidden_size=found), vocabulary) - wanted) == min(distances)


def test_operations_are_those_that_xla_counts() -> None:
    """A step of an rnn, whose products XLA counts; of the rest it counts a few operations for each unit."""
    config = ModelConfig(cell="rnn", hidden_size=64, num_layers=2, recurrence="fast")
    model = Model(config, V)

    def read(params, ids):
        return model.apply(params, ids, model.zero_carry(1))

    forms = jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((1, 1), "int32")
    cost = jax.jit(read).lower(*forms).cost_analysis()
    assert cost is not None
    counted = cost["flops"]
    assert count_operations(config, V) <= counted <= 1.1 * count_operations(config, V)


def test_matched_models_are_as_large_as_the_lstm_of_one_layer() -> None:
    found = grid_models(MATCHED, V)
    assert len({each.name for each in found}) == len(found) == 18
    for size, expected in ((64, 44_567), (128, 121_815)):  # counted by hand: 4·H·(V + H + 1) + (H + 1)·V
        ours = [each for each in found if each.size == size]
        assert {each.baseline for each in ours} == {None, ours[0].name}
        assert next(each for each in ours if each.name == f"lstm-1x{size}").parameters == expected
        assert all(abs(each.parameters / expected - 1) < 0.02 for each in ours)


def test_runs_of_a_model_differ_in_their_seeds_alone() -> None:
    each = grid_models(replace(MATCHED, base=Experiment(seed=7)), V)[0]
    assert [each.run(number).seed for number in range(3)] == [7, 8, 9]
    assert {replace(each.run(number), seed=0) for number in range(3)} == {replace(each.config, seed=0)}


def test_each_cell_has_its_learning_rate() -> None:
    grid = Grid(cells=("lstm", "gru", "rnn"), learning_rates={"lstm": 0.01, "rnn": 0.001}, layers=(1,))
    assert [each.config.optimizer.learning_rate for each in grid_models(grid, V)] == [0.01, 0.006, 0.001]


def test_published_losses_stand_beside_their_models() -> None:
    found = grid_models(replace(MATCHED, published=(Published(cell="gru", num_layers=2, size=64, test=1.373),)), V)
    assert [(each.name, each.published) for each in found if each.published] == [("gru-2x53", 1.373)]


def test_a_grid_without_its_baseline_compares_with_none() -> None:
    assert all(each.baseline is None for each in grid_models(Grid(cells=("lstm",)), V))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (Grid(sizes=(4, 5), match_parameters=True), "two models of the grid are the same"),
        (Grid(sizes=(2**16,), cells=("rnn",), match_parameters=True), "hidden_size is .*; it must be at most 65536"),
        (Grid(cells=("lsmt",)), "did you mean lstm"),
        (Grid(base=Experiment(model=ModelConfig(recurrence="cudnn"))), "cuDNN's is for lstm in float32"),
    ],
)
def test_models_that_are_impossible_or_the_same_are_an_input_error(grid: Grid, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid_models(grid, V)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": ()}, "cells is (); it must not be empty"),
        ({"cells": ("lstm", "lstm")}, "cells is ('lstm', 'lstm'); it must have no value twice"),
        ({"layers": (0,)}, "layers[0] is 0; it must be at least 1"),
        ({"sizes": (1.5,)}, "sizes[0] is 1.5; it must be a whole number"),
        ({"sizes": 3}, "sizes is 3; it must be a list"),
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"learning_rates": {"gru": 0}}, "learning_rates.gru is 0; it must be above 0"),
        ({"gru_learning_rate": -1.0}, "learning_rates.gru is -1.0; it must be above 0"),
        ({"gru_learning_rate": 10**400}, "it must be a finite number"),
        ({"layers": range(1, 51), "sizes": range(1, 8)}, "make 1,050 models; they must make at most 1,000"),
        ({"base": Experiment(seed=2**32 - 2)}, "seed + seeds - 1 is 4294967298; it must be below 2**32"),
    ],
)
def test_an_impossible_grid_is_a_validation_error(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Grid(**fields)
    assert message in sentence(error.value, Grid)


def test_a_grid_comes_back_from_json() -> None:
    grid = replace(MATCHED, published=(Published(cell="gru", num_layers=2, size=64, test=1.373),))
    assert from_dict(parse_json(json.dumps(to_dict(grid))), Grid) == grid
    with pytest.raises(InputError, match=r"published\[0\]\.num_layers is missing"):
        from_dict({"published": [{"cell": "gru"}]}, Grid)


def test_axes_are_a_grid_without_its_base() -> None:
    assert Grid(**vars(Axes(seeds=3))).seeds == 3


RATES = st.sampled_from([0, 0.0, 0.01, 1]) | st.floats(1e-300, 3e38)


@given(st.dictionaries(st.sampled_from(CELLS), RATES))
def test_a_grid_with_a_field_for_each_cell_s_rate_reads_as_one_with_learning_rates(rates: dict[str, float]) -> None:
    old: dict = {f"{cell}_learning_rate": rate for cell, rate in rates.items()}
    new = Grid(learning_rates={cell: rate for cell, rate in rates.items() if rate})
    assert Grid(**old) == from_dict(parse_json(json.dumps(old)), Grid) == new
    assert not any(name.endswith("_learning_rate") for name in to_dict(new))


@pytest.mark.parametrize("larger", [{"cells": ("rnn", "gru")}, {"layers": (1, 2)}, {"sizes": (8, 16)}, {"seeds": 3}])
def test_a_grid_may_grow_and_not_shrink(larger: dict) -> None:
    small = Grid(cells=("rnn",), layers=(1,), sizes=(8,), seeds=2)
    grown = replace(small, **larger)
    check_same_grid(small, grown, V, lambda model, number: True)
    with pytest.raises(InputError, match="use another --run-dir"):
        check_same_grid(grown, small, V, lambda model, number: True)
    check_same_grid(grown, small, V, lambda model, number: False)  # none of its runs was begun


@pytest.mark.parametrize(
    "base",
    [
        Experiment(seed=1),
        Experiment(train=TrainConfig(steps=2000)),
        Experiment(optimizer=OptimizerConfig(grad_clip=2.0)),  # which --allow-change would allow a run of its own
    ],
)
def test_another_base_is_refused(base: Experiment) -> None:
    with pytest.raises(InputError, match=r"cannot change .* use another --run-dir"):
        check_same_grid(Grid(), replace(Grid(), base=base), V, lambda model, number: True)
