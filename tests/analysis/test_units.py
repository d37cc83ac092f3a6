"""A unit that follows a feature is found, with its correlation; in an untrained model of any cell none is."""

import sys
from typing import Any

import jax
import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.analysis.inside.activations import Block, activations
from charlstm.analysis.inside.units import ENOUGH, unit_features
from charlstm.config import ModelConfig
from charlstm.core.network import Model
from charlstm.data import corpora, labels
from charlstm.data.vocabulary import Vocabulary

H, N = 16, 4_000
SEEDS = st.integers(0, 2**32 - 1)


def block(hidden: Any, at: Any = None, cell: Any = None) -> Block:
    """A block of hidden states [L, N, H]."""
    at = np.arange(hidden.shape[1]) if at is None else at
    return Block(at, hidden, cell, {}, np.zeros((len(at), 2)), np.zeros(len(at)))


def noise(seed: int, layers: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (layers, N, H)).astype(np.float32)


def switches(seed: int) -> Any:
    """A feature that turns on and off every fifty characters or so."""
    return np.random.default_rng([seed, 1]).random(N).__lt__(0.02).cumsum() % 2


@settings(max_examples=10)
@given(seed=SEEDS, sign=st.sampled_from([-1, 1]), layer=st.integers(0, 1), unit=st.integers(0, H - 1))
def test_a_planted_unit_is_found_and_no_other(seed: int, sign: int, layer: int, unit: int):
    hidden, wanted = noise(seed, 2), switches(seed)
    hidden[layer, :, unit] = sign * (wanted - 0.5) + 0.2 * hidden[layer, :, unit]
    scores = unit_features([block(hidden)], {"planted": wanted})
    assert [(each.layer, each.unit, each.part) for each in scores if each.found] == [(layer, unit, "h")]
    second = slice(N // 2, None)
    correlation = np.corrcoef(hidden[layer, second, unit], wanted[second])[0, 1]
    assert scores[0].score == pytest.approx(correlation, abs=1e-6)
    assert scores[0].score * sign > 0.9


@settings(max_examples=10)
@given(seed=SEEDS)
def test_in_noise_nothing_is_found(seed: int):
    scores = unit_features([block(noise(seed, 2))], {"planted": switches(seed), "other": switches(seed + 1)})
    assert len(scores) == 2 * 2 * H
    assert not any(each.found for each in scores)


def test_a_direction_that_all_units_share_is_no_units_own():
    """Where every unit leans the same way, random directions do too, and no unit stands out."""
    wanted = switches(0)
    hidden = (wanted - 0.5)[None, :, None] + noise(0)
    assert not any(each.found for each in unit_features([block(hidden)], {"planted": wanted}))


def test_blocks_in_any_order_and_a_cell_state():
    hidden, wanted = noise(3), switches(3)
    cell = noise(4)
    cell[0, :, 5] = 3.0 * (wanted - 0.5)
    order = np.random.default_rng(4).permutation(N)
    whole = unit_features([block(hidden, cell=cell)], {"planted": wanted})
    parts = [block(hidden[:, at], at, cell[:, at]) for at in np.split(order, [100, 3_000])]
    for one, other in zip(whole, unit_features(parts, {"planted": wanted}), strict=True):
        assert one[:4] == other[:4] or abs(one.score) < 0.1  # the order of what is hardly there may change
    best = whole[0]
    assert (best.unit, best.part, best.found) == (5, "c", True) and best.score == pytest.approx(1)


def test_a_unit_that_turns_around_and_a_feature_that_hardly_varies_count_for_nothing():
    hidden, wanted = noise(5), switches(5)
    hidden[0, :, 2] = (wanted - 0.5) * np.where(np.arange(N) < N // 2, 1, -1)
    rare = np.zeros(N)
    rare[: ENOUGH - 1] = rare[-ENOUGH:] = 1
    left_open = np.minimum(
        np.arange(N) // 100, 3
    )  # as a brace that is never closed: it says nothing of the second half
    scores = unit_features([block(hidden)], {"planted": wanted, "rare": rare, "left open": left_open})
    assert {each.feature for each in scores} == {"planted"}
    assert next(each.score for each in scores if each.unit == 2) == 0
    assert unit_features([], {}) == unit_features([block(hidden)], {"rare": rare}) == []


def fresh_scores(cell: str, layers: int, width: int, seed: int, text: str) -> Any:
    vocabulary = Vocabulary.of(text)
    model = Model(ModelConfig(cell=cell, hidden_size=width, num_layers=layers), vocabulary.size)
    params = model.init(jax.random.key(seed))
    return unit_features(activations(model, params, vocabulary.encode(text), rows=16), labels.features(text))


@pytest.fixture
def _mgu() -> None:
    sys.path.insert(0, str(REPOSITORY / "experiments"))
    sys.modules.pop("mgu", None)
    import mgu  # noqa: F401  # pyright: ignore[reportMissingImports]


@pytest.mark.slow
@pytest.mark.usefixtures("_mgu")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "mgu"])
def test_an_untrained_model_of_every_cell_shows_nothing(cell: str):
    text = corpora.load("king_james", "characters")[-20_000:]
    for layers, width, seed in ((2, 32, 0), (1, 64, 1)):
        scores = fresh_scores(cell, layers, width, seed, text)
        assert len({each.feature for each in scores}) >= 5
        assert not [each for each in scores if each.found]


def test_an_untrained_lstm_shows_nothing():
    text = corpora.load("recall_64", "characters")[:8_000]
    assert not [each for each in fresh_scores("lstm", 1, 16, 0, text) if each.found]
