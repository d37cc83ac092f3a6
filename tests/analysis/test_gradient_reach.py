"""The gradient in a hidden state k steps ago equals finite differences in NumPy, and what is known in closed form."""

from typing import Any

import jax
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_ids, random_params, small_model

from charlstm.analysis import gradient_reach as module
from charlstm.analysis.gradient_reach import GradientReach, gradient_reach, reach
from charlstm.config import Cell
from charlstm.core.network import Model

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32 - 1)
NUDGE = 1e-5
K, N = 4, 12

by_cell = pytest.mark.parametrize("cell", CELLS)


def by_differences(model: Model, params: Any, ids: np.ndarray, end: int, warmup: int) -> np.ndarray:
    """[L, K+1] norms at one position, from losses with one unit of one hidden state moved up and down."""
    layers, hidden = model.config.num_layers, model.config.hidden_size
    text = ids[max(0, end - K - warmup) : end + 1]
    nudges = np.zeros((len(text), layers, K + 1, layers, hidden, 2, hidden))
    for lag, layer, unit in np.ndindex(K + 1, layers, hidden):
        nudges[-1 - lag, layer, lag, layer, unit, :, unit] = NUDGE, -NUDGE
    nudges = nudges.reshape(len(text), layers, -1, hidden)
    rows = nudges.shape[2]
    logits, _ = reference.forward(model, params, np.tile(text, (rows, 1)), model.zero_carry(rows), nudges=nudges)
    losses = reference.nats(logits[:, -1], np.full(rows, ids[end + 1])).reshape(K + 1, layers, hidden, 2)
    up, down = losses[..., 0], losses[..., 1]
    return np.linalg.norm((up - down) / (2 * NUDGE), axis=-1).T


@by_cell
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("warmup", "positions", "ends"), [(2, 100, range(K, N - 1)), (512, 3, (4, 7, 10)), (0, 1, (4,))]
)
@settings(max_examples=2)
@given(seed=SEEDS)
def test_norms_equal_finite_differences(cell: Cell, layers: int, warmup: int, positions: int, ends: Any, seed: int):
    model = small_model(cell, layers, hidden=3, vocabulary=5)
    params, ids = random_params(model, seed, dtype=np.float64), random_ids(model, seed, N).astype(np.uint8)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WARMUP", warmup)
        norms = gradient_reach(model, params, ids, lags=K, positions=positions).norms
    wanted = np.median([by_differences(model, params, ids, end, warmup) for end in ends], 0)
    assert norms.shape == (layers, K + 1) and norms.dtype == np.float64
    np.testing.assert_allclose(norms, wanted, rtol=0, atol=1e-9)


@settings(max_examples=5)
@given(seed=SEEDS)
def test_without_recurrence_nothing_reaches_further_than_its_own_step(seed: int):
    model = small_model("rnn", layers=2)
    params, ids = random_params(model, seed), random_ids(model, seed, 30)
    for layer in params["stack"].values():
        layer["h"]["kernel"][:] = 0
    norms = gradient_reach(model, params, ids, lags=6).norms
    assert (norms[:, 0] > 0).all() and (norms[:, 1:] == 0).all()


@by_cell
def test_the_top_layer_starts_at_the_gradient_of_softmax(cell: Cell):
    """∂loss/∂h = W (softmax - one-hot)."""
    model = small_model(cell, layers=2)
    params, ids = random_params(model, 0), random_ids(model, 0, 40)
    logits, _ = reference.forward(model, params, ids[None], model.zero_carry(1))
    surplus = np.exp(-reference.nats(logits[0, :, None], np.arange(7)[None])) - np.eye(7)[np.append(ids[1:], 0)]
    wanted = np.median(np.linalg.norm(surplus[5:-1] @ params["head"]["kernel"].T, axis=-1))
    assert gradient_reach(model, params, ids, lags=5).norms[1, 0] == pytest.approx(wanted, rel=1e-5)


def test_a_rotation_neither_shrinks_nor_stretches_a_gradient():
    """Near 0 tanh is the identity, and the Jacobian of an rnn's step its recurrent kernel."""
    model = small_model("rnn", hidden=8)
    params, ids = random_params(model, 1, scale=1e-5), random_ids(model, 1, 300)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((8, 8)))[0].astype(np.float32)
    for factor, halves in ((1.0, None), (0.5, 7)):
        params["stack"]["layer_0"]["h"]["kernel"] = rotation * np.float32(factor)
        result = gradient_reach(model, params, ids, lags=100)
        np.testing.assert_allclose(result.norms[0] / result.norms[0, 0], factor ** np.arange(101.0), rtol=1e-3)
        assert result.reach() == [halves]


@by_cell
def test_norms_depend_neither_on_the_block_nor_on_the_loop_nor_on_dropout(cell: Cell, monkeypatch: Any):
    model = small_model(cell, layers=2)
    params, ids = random_params(model, 3), random_ids(model, 3, 60)
    wanted = gradient_reach(model, params, ids, lags=5, positions=10).norms
    for block in (1, 4):
        monkeypatch.setattr(module, "BLOCK", block)
        np.testing.assert_allclose(gradient_reach(model, params, ids, lags=5, positions=10).norms, wanted, rtol=1e-5)
    others: tuple[Any, ...] = ({"recurrence": "plain"}, {"remat": True}, {"dropout": 0.5})
    for fields in others:
        other = small_model(cell, layers=2, **fields)
        np.testing.assert_allclose(gradient_reach(other, params, ids, lags=5, positions=10).norms, wanted, rtol=1e-5)


@by_cell
def test_bfloat16_moves_norms_a_little(cell: Cell):
    """By a few roundings of one part in 256 each, and by more than float32 would."""
    wide, narrow = (small_model(cell, layers=2, hidden=16, dtype=dtype) for dtype in ("float32", "bfloat16"))
    params, ids = random_params(wide, 4, scale=0.25), random_ids(wide, 4, 200)
    ratios = gradient_reach(narrow, params, ids, lags=8).norms / gradient_reach(wide, params, ids, lags=8).norms
    assert 1e-4 < np.abs(ratios - 1).max() < 8 / 256


def test_small_gradients_keep_their_size():
    """A square of 1e-30 is zero in float32."""
    model = small_model("rnn")
    params, ids = random_params(model, 5), random_ids(model, 5, 40)
    params["stack"]["layer_0"]["h"]["kernel"] = np.diag(np.full(4, 1e-10, np.float32))
    norms = gradient_reach(model, params, ids, lags=3).norms[0]
    assert 1e-33 < norms[3] < 1e-29


@settings(max_examples=100)
@given(norms=st.lists(st.floats(0, 1e3), min_size=1, max_size=9), fraction=st.floats(0.001, 1))
def test_from_its_reach_on_a_gradient_stays_at_or_below_a_fraction_of_its_start(norms: list[float], fraction: float):
    lag = reach(np.array(norms), fraction)
    if norms[0] == 0:
        assert lag == 0
        return
    assert all(norm <= fraction * norms[0] for norm in norms[lag:] if lag is not None)
    if lag != 0:
        assert norms[-1 if lag is None else lag - 1] > fraction * norms[0]


@settings(max_examples=100)
@given(norms=st.lists(st.floats(0, 1e3), min_size=1, max_size=9), fraction=st.floats(0.001, 1))
def test_a_gradient_that_only_falls_reaches_the_first_lag_at_or_below_a_fraction(norms: list[float], fraction: float):
    norms.sort(reverse=True)
    first = next((lag for lag, norm in enumerate(norms) if norm <= fraction * norms[0]), None)
    assert reach(np.array(norms), fraction) == first


def test_reach_is_each_layers_own():
    halves, flat, back = 0.5 ** np.arange(9.0), np.ones(9), np.array([8, 4, 0.08, 4, 4, 4, 4, 0, 0])
    assert GradientReach(np.stack([halves, flat, back])).reach() == [7, None, 7]
    assert GradientReach(np.stack([halves, flat, back])).reach(0.25) == [2, None, 7]


@pytest.mark.parametrize(
    ("characters", "lags", "positions", "says"),
    [
        (5, 4, 1, "the text has 5 characters, but 4 lags need 6; give a longer text, or ask for fewer lags"),
        (0, 0, 1, "the text has 0 characters, but 0 lags need 2; give a longer text, or ask for fewer lags"),
        (9, -1, 1, "there are -1 lags at 1 positions; ask for at least 0 lags and 1 position"),
        (9, 1, 0, "there are 1 lags at 0 positions; ask for at least 0 lags and 1 position"),
    ],
)
def test_what_cannot_be_measured_raises(characters: int, lags: int, positions: int, says: str):
    model = small_model("rnn")
    with pytest.raises(ValueError, match=f"^{says}$"):
        gradient_reach(model, random_params(model, 0), np.zeros(characters, np.int32), lags=lags, positions=positions)
