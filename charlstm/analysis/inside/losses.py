"""Where a model's loss is: by kind of character, by what its context was, and whether its probabilities can be trusted.

Everything here is arithmetic on [N] numbers of the characters of a text.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.data import labels
from charlstm.data.labels import Words

BINS = 15  # of a reliability curve, as in Guo et al. (2017)
RIGHT = 0.5  # a character is right where its probability is above this
MEMORIES = (100, 1_000, 5_000)
MATCH = 7  # characters that a memory must find again, to tell what followed them
RARE = 5  # times that a rare word is in the text trained on, at most
BOOSTS = (0.1, 0.2, 0.3, 0.4, 0.5)


class Part(NamedTuple):
    """Some of a text's characters: how many, and their mean nats."""

    name: str
    characters: int
    nats: float


class Calibration(NamedTuple):
    """A reliability curve: of M bins by the likeliest character's probability, its mean and how often it was right."""

    confidence: NDArray[Any]
    accuracy: NDArray[Any]
    characters: NDArray[Any]
    """How many fell into each bin; the two above are 0 where none did."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over characters of |accuracy - confidence| of their bins."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((gaps * self.characters).sum() / max(self.characters.sum(), 1))


class Shared(NamedTuple):
    """Fractions of a text's characters, by which of two models gets them right."""

    both: float
    first: float
    second: float
    neither: float


class Cause(NamedTuple):
    """A step that explains errors which none before it did, and how many."""

    name: str
    errors: int


def loss_by(names: Sequence[str], groups: NDArray[Any], nats: NDArray[Any]) -> list[Part]:
    """The parts into which groups [N], places in `names`, divide a text with nats [N]; without those that are empty.

    A negative group is in no part.
    """
    inside = groups >= 0
    counts = np.bincount(groups[inside], minlength=len(names))
    sums = np.bincount(groups[inside], nats[inside], minlength=len(names))
    return [Part(name, int(n), float(s / n)) for name, n, s in zip(names, counts, sums, strict=True) if n]


def loss_by_kind(text: str, nats: NDArray[Any]) -> list[Part]:
    """The loss of each kind of character, `labels.KINDS`, of a text with nats [N]."""
    return loss_by(labels.KINDS, labels.kinds(text), nats)


def loss_by_place(place: NDArray[Any], nats: NDArray[Any], most: int = 10) -> list[Part]:
    """The loss by the place of a character in its word, `Words.place`, the last part being all from `most` on."""
    names = [*map(str, range(1, most)), f"{most} and more"]
    return loss_by(names, np.minimum(place, most) - 1, nats)


def loss_by_context(seen: NDArray[Any], nats: NDArray[Any]) -> list[Part]:
    """The loss by how often a character's context was seen in training, [N]: never, once, and by powers of ten."""
    edges = [1, 2, 10, 100, 1_000, 10_000]
    ranges = [f"{low:,} to {high - 1:,}" for low, high in pairwise(edges[1:])]
    return loss_by(["never", "once", *ranges, f"{edges[-1]:,} and more"], np.digitize(seen, edges), nats)


def calibration(confidence: NDArray[Any], right: NDArray[Any], bins: int = BINS) -> Calibration:
    """How often the likeliest character is right, beside the probability that the model gives it (Guo et al. 2017).

    Args:
        confidence: [N], the largest probability at each character, above 0 and at most 1.
        right: [N] bool, whether it was that of the character that followed.
        bins: of one width each, M.
    """
    found = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(found, minlength=bins)
    means = (np.bincount(found, each, minlength=bins) / np.maximum(counts, 1) for each in (confidence, right * 1.0))
    return Calibration(*means, counts)  # pyright: ignore[reportCallIssue]


def shared(first: NDArray[Any], second: NDArray[Any]) -> Shared:
    """Who gets which characters right, of two models' nats [N]: with a probability above `RIGHT`."""
    ours, theirs = (np.exp(-each) > RIGHT for each in (first, second))
    pairs = (ours & theirs, ours & ~theirs, ~ours & theirs, ~(ours | theirs))
    return Shared(*(float(each.mean()) for each in pairs))


def word_counts(texts: Sequence[str], words: Words) -> NDArray[Any]:
    """[N], how often the word of each character, of `words`, is among some texts' words; -1 outside of words."""
    counts = Counter(texts)
    found = np.array([counts[each] for each in words.texts] + [-1])
    return found[words.number]


def causes(
    text: str, nats: NDArray[Any], ngram_nats: NDArray[Any], word_seen: NDArray[Any], words: Words
) -> list[Cause]:
    """What would have helped with each error, a character that the model gives a probability of at most `RIGHT`.

    After the peeling of errors by Karpathy, Johnson and Li (2015), by definitions of our own. Each step counts the
    errors that remain after those before it:

    - n-gram: an n-gram model of some order gives the character more than `RIGHT`.
    - memory of n: the `MATCH` characters before it occurred in the n characters before, and it followed the last time.
    - rare word: its word is in the text trained on at most `RARE` times.
    - start of a word: it is the first character of a word.
    - punctuation, blank or newline: it is no part of a word.
    - 0.1 to 0.5 short: with so much added, its probability is above `RIGHT`.

    Args:
        text: of N characters.
        nats: [N], -log of the probability that the model gives each.
        ngram_nats: [K, N], the same of n-gram models of several orders.
        word_seen: [N], `word_counts` in the text trained on.
        words: of the text.
    """
    remaining = np.exp(-nats) <= RIGHT
    memory = _distance_of_match(text)
    steps = {"n-gram": (np.exp(-ngram_nats) > RIGHT).any(0)}
    steps |= {f"memory of {n:,}": memory <= n for n in MEMORIES}
    steps["rare word"] = (word_seen >= 0) & (word_seen <= RARE)
    steps["start of a word"] = words.place == 1
    steps["punctuation, blank or newline"] = words.place == 0
    probability = np.exp(-nats)
    steps |= {f"{boost} short": probability + boost > RIGHT for boost in BOOSTS[:-1]}
    steps[f"{BOOSTS[-1]} short"] = np.ones(len(text), bool)  # the rest
    found = []
    for name, explains in steps.items():
        found.append(Cause(name, int((remaining & explains).sum())))
        remaining &= ~explains
    return found


def _distance_of_match(text: str) -> NDArray[Any]:
    """[N], how far back the `MATCH` characters before a character were last followed by something, if it was this one.

    Infinite where it was another, or there is no such place.
    """
    found, last = np.full(len(text), np.inf), dict[str, int]()
    for at in range(MATCH, len(text)):
        before = text[at - MATCH : at]
        if (then := last.get(before)) is not None and text[then] == text[at]:
            found[at] = at - then
        last[before] = at
    return found
