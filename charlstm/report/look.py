"""The numbers behind `charlstm look`: a trained run and a text to what its units do, and where its loss is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.analysis.evaluate import default_rows
from charlstm.analysis.inside import losses
from charlstm.analysis.inside.activations import Block, activations
from charlstm.analysis.inside.losses import Cause, Part, Shared
from charlstm.analysis.inside.ngram import ngram
from charlstm.analysis.inside.survey import Survey, survey
from charlstm.analysis.inside.units import UnitScore
from charlstm.core.loss import bits
from charlstm.data import labels
from charlstm.data.corpora import to_readable
from charlstm.runs.loading import TrainedRun
from charlstm.support.errors import InputError

SHOWN = 4_000  # characters that the page shows
SURVEYED = 200_000  # from the start of the text, that are measured
COUNTED = 20_000_000  # from the start of the training split, that the n-gram models are trained on
CONTEXT_ORDER = 6  # of the n-grams whose contexts tell how often a context was seen: five characters
UNITS = 3  # of each feature that are named
GAINS = 6  # symbols at which the model gains most on n-grams, and as many at which it loses most
COSTLIEST = 12  # symbols, and single characters, that are named
Advance = Callable[[float, str], None]


class Symbol(NamedTuple):
    """A symbol of the text, its share of the loss, its mean nats, and how often it is there."""

    symbol: str
    share: float
    nats: float
    characters: int


class Moment(NamedTuple):
    """A single symbol of the text, what stood before it in readable characters, and its nats."""

    before: str
    symbol: str
    nats: float


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The model beside n-gram models that were trained on the run's training split."""

    nats: list[float]
    """By order, from 1."""
    best: int
    characters: int
    """That they were trained on."""
    shared: Shared
    """The model first, the best order second."""
    by_context: list[Part]
    gains: list[Part]
    """By symbol, the nats that the model gains on the best order; the largest gain in all first, then the losses."""
    causes: list[Cause]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found; `text` is what was surveyed, in the model's symbols."""

    found: TrainedRun
    source: str
    ids: NDArray[Any]
    text: str
    survey: Survey
    kinds: list[Part]
    places: list[Part]
    symbols: list[Symbol]
    moments: list[Moment]
    beside: Beside | None
    """None where the run's own text is not there."""
    why_not: str = ""

    @property
    def nats(self) -> float:
        return float(self.survey.nats.mean())

    @property
    def features(self) -> dict[str, list[UnitScore]]:
        """The units that are named of each feature: those found, or else the best one."""
        found: dict[str, list[UnitScore]] = {}
        for each in self.survey.scores:
            found.setdefault(each.feature, []).append(each)
        named = {name: _distinct([each for each in units if each.found]) or units[:1] for name, units in found.items()}
        return dict(sorted(named.items(), key=lambda item: not item[1][0].found))


def look(found: TrainedRun, ids: NDArray[Any], source: str, advance: Advance = lambda part, what: None) -> Look:
    """Looks into a model while it reads a text.

    Args:
        found: the run.
        ids: [N] the text; its first `SURVEYED` are measured.
        source: what the text is called.
        advance: is told what part of the work is done, and what comes next.

    Raises:
        InputError: the text has fewer than two characters, or the model's losses are not finite.
    """
    ids = np.asarray(ids[:SURVEYED])
    if len(ids) < 2:
        raise InputError(f"{source} has fewer than two characters; give a text of a few thousand with --text")
    text = found.vocabulary.decode(ids)
    blocks = activations(found.model, found.params, ids, rows=default_rows(len(ids)), newline=found.run.newline)
    with np.errstate(invalid="ignore"):  # checked below
        surveyed = survey(_told(blocks, len(ids), advance), ids, labels.features(text))
    if not np.isfinite(surveyed.nats).all():
        raise InputError(
            f"the losses of step {found.step:,} are not finite, as it diverged; choose another --checkpoint"
        )
    advance(0.7, "counting n-grams")
    beside, why_not = None, ""
    try:
        train = found.data.train.ids[:COUNTED]
    except InputError as error:
        why_not = str(error)
    else:
        beside = _beside(found, train, ids, text, surveyed.nats)
    return Look(
        found=found,
        source=source,
        ids=ids,
        text=text,
        survey=surveyed,
        kinds=losses.loss_by_kind(text, surveyed.nats),
        places=losses.loss_by_place(labels.words(text).place, surveyed.nats),
        symbols=_symbols(found, ids, surveyed.nats),
        moments=[_moment(found, text, surveyed.nats, int(at)) for at in surveyed.nats.argsort()[::-1][:COSTLIEST]],
        beside=beside,
        why_not=why_not,
    )


def as_json(look: Look) -> dict[str, Any]:
    """All of the numbers, as JSON values; a gate's are lists [L][H]."""
    survey, beside = look.survey, look.beside
    curve = {name: getattr(survey.calibration, name).tolist() for name in ("confidence", "accuracy", "characters")}
    return {
        "run": str(look.found.run.folder),
        "step": look.found.step,
        "text": look.source,
        "characters": len(look.ids),
        "nats": look.nats,
        "bits_per_char": bits(look.nats),
        "features": {
            name: {
                "found": len({each[1:3] for each in survey.scores if each.feature == name and each.found}),
                "units": [each._asdict() | {"found": each.found} for each in units],
            }
            for name, units in look.features.items()
        },
        "found_units": survey.found_units,
        "saturated": survey.saturated,
        "gates": {
            name: {side: part.tolist() for side, part in each._asdict().items()}
            for name, each in survey.saturation.items()
        },
        "calibration": {"error": survey.calibration.error} | curve,
        "loss_by_kind": [each._asdict() for each in look.kinds],
        "loss_by_place_in_word": [each._asdict() for each in look.places],
        "costliest_symbols": [each._asdict() for each in look.symbols],
        "costliest_characters": [each._asdict() for each in look.moments],
        "ngrams": beside
        and {
            "nats": beside.nats,
            "best_order": beside.best,
            "trained_on": beside.characters,
            "right": beside.shared._asdict(),
            "gains": [each._asdict() for each in beside.gains],
            "loss_by_context": [each._asdict() for each in beside.by_context],
            "errors": [each._asdict() for each in beside.causes],
        },
    }


def _told(blocks: Iterator[Block], characters: int, advance: Advance) -> Iterator[Block]:
    done = 0
    for block in blocks:
        advance(0.7 * done / characters, "reading")
        yield block
        done += len(block.at)


def _beside(found: TrainedRun, train: NDArray[Any], ids: NDArray[Any], text: str, nats: NDArray[Any]) -> Beside:
    counted, words = ngram(train, ids, len(found.vocabulary)), labels.words(text)
    seen = losses.word_counts(labels.word_texts(found.vocabulary.decode(train)), words)
    return Beside(
        nats=counted.nats.mean(1).tolist(),
        best=counted.best,
        characters=len(train),
        shared=losses.shared(nats, counted.nats[counted.best - 1]),
        gains=_gains(found, ids, counted.nats[counted.best - 1] - nats),
        by_context=losses.loss_by_context(counted.seen[CONTEXT_ORDER - 1], nats),
        causes=losses.causes(text, nats, counted.nats, seen, words),
    )


def _gains(found: TrainedRun, ids: NDArray[Any], gains: NDArray[Any]) -> list[Part]:
    parts = losses.loss_by(found.vocabulary.characters, ids.astype(int), gains)
    ordered = sorted(parts, key=lambda each: -each.nats * each.characters)
    return ordered if len(ordered) <= 2 * GAINS else ordered[:GAINS] + ordered[-GAINS:]


def _symbols(found: TrainedRun, ids: NDArray[Any], nats: NDArray[Any]) -> list[Symbol]:
    """The symbols that cost most of the loss together."""
    counts = np.bincount(ids, minlength=len(found.vocabulary))
    sums = np.bincount(ids, nats, minlength=len(found.vocabulary))
    top, total = sums.argsort()[::-1][:COSTLIEST], nats.sum() or 1.0  # 0 where there is but one symbol
    shown = found.vocabulary.characters
    return [
        Symbol(shown[each], float(sums[each] / total), float(sums[each] / counts[each]), int(counts[each]))
        for each in top
        if counts[each]
    ]


def _moment(found: TrainedRun, text: str, nats: NDArray[Any], at: int) -> Moment:
    before = to_readable(text[max(at - 40, 0) : at], found.config.data.symbols)
    return Moment(before, text[at], float(nats[at]))


def _distinct(units: list[UnitScore]) -> list[UnitScore]:
    """The first units, each once: an lstm's as whichever of its h and c comes first."""
    found: dict[tuple[int, int], UnitScore] = {}
    for each in units:
        found.setdefault((each.layer, each.unit), each)
    return list(found.values())[:UNITS]
