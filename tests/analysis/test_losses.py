"""Where the loss is: parts that add up to the whole, calibration in closed form, and each cause of an error once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.analysis.inside import losses
from charlstm.data import labels

SEEDS = st.integers(0, 2**32 - 1)
TEXTS = st.text(st.sampled_from("ab AB1_.\n"), min_size=1, max_size=60)


def nats_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1, count)


@given(TEXTS, SEEDS)
def test_parts_add_up_to_the_whole(text: str, seed: int):
    nats, words = nats_of(seed, len(text)), labels.words(text)
    seen = np.random.default_rng(seed).integers(0, 100_000, len(text)) // 10 ** np.arange(len(text)).__mod__(6)
    outside = words.place == 0
    for parts, rest in (
        (losses.loss_by_kind(text, nats), []),
        (losses.loss_by_context(seen, nats), []),
        (losses.loss_by_place(words.place, nats), nats[outside]),
    ):
        assert sum(each.characters for each in parts) + len(rest) == len(text)
        assert sum(each.characters * each.nats for each in parts) + sum(rest) == pytest.approx(nats.sum())
        assert all(each.characters for each in parts)


def test_parts_have_the_names_of_what_is_in_them():
    text, nats = "a A1.\n", np.arange(6.0)
    assert losses.loss_by_kind(text, nats) == [
        ("letter", 1, 0),
        ("capital", 1, 2),
        ("digit", 1, 3),
        ("punctuation", 1, 4),
        ("blank", 1, 1),
        ("newline", 1, 5),
    ]
    seen = np.array([0, 1, 2, 9, 10, 20_000])
    names = ["never", "once", "2 to 9", "10 to 99", "10,000 and more"]
    assert [each.name for each in losses.loss_by_context(seen, nats)] == names
    place = np.array([1, 9, 10, 12, 0, 2])
    assert [each.name for each in losses.loss_by_place(place, nats)] == ["1", "2", "9", "10 and more"]


def test_calibration_of_what_is_right_as_often_as_it_says():
    confidence = np.repeat([0.25, 0.5, 1.0], 400)
    right = np.arange(1200) % 400 < 400 * confidence
    found = losses.calibration(confidence, right, bins=4)
    assert found.error == 0
    assert found.characters.tolist() == [400, 400, 0, 400]
    assert found.accuracy.tolist() == found.confidence.tolist() == [0.25, 0.5, 0, 1]
    assert losses.calibration(confidence, ~right, bins=4).error == pytest.approx((0.5 + 0 + 1) / 3)


@given(SEEDS, st.integers(1, 20))
def test_the_calibration_error_is_the_mean_gap_of_the_bins(seed: int, bins: int):
    rng = np.random.default_rng(seed)
    confidence, right = 1 - rng.random(50), rng.random(50) < 0.5
    gaps = 0.0
    for number in range(bins):
        inside = (confidence * bins > number) & (confidence * bins <= number + 1)
        gaps += abs(right[inside].sum() - confidence[inside].sum())
    assert losses.calibration(confidence, right, bins).error == pytest.approx(gaps / 50)


@given(SEEDS)
def test_two_models_share_all_characters_among_them(seed: int):
    ours, theirs = nats_of(seed, 40), nats_of(seed + 1, 40)
    found = losses.shared(ours, theirs)
    assert sum(found) == pytest.approx(1)
    assert found.both + found.first == pytest.approx((np.exp(-ours) > 0.5).mean())
    assert found.both + found.second == pytest.approx((np.exp(-theirs) > 0.5).mean())


@given(TEXTS, SEEDS)
def test_every_error_has_one_cause(text: str, seed: int):
    nats, words = nats_of(seed, len(text)), labels.words(text)
    ngrams = np.stack([nats_of(seed + 1, len(text)), nats_of(seed + 2, len(text))])
    seen = losses.word_counts(["ab", "ab"] * 5 + ["a"], words)
    assert seen.tolist() == [{"ab": 10, "a": 1}.get(words.texts[n], 0) if n >= 0 else -1 for n in words.number]
    found = losses.causes(text, nats, ngrams, seen, words)
    assert sum(each.errors for each in found) == int((np.exp(-nats) <= 0.5).sum())
    assert found[0].errors == int(((np.exp(-nats) <= 0.5) & (np.exp(-ngrams) > 0.5).any(0)).sum())


def test_causes_come_one_after_the_other():
    text = "abcdefgX" + " " * 99 + "abcdefgX rare often one."
    words = labels.words(text)
    nats = np.zeros(len(text))
    wrong = {"memory": 114, "rare": text.index("rare") + 1, "start": text.index("often"), "end": len(text) - 1}
    nats[[*wrong.values()]] = 5.0
    nats[text.index("one") + 1] = -np.log(0.25)
    nats[text.index("often") + 2] = 5.0
    never = np.full((2, len(text)), 5.0)
    never[1, text.index("often") + 2] = 0.1
    seen = losses.word_counts(["often", "one", "abcdefgX"] * 6, words)
    found = {each.name: each.errors for each in losses.causes(text, nats, never, seen, words) if each.errors}
    assert found == {
        "n-gram": 1,
        "memory of 1,000": 1,
        "rare word": 1,
        "start of a word": 1,
        "punctuation, blank or newline": 1,
        "0.3 short": 1,
    }
