"""Seeds that train together: each is to the bit what it is alone, in one compiled program."""

import logging

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import CELLS, assert_trees_equal
from seed_programs import WINDOWS, assert_each_is_as_alone, first_states, seed_program, trained

from charlstm.config import Cell, TrainConfig
from charlstm.training.seeds import LONGEST_CHUNK, chunk_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("seeds", [1, 3])
def test_each_seed_is_to_the_bit_what_it_is_alone(cell: Cell, seeds: int) -> None:
    """On a CPU; `test_sharding` says so of eight devices."""
    assert_each_is_as_alone(seed_program(cell, seeds))


def test_so_it_is_with_muon() -> None:
    assert_each_is_as_alone(seed_program("lstm", 3, "muon"))


def test_a_model_compiles_one_training_program_for_all_its_seeds(caplog: pytest.LogCaptureFixture) -> None:
    program = seed_program("gru", 5)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        trained(program, first_states(program), 3)
    compiled = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert sum("train_seeds" in message for message in compiled) == 1, compiled


def test_a_seed_that_diverges_leaves_the_others_as_they_are() -> None:
    program = seed_program("rnn", 3)
    theirs, _ = trained(program, first_states(program), 2)
    states = first_states(program)
    states[1] = states[1]._replace(params=jax.tree.map(lambda part: part * np.float32(np.nan), states[1].params))
    ours, metrics = trained(program, states, 2)
    assert np.isnan(metrics.loss[1]).all()
    for run in (0, 2):
        assert_trees_equal(ours[run], theirs[run])


def test_the_states_that_are_taken_are_those_that_were_put() -> None:
    """`test_sharding` says so of eight devices, with fillers behind the runs."""
    program = seed_program("lstm", 3)
    assert_trees_equal(program.take(program.put(first_states(program))), first_states(program))


def test_a_call_reads_the_windows_in_their_order_and_none_of_too_few() -> None:
    program = seed_program("lstm", 3)
    stream = WINDOWS.windows(2, program.chunk + 1)
    windows = program.put_windows(stream)
    assert windows is not None
    for at, cursor in enumerate(range(2, 2 + program.chunk)):
        assert_trees_equal(jax.tree.map(lambda part, at=at: part[at], windows), WINDOWS.window(cursor))
    assert program.put_windows(stream) is None


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_nothing_is_due_inside_of_a_chunk(steps: int, validate: int, save: int, sample: int, start: int) -> None:
    config = TrainConfig(steps=steps, validate_every=validate, checkpoint_every=save, sample_every=sample)
    chunk = chunk_of(config, start)
    assert 1 <= chunk <= LONGEST_CHUNK
    assert chunk_of(config, start, 1e11) == 1  # one call is one wait for a signal, and for the lines of its steps
    assert chunk_of(config, start, 1e3) == chunk
    assert all(every % chunk == 0 for every in (steps, validate, save, sample, start))
