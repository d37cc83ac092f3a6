"""Law 7: every character of a text is predicted exactly once, whatever the rows and the windows."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_ids, random_params, small_model, wide_params

import charlstm
from charlstm.analysis import evaluate as module
from charlstm.analysis.evaluate import MAX_ROWS, WARMUP, default_rows, evaluate
from charlstm.analysis.recall import accuracy
from charlstm.cli.experiments import load_grid
from charlstm.config import Cell, ModelConfig, OptimizerConfig
from charlstm.core.network import Model
from charlstm.core.optimizer import make_optimizer
from charlstm.core.step import init_state, make_train_step
from charlstm.data.windows import WindowedText

pytestmark = pytest.mark.slow

by_cell = pytest.mark.parametrize("cell", CELLS)
# Each number of rows is compiled anew, so only a run by hand tries all.
ROWS = range(1, MAX_ROWS + 1) if "CHARLSTM_EVERY_ROW" in os.environ else (7, MAX_ROWS)


@by_cell
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_one_row_equals_numpy_over_the_whole_text(cell: Cell, recurrence: str):
    # Dropout here would move the loss far from the reference, which has none.
    model = small_model(cell, layers=2, dropout=0.5, recurrence=recurrence)
    params, ids = random_params(model, 0), random_ids(model, 0, 150)
    result = evaluate(model, params, ids, rows=1, window=75)
    wanted = reference.text_nats(model, params, ids)
    assert result.characters == 150
    assert result.loss == pytest.approx(wanted.mean(), rel=1e-5)
    assert result.bits_per_char == pytest.approx(wanted.mean() / np.log(2), rel=1e-5)


@by_cell
def test_one_row_does_not_depend_on_the_window(cell: Cell):
    model = small_model(cell)
    params, ids = random_params(model, 1), random_ids(model, 1, 90).astype(np.uint8)
    losses = [evaluate(model, params, ids, rows=1, window=window).loss for window in (1, 45, 1000)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_the_first_character_is_predicted_by_the_bias():
    model = small_model("lstm")
    params = random_params(model, 2)
    for symbol in range(model.vocabulary_size):
        wanted = reference.nats(params["head"]["bias"], np.array(symbol))
        assert evaluate(model, params, np.array([symbol])).loss == pytest.approx(float(wanted), rel=1e-5)


def test_no_characters_have_no_loss():
    result = evaluate(small_model("rnn"), random_params(small_model("rnn"), 0), np.zeros(0, np.int32))
    assert np.isnan(result.loss) and result.characters == 0


@dataclass(frozen=True)
class Bigrams:
    """A model that remembers one character, so that any warm-up is enough and every cut must give the same loss."""

    vocabulary_size: int = 5

    def on(self, layout: Any) -> "Bigrams":
        return self

    def zero_carry(self, batch_size: int) -> Any:
        return (jnp.full((batch_size, 1), 0, jnp.int32),)

    def top(self, carry: Any) -> Any:
        return carry[-1][:, 0]

    def head(self, params: Any, hidden: Any) -> Any:
        """Row 0 is the state before the first character, row 1 + id the state after an id."""
        return jnp.take(params, hidden, axis=0)

    def apply(self, params: Any, ids: Any, carry: Any, resets: None) -> Any:
        return self.head(params, ids + 1), (ids[:, -1:] + 1,)


@settings(max_examples=40)
@given(
    characters=st.integers(1, 30),
    rows=st.sampled_from([1, 2, 3, 7, 64]),
    window=st.sampled_from([1, 4, 64]),
    warmup=st.sampled_from([1, 3, 512]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_cut_counts_every_character_once(characters: int, rows: int, window: int, warmup: int, seed: int):
    rng = np.random.default_rng(seed)
    ids, table = rng.integers(5, size=characters), rng.normal(0, 3, (6, 5)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WARMUP", warmup)
        model: Any = Bigrams()
        result = evaluate(model, table, ids, rows=rows, window=window)
    wanted = reference.nats(table[np.concatenate([[0], ids[:-1] + 1])], ids)
    assert result.characters == characters
    assert result.loss * characters == pytest.approx(wanted.sum(), rel=1e-5, abs=1e-5)


@pytest.fixture(scope="module", params=CELLS)
def trained(request: pytest.FixtureRequest) -> tuple[Model, Any, np.ndarray]:
    """A small model after some training, and a text whose next character hangs on the two before it."""
    rng, ids = np.random.default_rng(0), [0, 1]
    table = rng.dirichlet(np.full(6, 0.3), (6, 6)).cumsum(-1)
    for place in rng.uniform(size=MAX_ROWS * WARMUP):
        ids.append(min(int((table[ids[-2], ids[-1]] < place).sum()), 5))
    text = np.array(ids)
    model = Model(ModelConfig(hidden_size=16, cell=request.param), 6)
    tx = make_optimizer(OptimizerConfig(learning_rate=0.02, warmup_steps=5), 200)
    state, step = init_state(model, tx, batch_size=4), make_train_step(model, tx)
    for window in WindowedText(text, 4, 16).windows(steps=200):
        state, _ = step(state, window)
    return model, jax.tree.map(np.asarray, state.params), text


def test_one_row_of_a_trained_model_equals_numpy_whatever_the_window(trained: tuple[Model, Any, np.ndarray]):
    model, params, text = trained
    part = text[:2000]
    wanted = reference.text_nats(model, params, part).mean()
    assert wanted < 0.85 * np.log(6)
    losses = [evaluate(model, params, part, rows=1, window=window).loss for window in (1, 7, 128, 1000, 2000, 10**6)]
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_any_number_of_rows_agrees_with_one(trained: tuple[Model, Any, np.ndarray]):
    """On a text that is just long enough for the most rows, and on one that is too short for most."""
    model, params, text = trained
    for part in (text, text[:3000]):
        alone = evaluate(model, params, part, rows=1)
        for rows in ROWS:
            together = evaluate(model, params, part, rows=rows)
            assert together.loss == pytest.approx(alone.loss, abs=1e-3)
            assert together.characters == len(part)


@by_cell
def test_no_row_is_shorter_than_its_warm_up(cell: Cell):
    """A random model needs more than a few characters to forget where a row began."""
    model = small_model(cell, hidden=16)
    params, ids = wide_params(model, 3, 3.0), random_ids(model, 3, 1500)
    alone = evaluate(model, params, ids, rows=1).loss
    for rows in (2, 64, 1500):
        assert evaluate(model, params, ids, rows=rows).loss == pytest.approx(alone, abs=1e-3)


def test_a_text_is_cut_only_where_warming_up_is_cheap():
    assert default_rows(1) == default_rows(8 * module.WARMUP - 1) == 1
    assert default_rows(8 * module.WARMUP) == 2
    assert default_rows(10**9) == module.MAX_ROWS


@pytest.mark.slow
def test_warmed_rows_move_the_loss_little_where_a_text_is_remembered_as_far_back_as_the_model_can(tmp_path: Path):
    """A trained LSTM that uses what stands 64 characters back, with the sizes of experiments/recall.py."""
    base = load_grid(Path("experiments/recall.py")).base
    model, train = replace(base.model, cell="lstm", hidden_size=64), replace(base.train, steps=1000)
    config = replace(base, model=model, train=train)
    charlstm.train(config, tmp_path / "run")
    run = charlstm.load_run(tmp_path / "run")
    recalled = accuracy(run.model, run.params, run.vocabulary, (64,)).accuracy
    assert recalled[0] > 0.9
    ids = run.ids("validation")
    assert default_rows(len(ids)) > 8
    assert run.evaluate().loss == pytest.approx(run.evaluate(exact=True).loss, abs=1e-3)
