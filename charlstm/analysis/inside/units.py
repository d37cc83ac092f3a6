"""Which units follow a feature of the text, beside what random directions of the same layer reach.

A unit is chosen on the first half of a text and scored on the second, by its correlation with the feature. So are the
best of H random directions, the control: what it scores, any layer of that width would, whatever its units mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.analysis.inside.activations import Block

DIRECTIONS = 8192  # random directions at least, drawn in groups of H; the control is the best group's
MARGIN = 0.1  # of correlation by which a unit must exceed the control
ENOUGH = 50  # characters of each half that have a feature, and that fall short of its largest value, at least
_PARTS = ("h", "c")


class UnitScore(NamedTuple):
    """A unit beside a feature."""

    feature: str
    layer: int
    """From 0, as `unit` is."""
    unit: int
    part: str
    """What of the unit: its output "h", or tanh(c) of an lstm's cell state "c"."""
    chosen: float
    """Its correlation with the feature on the first half, by which units are ranked; negative where it falls as that
    rises."""
    score: float
    """Its correlation on the second half; 0 where it has the other sign there."""
    control: float
    """The largest score, by amount, of the best of H random directions of this layer, in any of several draws."""

    @property
    def found(self) -> bool:
        """Whether the score is beyond the control by `MARGIN`."""
        return abs(self.score) > self.control + MARGIN


class _Sums(NamedTuple):
    """What a correlation needs, of x [H] and y [F] in one half of the text."""

    characters: int
    x: Any
    xx: Any
    xy: Any

    @classmethod
    def of(cls, x: Any, y: Any) -> "_Sums":
        return cls(len(x), x.sum(0), x.T @ x, x.T @ y)

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class UnitFeatures:
    """Collects blocks of `activations`, in any order, and scores all units; memory is that of [H, H] a layer."""

    def __init__(self, features: Mapping[str, NDArray[Any]]) -> None:
        """`features` are [N] numbers each, of all characters of the text; those that hardly vary are left out."""
        self._half = len(next(iter(features.values()), ())) // 2
        halves = slice(0, self._half), slice(self._half, None)
        kept = {name: np.asarray(values, np.float64) for name, values in features.items()}
        self.names = [name for name, y in kept.items() if all(_varies(y[half]) for half in halves)]
        self._y = np.stack([kept[name] for name in self.names], 1) if self.names else np.zeros((0, 0))
        parts = [self._y[half] for half in halves] if self.names else []
        self._moments = [(part.mean(0), part.std(0)) for part in parts]
        self._sums: dict[tuple[str, int, int], _Sums] = {}

    def add(self, block: Block) -> None:
        """Takes a block in."""
        if not self.names:
            return
        parts = {"h": block.hidden} | ({} if block.cell is None else {"c": np.tanh(block.cell)})
        late, y = block.at >= self._half, self._y[block.at]
        for name, states in parts.items():
            for layer, state in enumerate(states):
                for half, here in enumerate((~late, late)):
                    if here.any():
                        sums = _Sums.of(state[here].astype(np.float64), y[here])
                        key = name, layer, half
                        self._sums[key] = self._sums[key].plus(sums) if key in self._sums else sums

    def scores(self, seed: int = 0) -> list[UnitScore]:
        """Every unit beside every feature that was measured; of each feature, the largest `chosen` first."""
        found: list[UnitScore] = []
        for part, layer in sorted({key[:2] for key in self._sums}):
            sums = [self._sums.get((part, layer, half)) for half in (0, 1)]
            if None in sums:
                continue
            first, second = (
                _Correlation.of(each, *moments)  # pyright: ignore[reportArgumentType]
                for each, moments in zip(sums, self._moments, strict=True)
            )
            units = np.eye(len(first.scale))
            chosen, score = first.along(units), second.along(units)
            control = self._control(first, second, np.random.default_rng([seed, layer, _PARTS.index(part)]))
            for unit, column in np.ndindex(*score.shape):
                one, other = float(chosen[unit, column]), float(score[unit, column])
                kept = other if one * other > 0 else 0.0
                found.append(UnitScore(self.names[column], layer, unit, part, one, kept, float(control[column])))
        order = {name: place for place, name in enumerate(self.names)}
        return sorted(found, key=lambda each: (order[each.feature], -abs(each.chosen)))

    def _control(self, first: "_Correlation", second: "_Correlation", rng: np.random.Generator) -> NDArray[Any]:
        """[F], the best score of any group of H directions, each with its direction chosen on the first half."""
        width, best = len(first.scale), np.zeros(len(self.names))
        for _ in range(max(4, -(-DIRECTIONS // width))):
            directions = rng.standard_normal((width, width)) / first.scale  # of units that vary alike
            chosen = first.along(directions)
            top = np.abs(chosen).argmax(0), np.arange(len(self.names))
            best = np.maximum(best, second.along(directions)[top] * np.sign(chosen[top]))
        return best


def _varies(y: NDArray[Any]) -> bool:
    """Whether a feature has enough characters with it and without; with none, its correlation is rounding alone."""
    return bool(min(np.count_nonzero(y), np.count_nonzero(y < y.max(initial=0))) >= ENOUGH)


class _Correlation(NamedTuple):
    """Covariances in one half: of x [H, H], and of x with y [H, F], with the standard deviations of both."""

    xx: Any
    xy: Any
    scale: Any
    y: Any

    @classmethod
    def of(cls, sums: _Sums, mean: Any, deviation: Any) -> "_Correlation":
        x = sums.x / sums.characters
        xx = sums.xx / sums.characters - np.outer(x, x)
        scale = np.sqrt(np.maximum(np.diagonal(xx), 0))
        still = scale < 1e-6  # a unit that does not move
        return cls(xx, sums.xy / sums.characters - np.outer(x, mean), np.where(still, np.inf, scale), deviation)

    def along(self, directions: NDArray[Any]) -> NDArray[Any]:
        """[D, F], the correlation of each direction's projection, directions [D, H]."""
        directions = np.where(np.isinf(self.scale), 0, directions)
        variance = np.einsum("dh,dh->d", directions @ self.xx, directions)
        spread = np.sqrt(np.maximum(variance, 1e-30))[:, None] * np.maximum(self.y, 1e-30)
        return directions @ self.xy / spread


def unit_features(blocks: Iterable[Block], features: Mapping[str, NDArray[Any]]) -> list[UnitScore]:
    """Scores all units by all features: of each feature in turn, the unit that is chosen first.

    Args:
        blocks: of `activations`, all of a text.
        features: [N] numbers for each character of the text by name, such as `data.labels.features` gives them. One
            that fewer than `ENOUGH` characters of a half have, or are below its largest value, is left out.
    """
    collected = UnitFeatures(features)
    for block in blocks:
        collected.add(block)
    return collected.scores()
