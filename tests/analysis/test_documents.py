"""A text of documents is each of them alone, after a newline: evaluated, scored, sampled and looked into."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_params, small_model

from charlstm.analysis.evaluate import character_nats, evaluate, score
from charlstm.analysis.gradient_reach import gradient_reach
from charlstm.analysis.sample import CHUNK, WINDOW, TextSampler, sample
from charlstm.config import SampleConfig
from charlstm.data.vocabulary import Vocabulary

NEWLINE = 0
VOCABULARY = Vocabulary.of("\nabcdef")
MODEL = small_model("lstm", layers=2)
PARAMS = random_params(MODEL, 0, scale=1)
documents = st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=12)


def joined(texts: list[list[int]]) -> np.ndarray:
    return np.array([each for text in texts for each in (*text, NEWLINE)])


def wanted_nats(model: Any, params: Any, document: Any) -> np.ndarray:
    """Of each character and the newline after it: by NumPy, after one newline."""
    return reference.text_nats(model, params, np.array([NEWLINE, *document, NEWLINE]))[1:]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_a_text_is_its_documents_each_alone(cell: str, recurrence: Any):
    model = small_model(cell, layers=2, recurrence=recurrence)
    params = random_params(model, 0)
    texts = [[1, 2, 3], [], [4], [5, 6, 1, 2, 3, 4, 5, 6], [1, 2, 3]]
    wanted = [wanted_nats(model, params, text) for text in texts]
    whole = evaluate(model, params, joined(texts), rows=1, window=4, newline=NEWLINE)
    assert whole.characters == sum(map(len, wanted))
    assert whole.loss == pytest.approx(np.concatenate(wanted).mean(), rel=1e-5)
    lines = [np.array([*text, NEWLINE]) for text in texts]
    for found, each in zip(character_nats(model, params, lines, newline=NEWLINE), wanted, strict=True):
        np.testing.assert_allclose(found, each, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=8)
@given(documents)
def test_the_loss_of_a_text_is_the_sum_of_its_documents_scores(texts: list[list[int]]):
    scores = score(MODEL, PARAMS, [np.array([*text, NEWLINE]) for text in texts], newline=NEWLINE)
    total = sum(each.nats for each in scores) / sum(each.characters for each in scores)
    assert evaluate(MODEL, PARAMS, joined(texts), rows=1, newline=NEWLINE).loss == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
def test_rows_side_by_side_agree_with_one():
    """A newline in its warm-up makes a row exact, which no model of whole texts is."""
    rng = np.random.default_rng(0)
    ids = joined([rng.integers(1, 7, size=length).tolist() for length in rng.integers(0, 20, size=300)])
    alone = evaluate(MODEL, PARAMS, ids, rows=1, newline=NEWLINE)
    assert evaluate(MODEL, PARAMS, ids, rows=4, newline=NEWLINE).loss == pytest.approx(alone.loss, rel=1e-5)


@pytest.mark.slow
def test_no_gradient_reaches_past_the_start_of_a_document():
    ids = joined([[1, 2, 3]] * 40)
    found = gradient_reach(MODEL, PARAMS, ids, lags=8, positions=200, newline=NEWLINE).norms
    assert (found[:, 0] > 0).all() and (found[:, 4:] == 0).all()
    assert (gradient_reach(MODEL, PARAMS, ids, lags=8, positions=200).norms > 0).all()


# Samples.


def texts(prime: str, num: int = 1, length: int = 3 * CHUNK, **how: Any) -> list[str]:
    sampler = TextSampler(MODEL, PARAMS, VOCABULARY, "characters", NEWLINE)
    return list(sampler.texts(SampleConfig(prime=prime, length=length, temperature=1), num, **how))


@pytest.mark.parametrize("prime", ["", "ab", "a" * (WINDOW - 1), "b" * (WINDOW + 5), "ab\ncd", "ab\n"])
def test_a_prime_is_read_after_a_newline(prime: str):
    """The likeliest next character is that of NumPy's reading of the document that the prime ends in."""
    ids = VOCABULARY.encode(prime.rpartition("\n")[2])
    read = np.array([[NEWLINE, *ids]], np.int32)
    logits, _ = reference.forward(MODEL, PARAMS, read, MODEL.zero_carry(1))
    config = SampleConfig(length=1, temperature=0)
    drawn = sample(MODEL, PARAMS, VOCABULARY.encode(prime), config, newline=NEWLINE)
    assert drawn.tolist() == [int(logits[0, -1].argmax())]


def test_a_sample_ends_where_its_document_does():
    found = texts("ab", num=20)
    assert len({*found}) > 1 and all(each.startswith("ab") and "\n" not in each for each in found)
    config = SampleConfig(length=3 * CHUNK, temperature=1)
    whole = VOCABULARY.decode(sample(MODEL, PARAMS, VOCABULARY.encode("ab"), config, NEWLINE))
    assert found[0] == "ab" + whole.partition("\n")[0]
    assert [each[:5] for each in found] == texts("ab", num=20, length=3)
    assert texts("a\nb")[0].startswith("a\nb")
    assert texts("ab", length=0) == ["ab"]
