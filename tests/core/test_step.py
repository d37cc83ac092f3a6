"""One update: what it reads, what it hands on, and that the same state and text give the same bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from reference import CELLS, assert_trees_close, assert_trees_equal

from charlstm.config import Cell, DataConfig, Experiment, ModelConfig, OptimizerConfig, TrainConfig
from charlstm.core.loss import nats
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.step import Options, TrainState, init_state, make_train_step, make_update
from charlstm.data.windows import Window, WindowedText

V, B, T = 7, 2, 5
TEXT = WindowedText(np.random.default_rng(0).integers(V, size=3 * B * T + 1), B, T)


def experiment(dropout: float, grad_clip: float = 0.01) -> Experiment:
    return Experiment(
        seed=3,
        data=DataConfig(batch_size=B, seq_length=T),
        model=ModelConfig(hidden_size=6, num_layers=2, dropout=dropout),
        optimizer=OptimizerConfig(warmup_steps=3, grad_clip=grad_clip),
        train=TrainConfig(steps=20),
    )


CONFIG, DROPPING = experiment(dropout=0.0), experiment(dropout=0.5)
MODEL, DROPPING_MODEL = Model(CONFIG.model, V), Model(DROPPING.model, V)


def first_state(config: Experiment, model: Model) -> TrainState:
    tx = make_optimizer(config.optimizer, config.train.steps)
    return init_state(model, tx, config.data.batch_size, config.seed)


def step_of(config: Experiment, model: Model) -> Any:
    schedule = learning_rate(config.optimizer, config.train.steps)
    return make_train_step(model, make_optimizer(config.optimizer, config.train.steps), schedule=schedule)


@pytest.fixture(scope="module")
def steps() -> Any:
    """Compiled once: (without dropout, with dropout)."""
    return step_of(CONFIG, MODEL), step_of(DROPPING, DROPPING_MODEL)


def copied(state: TrainState) -> TrainState:
    """A state that outlives the donation of the other."""
    return jax.tree.map(jnp.copy, state)


def run(step: Any, state: TrainState, windows: int) -> TrainState:
    for _ in range(windows):
        state, _ = step(state, TEXT.window(int(state.cursor)))
    return state


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_overfits_one_window(cell: Cell):
    config = Experiment(
        data=DataConfig(batch_size=1, seq_length=16),
        model=ModelConfig(cell=cell, hidden_size=24),
        optimizer=OptimizerConfig(learning_rate=0.02, schedule="constant", warmup_steps=5),
        train=TrainConfig(steps=300),
    )
    model = Model(config.model, V)
    state, step = first_state(config, model), step_of(config, model)
    window = WindowedText(np.random.default_rng(1).integers(V, size=17), 1, 16).window(0)
    losses = []
    for _ in range(config.train.steps):
        state, metrics = step(state, window)
        losses.append(float(metrics.loss))
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


def test_the_carry_crosses_windows_and_is_zero_where_an_epoch_starts(steps: Any):
    state, carry = first_state(CONFIG, MODEL), MODEL.zero_carry(B)
    assert TEXT.windows_per_epoch == 3
    for cursor in range(5):
        window = TEXT.window(cursor)
        assert bool(window.starts_epoch) == (cursor in (0, 3))
        if cursor == 3:
            carry = MODEL.zero_carry(B)
        params = jax.tree.map(np.asarray, state.params)
        logits, carry = reference.forward(MODEL, params, window.inputs, carry)
        state, metrics = steps[0](state, window)
        assert (int(state.step), int(state.cursor)) == (cursor + 1, cursor + 1)
        assert_trees_close(list(state.carry), carry, 1e-5)
        # The loss is that of the parameters before the update.
        assert float(metrics.loss) == pytest.approx(reference.nats(logits, window.targets).mean(), rel=1e-5)


def test_metrics_are_the_norm_before_clipping_and_the_rate_of_this_update(steps: Any):
    state, window = first_state(CONFIG, MODEL), TEXT.window(0)

    @jax.jit
    def gradient(params: Any) -> Any:
        logits, _ = MODEL.apply(params, jnp.asarray(window.inputs), MODEL.zero_carry(B))
        return nats(logits, jnp.asarray(window.targets)).mean()

    norm = float(optax.tree.norm(jax.jit(jax.grad(gradient))(state.params)))
    schedule = learning_rate(CONFIG.optimizer, CONFIG.train.steps)
    for number in range(5):
        before = jax.tree.map(np.asarray, state.params)
        state, metrics = steps[0](state, window)
        if number == 0:
            assert float(metrics.grad_norm) == pytest.approx(norm, rel=1e-4)
            assert norm > CONFIG.optimizer.grad_clip
        rate = float(np.asarray(schedule(number)))
        assert float(metrics.learning_rate) == pytest.approx(rate, rel=1e-6)
        # Adam's first step is the rate in every parameter with a gradient; later ones are near it.
        moved = max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, state.params)), strict=True))
        assert moved == pytest.approx(rate, rel=1e-2 if number == 0 else 0.5)


def test_the_state_is_donated(steps: Any):
    state = first_state(CONFIG, MODEL)
    after, _ = steps[0](state, TEXT.window(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.optimizer, state.carry)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after.params, after.optimizer, after.carry)))


def test_the_same_config_gives_the_same_bits(steps: Any):
    one = run(steps[1], first_state(DROPPING, DROPPING_MODEL), 7)
    assert_trees_equal(run(steps[1], first_state(DROPPING, DROPPING_MODEL), 7), one)


def test_a_state_that_was_put_aside_goes_on_with_the_same_bits(steps: Any):
    state = run(steps[1], first_state(DROPPING, DROPPING_MODEL), 4)
    aside = copied(state)
    assert_trees_equal(run(steps[1], aside, 4), run(steps[1], state, 4))


def test_every_step_draws_dropout_masks_of_its_own(steps: Any):
    state, window = first_state(DROPPING, DROPPING_MODEL), TEXT.window(0)

    def loss(number: int, step: Any, at: Window = window) -> float:
        return float(step(copied(state)._replace(step=jnp.int32(number)), at)[1].loss)

    assert len({loss(number, steps[1]) for number in range(5)}) == 5
    assert loss(1, steps[1]) == loss(1, steps[1])
    assert len({loss(number, steps[0]) for number in range(5)}) == 1


def test_averaged_parameters_follow_those_that_updates_change(steps: Any):
    tx = make_optimizer(CONFIG.optimizer, CONFIG.train.steps)
    state, plain = init_state(MODEL, tx, B, CONFIG.seed, average=True), first_state(CONFIG, MODEL)
    step, wanted = make_train_step(MODEL, tx, average=0.8), jax.tree.map(np.asarray, plain.params)
    for number in range(40):
        window = TEXT.window(number)
        (state, _), (plain, _) = step(state, window), steps[0](plain, window)
        decay = min(0.8, (1 + number) / (10 + number))
        wanted = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * np.float64(new), wanted, plain.params)
        assert_trees_close(state.params, wanted, 1e-6)
    assert_trees_equal(state.iterate, plain.params)
    assert_trees_equal(state.optimizer, plain.optimizer)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("how", [{"accumulate": 2}, {"accumulate": 4}, {"deterministic_sums": True}])
def test_rows_in_groups_are_one_update(cell: Cell, how: dict[str, Any]):
    """Of parameters, carry and loss, from a carry and with resets that are not zero."""
    model, tx = Model(ModelConfig(cell=cell, hidden_size=6, num_layers=2), V), optax.sgd(0.5)
    text = WindowedText(np.random.default_rng(0).integers(V, size=4 * 3 * T + 1), 4, T, newline=2)
    states = []
    for step in (make_train_step(model, tx), make_train_step(model, tx, **how)):
        state = init_state(model, tx, 4, 0)
        for number in range(5):
            state, metrics = step(state, text.window(number))
        states.append((state.params, state.carry, metrics.loss, metrics.grad_norm))  # pyright: ignore[reportPossiblyUnboundVariable]
    assert_trees_close(states[1], states[0], 1e-6)


def test_groups_of_rows_draw_masks_of_their_own():
    model, tx = Model(ModelConfig(hidden_size=64, dropout=0.5, dropout_mask="window"), V), optax.sgd(1.0)
    state, step = init_state(model, tx, 2, 0), make_train_step(model, tx, accumulate=2)
    same = TEXT.window(0)
    window = Window(np.repeat(same.inputs[:1], 2, 0), np.repeat(same.targets[:1], 2, 0), same.starts_epoch)
    state, _ = step(state, window)
    hidden = np.asarray(state.carry[0][1])
    assert_trees_close(hidden[0], hidden[1], 1e-6)  # what a layer hands on is not dropped
    head = np.asarray(state.params["head"]["kernel"] - init_state(model, tx, 2, 0).params["head"]["kernel"])
    assert np.mean(np.abs(head).max(1) == 0) == pytest.approx(0.25, abs=0.15)  # dropped in both groups


def test_rows_in_groups_take_the_memory_of_one():
    model, tx = Model(ModelConfig(hidden_size=32, num_layers=2, recurrence="fast"), V), optax.sgd(0.5)
    window = WindowedText(np.random.default_rng(0).integers(V, size=16 * 64 + 1), 16, 64).window(0)
    state = jax.eval_shape(lambda: init_state(model, tx, 16, 0))

    def temporaries(groups: int) -> int:
        update = jax.jit(make_update(model, tx, options=Options(accumulate=groups)))
        found: Any = update.lower(state, window).compile().memory_analysis()
        return found.temp_size_in_bytes

    assert temporaries(8) < 0.3 * temporaries(1)
