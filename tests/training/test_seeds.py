"""Seeds that train together: each is to the bit what it is alone, in one compiled program."""

import logging
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import CELLS, assert_trees_equal

from charlstm.config import Cell, DataConfig, Experiment, ModelConfig, OptimizerConfig, TrainConfig
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.step import TrainState, initial_state, make_train_step, state_layout, window_layout
from charlstm.data.windows import Batches
from charlstm.training.seeds import LONGEST_CHUNK, Together, chunk_of, keep_better, unstacked

pytestmark = pytest.mark.slow

V, B, T = 11, 6, 8
BATCHES = Batches(np.random.default_rng(0).integers(V, size=3 * B * T + 1), B, T)


def configs(cell: Cell, seeds: int) -> tuple[Experiment, ...]:
    config = Experiment(
        data=DataConfig(batch_size=B, seq_length=T),
        model=ModelConfig(cell=cell, hidden_size=5, num_layers=2, dropout=0.25),
        optimizer=OptimizerConfig(warmup_steps=2),
        train=TrainConfig(steps=20, validate_every=4, checkpoint_every=0),
    )
    return tuple(replace(config, seed=seed) for seed in range(3, 3 + seeds))


def trained_together(together: Together, chunks: int) -> tuple[TrainState, Any]:
    states, steps, metrics = together.put(together.initial()), together.make_steps(), None
    for number in range(chunks):
        states, metrics = steps(states, together.windows(BATCHES, number * together.chunk))
    return states, metrics


def trained_alone(config: Experiment, steps: int, layout: Layout) -> tuple[TrainState, Any]:
    model = Model(config.model, V)
    state, metrics = jax.device_put(initial_state(config, model), state_layout(layout)), None
    step = make_train_step(config, model, layout)
    for cursor in range(steps):
        state, metrics = step(state, jax.device_put(BATCHES.window(cursor), window_layout(layout)))
    return state, metrics


def bits(state: TrainState) -> Any:
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def assert_each_is_as_alone(together: Together) -> None:
    """A run alone must have as many devices: one of its own, where devices share the seeds."""
    states, metrics = trained_together(together, 3)
    layout = Layout.of(1) if together.share_seeds else together.layout
    ours = unstacked(states, len(together.configs))
    for number, config in enumerate(together.configs):
        state, last = trained_alone(config, 3 * together.chunk, layout)
        assert_trees_equal(bits(ours[number]), bits(state))
        assert float(metrics.loss[number, -1]) == float(last.loss)
        assert float(metrics.grad_norm[number, -1]) == float(last.grad_norm)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seeds", [1, 3])
def test_each_seed_is_to_the_bit_what_it_is_alone(cell: Cell, seeds: int) -> None:
    """On a CPU; `test_sharding` says so of eight devices."""
    assert_each_is_as_alone(Together(configs(cell, seeds), V))


def test_a_model_compiles_one_training_program_for_all_its_seeds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        trained_together(Together(configs("gru", 5), V), 3)
    compiled = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert sum("train_seeds" in message for message in compiled) == 1, compiled


def test_a_seed_that_diverges_leaves_the_others_as_they_are() -> None:
    together = Together(configs("rnn", 3), V)
    whole, _ = trained_together(together, 2)
    states = together.initial()
    broken = jax.tree.map(lambda part: part.at[1].set(np.nan), states.params)
    states, steps, metrics = together.put(states._replace(params=broken)), together.make_steps(), None
    for number in range(2):
        states, metrics = steps(states, together.windows(BATCHES, number * together.chunk))
    assert metrics is not None
    assert np.isnan(metrics.loss[1]).all()
    ours, theirs = unstacked(states, 3), unstacked(whole, 3)
    for number in (0, 2):
        assert_trees_equal(bits(ours[number]), bits(theirs[number]))


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_nothing_is_due_inside_of_a_chunk(steps: int, validate: int, save: int, sample: int) -> None:
    chunk = chunk_of(TrainConfig(steps=steps, validate_every=validate, checkpoint_every=save, sample_every=sample))
    assert 1 <= chunk <= LONGEST_CHUNK
    assert all(every % chunk == 0 for every in (steps, validate, save, sample))


def test_the_better_state_of_each_seed_is_kept() -> None:
    together = Together(configs("lstm", 3), V)
    first = unstacked(together.initial(), 3)
    states, _ = trained_together(together, 1)
    best = keep_better(together.put(together.initial()), states, np.arange(together.stacked) == 1)
    chosen, now = unstacked(best, 3), unstacked(states, 3)
    assert_trees_equal(bits(chosen[1]), bits(now[1]))
    for number in (0, 2):
        assert_trees_equal(bits(chosen[number]), bits(first[number]))
