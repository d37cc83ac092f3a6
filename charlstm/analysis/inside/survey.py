"""One pass over a text: losses, calibration, saturated gates, and the units that follow a feature."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.analysis.inside.activations import Block, GateSaturation, Saturation
from charlstm.analysis.inside.losses import Calibration, calibration
from charlstm.analysis.inside.units import UnitFeatures, UnitScore


class Survey(NamedTuple):
    """What one pass over N characters finds."""

    nats: NDArray[Any]
    """[N], -log of each character's probability."""
    calibration: Calibration
    """Of the N - 1 predictions that the text tells the answer to."""
    saturation: dict[str, Saturation]
    """By gate."""
    scores: list[UnitScore]
    """As `unit_features` gives them."""

    @property
    def found_units(self) -> int:
        """How many units stand out for some feature; an lstm's h and c count as one."""
        return len({(each.layer, each.unit) for each in self.scores if each.found})

    @property
    def saturated(self) -> float | None:
        """The fraction of time that a gate is saturated, on either side, over all gates and units; None without any."""
        parts = [(each.left + each.right).mean() for each in self.saturation.values()]
        return float(np.mean(parts)) if parts else None


def survey(blocks: Iterable[Block], ids: NDArray[Any], features: Mapping[str, NDArray[Any]]) -> Survey:
    """Reads the blocks of a text, ids [N], once; `features` are those of `unit_features`."""
    units, gates = UnitFeatures(features), GateSaturation()
    nats, confidence, right = np.zeros(len(ids)), np.zeros(len(ids)), np.zeros(len(ids), bool)
    for block in blocks:
        units.add(block)
        gates.add(block)
        nats[block.at] = block.nats
        shifted = block.logits.astype(np.float64)
        shifted -= shifted.max(-1, keepdims=True)
        confidence[block.at] = 1 / np.exp(shifted).sum(-1)
        right[block.at] = shifted.argmax(-1) == ids[np.minimum(block.at + 1, len(ids) - 1)]
    return Survey(nats, calibration(confidence[:-1], right[:-1]), gates.fractions(), units.scores())
