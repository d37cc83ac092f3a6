"""The measure sees a memory exactly as far as it reaches: right above the distance, and at chance below."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_params, small_model

from charlstm.analysis import recall
from charlstm.analysis.recall import Reader, accuracy, as_reader, distances_of, measure
from charlstm.config import Cell, ModelConfig
from charlstm.core.network import Model
from charlstm.data import corpora, recall_text
from charlstm.data.vocabulary import Vocabulary
from charlstm.support.errors import InputError

pytestmark = pytest.mark.slow

by_cell = pytest.mark.parametrize("cell", CELLS)
VOCABULARY = Vocabulary.of(corpora.load("recall_32", "characters"))
LAST_LETTERS = [country[-1] for country in recall_text.COUNTRIES]
DISTANCES = st.integers(0, 12).map(lambda fillers: 16 + 8 * fillers)


def chance(sentences: int) -> Any:
    """Between five standard errors of guessing."""
    return pytest.approx(1 / 8, abs=5 * (1 / 8 * 7 / 8 / sentences) ** 0.5)


def that_sees(memory: int) -> Reader:
    """A reader that knows all there is to know of the texts, and sees so many characters."""

    def read(rows: Sequence[str]) -> np.ndarray:
        answers = np.zeros((len(rows), len(rows[0])), int)
        for number, row in enumerate(rows):
            for asked in re.finditer(" I still speak ", row):
                seen = row[max(0, asked.end() - memory) : asked.end()]
                found = re.search(r"([a-z])\.(?: [HW]e [a-z]{3}\.)* I still speak $", seen)
                if found and found[1] in LAST_LETTERS:
                    answers[number, asked.end() - 1] = LAST_LETTERS.index(found[1])
        return answers

    return read


@settings(max_examples=30)
@given(st.lists(DISTANCES, min_size=1, max_size=3), st.integers(1, 130))
def test_a_memory_is_seen_exactly_as_far_as_it_reaches(distances: list[int], memory: int):
    result = measure(that_sees(memory), distances, sentences=512)
    assert result.distances == tuple(distances) and result.chance == 1 / 8
    for distance, right in zip(distances, result.accuracy, strict=True):
        assert right == (1 if memory > distance else chance(512))


@settings(max_examples=30)
@given(st.integers(1, 300), DISTANCES)
def test_as_many_sentences_count_as_were_asked_for(sentences: int, distance: int):
    assert measure(that_sees(1000), [distance], sentences=sentences) == ((distance,), (1.0,), 1 / 8, sentences)
    right = measure(that_sees(1), [distance], sentences=sentences).accuracy[0] * sentences
    assert right == pytest.approx(round(right))


def test_the_first_sentences_of_a_row_do_not_count():
    def forgets_first_sentences(rows: Sequence[str]) -> np.ndarray:
        answers = that_sees(1000)(rows)
        for number, row in enumerate(rows):
            second = row.index("\n", row.index("\n") + 1)
            answers[number, :second] = (answers[number, :second] + 1) % 8
        return answers

    assert measure(forgets_first_sentences, [64], sentences=200).accuracy == (1.0,)


def test_no_corpus_has_the_sentences_that_are_read():
    trained = set(corpora.load("recall_128", "characters").splitlines())

    def read(rows: Sequence[str]) -> np.ndarray:
        for row in rows:
            assert trained.isdisjoint(row.rstrip(" ").splitlines())
        return np.zeros((len(rows), len(rows[0])), int)

    measure(read, [128, 256], sentences=512)


def test_distances_are_those_of_a_corpus_and_one_beyond():
    assert distances_of("recall_32") == (16, 32, 64)
    assert distances_of("recall_128") == (16, 32, 64, 128, 256)
    assert distances_of("recall_4096")[-2:] == (4096, 8192)
    with pytest.raises(InputError, match="none of the recall_N corpora"):
        distances_of("tiny_shakespeare")


# Models.


@pytest.mark.parametrize("corpus", recall_text.NAMES)
def test_a_model_of_any_corpus_can_be_measured(corpus: str):
    assert Vocabulary.of(recall_text.text(corpus)) == VOCABULARY


@by_cell
@pytest.mark.parametrize("window", [1, 7, 128])
def test_a_model_reads_rows_as_numpy_does(cell: Cell, window: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recall, "WINDOW", window)
    model = small_model(cell, layers=2, hidden=16, vocabulary=len(VOCABULARY), dropout=0.5)
    params, text = random_params(model, 0), corpora.load("recall_32", "characters")
    rows = [text[start : start + 150] for start in (0, 1000, 2000)]
    ids = np.stack([VOCABULARY.encode(row) for row in rows])
    logits, _ = reference.forward(model, params, ids, model.zero_carry(3))
    of_initials = logits[..., VOCABULARY.encode("".join(recall.INITIALS))]
    answers = as_reader(model, params, VOCABULARY)(rows)
    assert answers.shape == (3, 150)
    # Equal but where two initials are as good as one: float32 may then choose the other.
    chosen = np.take_along_axis(of_initials, answers[..., None], -1)[..., 0]
    np.testing.assert_allclose(chosen, of_initials.max(-1), rtol=0, atol=1e-5)
    assert len(np.unique(answers)) > 2


@by_cell
def test_a_model_that_has_learnt_nothing_is_at_chance(cell: Cell):
    model = Model(ModelConfig(cell=cell, hidden_size=16), len(VOCABULARY))
    result = accuracy(model, model.init(jax.random.key(0)), VOCABULARY, (16, 64, 128), sentences=512)
    assert result.accuracy == (chance(512),) * 3


def looking_back(distance: int) -> tuple[Model, Any]:
    """An RNN made by hand that says what the letter so many characters ago means, and knows nothing else.

    It is a chain of blocks: the first holds which last letter of a country was read, each other what the one before
    held a character earlier.
    """
    size = 8 * (distance + 1)
    letters = VOCABULARY.encode("".join(LAST_LETTERS))
    first = np.full((len(VOCABULARY), size), 0, np.float32)
    first[:, :8] = -4
    first[letters, np.arange(8)] = 4
    head = np.zeros((size, len(VOCABULARY)), np.float32)
    head[-8 + np.arange(8), VOCABULARY.encode("".join(recall.INITIALS))] = 1
    params = {
        "stack": {
            "layer_0": {
                "i": {"kernel": first, "bias": np.zeros(size, np.float32)},
                "h": {"kernel": np.eye(size, k=8, dtype=np.float32) * 4},
            }
        },
        "head": {"kernel": head, "bias": np.zeros(len(VOCABULARY), np.float32)},
    }
    return Model(ModelConfig(cell="rnn", hidden_size=size), len(VOCABULARY)), params


@pytest.mark.parametrize("distance", [16, 40])
def test_a_network_that_looks_back_by_one_distance_is_right_there_alone(distance: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recall, "WINDOW", 50)  # so that memory crosses the edges of windows
    distances = (16, 24, 32, 40, 48)
    model, params = looking_back(distance)
    result = accuracy(model, params, VOCABULARY, distances, sentences=300)
    assert result.accuracy == tuple(1 if each == distance else chance(300) for each in distances)


# What cannot be measured.


def test_impossible_measures_raise():
    model = small_model("rnn", vocabulary=len(VOCABULARY))
    params = random_params(model, 0)
    with pytest.raises(ValueError, match="sentences is 0; it must be at least 1"):
        accuracy(model, params, VOCABULARY, (16,), sentences=0)
    with pytest.raises(InputError, match="distance 20 is not 16 or a multiple of 8"):
        accuracy(model, params, VOCABULARY, (20,))
    with pytest.raises(ValueError, match=r"lacks '\.' \(U\+002E\); measure one that was trained on a recall_N corpus"):
        accuracy(model, params, Vocabulary(tuple(each for each in VOCABULARY.characters if each != ".")), (16,))
