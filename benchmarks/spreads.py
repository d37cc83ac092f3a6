"""Seconds of rounds become medians, spreads and ratios, and those of a few starts one of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """A median over rounds, or over processes, and the least and the most that one gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None of no values."""
        return cls(median(values), min(values), max(values)) if values else None


def over_starts(values: Iterable[Spread | None]) -> Spread | None:
    """The spread over processes, of the median of each one's rounds; those that gave nothing are left out."""
    return Spread.of([each.median for each in values if each is not None])


def by_round(seconds: Sequence[Sequence[float]]) -> list[float]:
    """The median run of each round."""
    return [median(runs) for runs in seconds]


def ratio(seconds: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Spread | None:
    """How many times as fast as the baseline in the same round: above 1 is faster."""
    pairs = zip(by_round(seconds), by_round(baseline), strict=False)
    return Spread.of([theirs / ours for ours, theirs in pairs])


def fraction(
    seconds: Sequence[Sequence[float]], amount: float, floors: Sequence[tuple[float, Sequence[Sequence[float]]]]
) -> Spread | None:
    """The part of a machine's rate that a contender reaches, by rounds.

    Args:
        seconds: of the contender's runs.
        amount: operations or bytes that one of its runs cannot do without.
        floors: of each way to measure the machine's rate, the amount of a run and its seconds; of a round the best.
    """
    pairs = zip(by_round(seconds), best_rates(floors), strict=False)
    return Spread.of([amount / ours / rate for ours, rate in pairs])


def best_rates(floors: Sequence[tuple[float, Sequence[Sequence[float]]]]) -> list[float]:
    """Of each round the highest rate, in amounts a second; `floors` as for `fraction`."""
    rates = [[done / each for each in by_round(runs)] for done, runs in floors]
    return [max(of_round) for of_round in zip(*rates, strict=False)]
