"""The losses of n-gram models equal those of the formula, by dictionaries, and are those of distributions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.analysis.inside.ngram import ngram
from charlstm.data import corpora
from charlstm.data.vocabulary import Vocabulary

V = 4
TEXT = st.lists(st.integers(0, V - 1), min_size=1, max_size=60)


class KneserNey:
    """Chen and Goodman's interpolated, modified Kneser-Ney, from its formula: one dictionary of counts an order."""

    def __init__(self, train: Sequence[int], orders: int, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size

        def grams(n: int) -> list[tuple[int, ...]]:
            return [tuple(train[at : at + n]) for at in range(len(train) - n + 1)]

        self.raw = {n: Counter(grams(n)) for n in range(1, orders + 1)}
        self.kinds = {n: Counter(gram[1:] for gram in {*grams(n + 1)}) for n in range(1, orders + 1)}
        self.contexts = {
            n: Counter(gram for gram in (tuple(train[at : at + n]) for at in range(len(train) - n)))
            for n in range(orders)
        }

    def probability(self, context: tuple[int, ...], symbol: int, order: int, top: bool = True) -> float:
        if order == 0:
            return 1 / self.vocabulary_size
        lower = self.probability(context[1:] if len(context) == order - 1 else context, symbol, order - 1, False)
        if len(context) < order - 1:
            return lower
        counts = (self.raw if top else self.kinds)[order]
        following = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context and count}
        if not (total := sum(following.values())):
            return lower
        discount = [0, *self.discounts(counts)]
        taken = sum(discount[min(count, 3)] for count in following.values())
        own = following.get(symbol, 0)
        return (own - discount[min(own, 3)] + taken * lower) / total

    @staticmethod
    def discounts(counts: Counter[tuple[int, ...]]) -> list[float]:
        n = [sum(count == k for count in counts.values()) for k in range(5)]
        if not n[1]:
            return [0.5] * 3
        y = n[1] / (n[1] + 2 * n[2])
        if not all(n[1:]):
            return [y] * 3
        return [min(max(k - (k + 1) * y * n[k + 1] / n[k], 0), k) for k in (1, 2, 3)]


@given(TEXT, TEXT, st.integers(1, 5))
def test_losses_equal_those_of_the_formula(train: list[int], text: list[int], orders: int):
    found, reference = ngram(train, text, V, orders), KneserNey(train, orders, V)
    assert found.nats.shape == found.seen.shape == (orders, len(text))
    for order in range(1, orders + 1):
        for at, symbol in enumerate(text):
            context = tuple(text[max(at - order + 1, 0) : at])
            probability = reference.probability(context, symbol, order)
            assert found.nats[order - 1, at] == pytest.approx(-np.log(probability), rel=1e-9, abs=1e-9)
            seen = reference.contexts[order - 1][context] if len(context) == order - 1 else 0
            assert found.seen[order - 1, at] == (len(train) if order == 1 else seen)


@given(TEXT, TEXT, st.integers(1, 5))
def test_probabilities_sum_to_one(train: list[int], context: list[int], orders: int):
    ends = [ngram(train, [*context, symbol], V, orders).nats[:, -1] for symbol in range(V)]
    np.testing.assert_allclose(np.exp(-np.array(ends)).sum(0), 1, rtol=1e-9)


def test_losses_of_a_real_text_equal_those_of_the_formula():
    text = corpora.load("king_james", "characters")[:4_000]
    vocabulary = Vocabulary.of(text)
    train, rest = np.split(vocabulary.encode(text), [3_600])
    rest = rest[:60]
    found, reference = ngram(train, rest, len(vocabulary), 6), KneserNey(train.tolist(), 6, len(vocabulary))
    for order in (1, 3, 6):
        wanted = [
            -np.log(reference.probability(tuple(rest[max(at - order + 1, 0) : at].tolist()), int(symbol), order))
            for at, symbol in enumerate(rest)
        ]
        np.testing.assert_allclose(found.nats[order - 1], wanted, rtol=1e-9)
    assert found.best == int(found.nats.mean(1).argmin()) + 1 > 1


def test_nothing_to_count_is_an_error():
    for train, text, orders in (([], [1], 1), ([1], [], 1), ([1], [1], 0)):
        with pytest.raises(ValueError, match="none of them may be 0"):
            ngram(train, text, V, orders)
