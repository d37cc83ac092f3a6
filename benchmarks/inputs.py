"""What every contender is given: the same ids, and the same settings of the optimizer."""

from itertools import cycle

import numpy as np

from benchmarks.shapes import Size

LEARNING_RATE = 1e-3
B1, B2, EPSILON = 0.9, 0.99, 1e-8
GRAD_CLIP = 1.0
TEMPERATURE = 0.8
PRIME = 100
"""Characters that are read before the first is drawn."""
_WINDOWS = 4


def windows(size: Size) -> "cycle[tuple[np.ndarray, np.ndarray]]":
    """Inputs and targets, int32 [B, T] each, in endless turn; a row goes on from the window before it.

    The ids are uniformly random: time does not depend on them, and a loss near ln V says that a model is sane.
    """
    ids = np.random.default_rng(0).integers(
        size.vocabulary, size=(size.batch, _WINDOWS * size.time + 1), dtype=np.int32
    )
    starts = range(0, _WINDOWS * size.time, size.time)
    return cycle([(ids[:, at : at + size.time].copy(), ids[:, at + 1 : at + size.time + 1].copy()) for at in starts])


def prime(size: Size) -> np.ndarray:
    """[PRIME] int32 ids."""
    return np.random.default_rng(1).integers(size.vocabulary, size=PRIME, dtype=np.int32)
