"""What models of fixed order make of a text: interpolated Kneser-Ney, whose counts are sorted and not hashed.

    P(w | c) = (n(cw) - D)+ / n(c) + γ(c) P(w | c without its first character)

with modified discounts: D is D₁, D₂ or D₃ for a count of 1, 2 or more, estimated from how many counts are 1 to 4, and
γ(c) is what they took (Chen and Goodman 1998, section 3). The highest order counts occurrences, each one below it how
many different characters were seen before its n-grams (Kneser and Ney 1995); below the first all characters are equally
likely.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDERS = 10


class NGrams(NamedTuple):
    """What n-gram models of order 1 to K, trained on one text, make of N characters of another."""

    nats: NDArray[Any]
    """[K, N], -log of each character's probability, by order."""
    seen: NDArray[Any]
    """[K, N], how often the context of each order, the order - 1 characters before, is in the text trained on."""

    @property
    def best(self) -> int:
        """The order with the lowest mean loss."""
        return int(self.nats.mean(1).argmin()) + 1


def ngram(train: Any, ids: Any, vocabulary_size: int, orders: int = ORDERS) -> NGrams:
    """Trains an n-gram model of each order on one text and measures another, of which each character is predicted once.

    A character with fewer before it than an order looks back gets the probability of the orders below that do not: as
    for the model, nothing stands before the text.

    Args:
        train, ids: [M] and [N] ids below V. Time and memory grow with M + N, for each order in turn.
        vocabulary_size: V.
        orders: the largest order, K.

    Raises:
        ValueError: a text is empty, or K is below 1.
    """
    if not (len(train) and len(ids)) or orders < 1:
        raise ValueError(f"there are {len(train)} and {len(ids)} ids, and {orders} orders; none of them may be 0")
    train, ids = np.asarray(train, np.int64), np.asarray(ids, np.int64)
    context = _Grams(np.zeros(len(train), np.int64), np.zeros(len(ids), np.int64), 1)
    lower = np.full(len(ids), 1 / vocabulary_size)  # the probability of each character by the counts of what precedes
    nats, seen = np.empty((orders, len(ids))), np.zeros((orders, len(ids)), np.int64)
    grams = _join(context, train, ids, vocabulary_size, 1)
    for order in range(1, orders + 1):
        # What `context` has at a place is the context of the character there; `grams` are contexts with it.
        nats[order - 1] = -np.log(_probabilities(grams, context, grams.counts(), lower, order))
        seen[order - 1, order - 1 :] = context.counts_at(order - 1)
        longer_context = grams.moved()
        longer = _join(longer_context, train, ids, vocabulary_size, order + 1)
        lower = _probabilities(grams, context, longer.kinds_before(grams), lower, order)
        context, grams = longer_context, longer
    return NGrams(nats, seen)


class _Grams(NamedTuple):
    """N-grams of one order as numbers below `kinds`, where they end; -1 where the text has not begun so far back."""

    train: NDArray[Any]
    ids: NDArray[Any]
    kinds: int

    def counts(self) -> NDArray[Any]:
        """[kinds], how often each is in the text trained on."""
        return np.bincount(self.train[self.train >= 0], minlength=self.kinds)

    def counts_at(self, start: int) -> NDArray[Any]:
        """How often each of those from a place on in the other text is."""
        return self.counts()[self.ids[start:]]

    def moved(self) -> "_Grams":
        """Those that end one character earlier: the contexts of the next order."""
        train, ids = (np.concatenate([np.full(1, -1), each[:-1]]) for each in (self.train, self.ids))
        return _Grams(train, ids, self.kinds)

    def kinds_before(self, shorter: "_Grams") -> NDArray[Any]:
        """How many of these, in the text trained on, end in each of those that are one character `shorter`."""
        inside = self.train >= 0
        suffix = np.full(self.kinds, -1)
        suffix[self.train[inside]] = shorter.train[inside]
        return np.bincount(suffix[suffix >= 0], minlength=shorter.kinds)


def _join(context: _Grams, train: Any, ids: Any, vocabulary_size: int, order: int) -> _Grams:
    """The n-grams that contexts and the characters after them make, numbered anew."""
    texts = [*zip(context[:2], (train, ids), strict=True)]
    keys = [each[order - 1 :] * vocabulary_size + text[order - 1 :] for each, text in texts]
    _, numbers = np.unique(np.concatenate(keys), return_inverse=True)
    found, other = (np.full(len(text), -1) for _, text in texts)
    found[order - 1 :], other[order - 1 :] = np.split(numbers, [len(keys[0])])
    return _Grams(found, other, int(numbers.max(initial=-1)) + 1)


def _probabilities(
    grams: _Grams, context: _Grams, counts: NDArray[Any], lower: NDArray[Any], order: int
) -> NDArray[Any]:
    """[N], the probability of each character by these counts of the n-grams, [kinds], and that of the order below."""
    discount = _discounts(counts)
    # Which context an n-gram has; one that only the other text has counts for nothing.
    contexts = np.zeros(grams.kinds, np.int64)
    for these, those in zip(grams[:2], context[:2], strict=True):
        contexts[these[order - 1 :]] = those[order - 1 :]
    total = np.bincount(contexts, counts, minlength=context.kinds)
    taken = np.bincount(contexts, discount[np.minimum(counts, 3)], minlength=context.kinds)
    here, before = grams.ids[order - 1 :], context.ids[order - 1 :]
    kept = counts[here] - discount[np.minimum(counts[here], 3)]
    found, known = lower.copy(), total[before] > 0
    ours = (kept + taken[before] * lower[order - 1 :]) / np.maximum(total[before], 1)
    found[order - 1 :] = np.where(known, ours, lower[order - 1 :])
    return found


def _discounts(counts: NDArray[Any]) -> NDArray[Any]:
    """D₀ = 0 and D₁, D₂, D₃ of an order's counts, at most 1, 2 and 3; one D (Ney et al. 1994) where they are few."""
    n = np.bincount(np.minimum(counts[counts > 0], 5), minlength=6)[1:5].astype(float)
    if n[0] == 0:
        return np.array([0, 0.5, 0.5, 0.5])
    y = n[0] / (n[0] + 2 * n[1])
    if not n.all():
        return np.array([0, y, y, y])
    most = np.arange(1.0, 4)
    return np.append(0, np.clip(most - (most + 1) * y * n[1:] / n[:-1], 0, most))
