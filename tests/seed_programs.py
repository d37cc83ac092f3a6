"""Seeds that train in one program, each compared to the bit with a run of its own."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from reference import assert_trees_equal

from charlstm.config import Cell, DataConfig, Experiment, Method, ModelConfig, OptimizerConfig, TrainConfig
from charlstm.core.loss import mean_nats
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.step import TrainState, init_state
from charlstm.data.windows import Window, WindowedText
from charlstm.training.seeds import OneRun, Program, SeedProgram, chunk_of

V, B, T = 11, 6, 8
WINDOWS = WindowedText(np.random.default_rng(0).integers(V, size=3 * B * T + 1), B, T)
CONFIG = Experiment(
    data=DataConfig(batch_size=B, seq_length=T),
    model=ModelConfig(hidden_size=5, num_layers=2, dropout=0.25),
    optimizer=OptimizerConfig(warmup_steps=2),
    train=TrainConfig(steps=20, validate_every=4, checkpoint_every=0),
)


def seed_program(cell: Cell, runs: int, method: Method = "adam") -> SeedProgram:
    """The program with which a comparison trains so many seeds of a small model."""
    optimizer, steps = replace(CONFIG.optimizer, method=method), CONFIG.train.steps
    return SeedProgram(
        model=Model(replace(CONFIG.model, cell=cell), V),
        tx=make_optimizer(optimizer, steps),
        schedule=learning_rate(optimizer, steps),
        runs=runs,
        chunk=chunk_of(CONFIG.train),
    )


def first_states(program: SeedProgram) -> list[TrainState]:
    """Of each run, before its first update."""
    return [init_state(program.model, program.tx, B, seed) for seed in range(3, 3 + program.runs)]


def trained(program: Program, states: Sequence[TrainState], calls: int) -> tuple[list[TrainState], Any]:
    """The states after so many calls from the start of the text on, and the metrics of the last."""
    now, metrics, windows = program.put(states), None, windows_of(program)
    for window in itertools.islice(windows, calls):
        now, metrics = program.update(now, window)
    return program.take(now), metrics


def windows_of(program: Program) -> Iterator[Window]:
    stream = WINDOWS.windows(0)
    return iter(lambda: program.put_windows(stream), None)


def assert_each_is_as_alone(program: SeedProgram) -> None:
    """A run alone must have one device, too."""
    ours, metrics = trained(program, first_states(program), 3)
    alone = OneRun(program.model, program.tx, Layout.of(1), mean_nats, program.schedule)
    for run, state in enumerate(first_states(program)):
        (wanted,), last = trained(alone, [state], 3 * program.chunk)
        assert_trees_equal(ours[run], wanted)
        assert float(metrics.loss[run, -1]) == float(last.loss)
        assert float(metrics.grad_norm[run, -1]) == float(last.grad_norm)
