"""The sizes that are measured, and how much work each is: operations of products, bytes of weights."""

import re
from dataclasses import dataclass

from charlstm.config import ModelConfig
from charlstm.support.errors import InputError

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Size:
    """A model and a window: B×T×H×L over V symbols. Written as on the command line, ``100x100x512x2``."""

    batch: int
    time: int
    hidden: int
    layers: int
    vocabulary: int = 83

    @classmethod
    def parse(cls, text: str) -> "Size":
        """The inverse of `str`; × will do for x.

        Raises:
            InputError: it is not four positive counts.
        """
        counts = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text.strip())
        if counts is None:
            raise InputError(f"a size is BxTxHxL, as in 100x100x512x2, not {text!r}")
        return cls(*map(int, counts.groups()))

    def __str__(self) -> str:
        return f"{self.batch}x{self.time}x{self.hidden}x{self.layers}"

    @property
    def characters(self) -> int:
        """Characters of one window, B·T."""
        return self.batch * self.time

    @property
    def model(self) -> ModelConfig:
        """The LSTM stack of this size."""
        return ModelConfig(hidden_size=self.hidden, num_layers=self.layers)


BOOK = Size(100, 100, 512, 2)
SMALL = Size(50, 50, 128, 1)
SIZES = (BOOK, SMALL, Size(64, 50, 128, 2), Size(16, 1024, 768, 1))
"""The book's, two small ones that people begin with, and a long window over a wide layer."""


def forward_operations(size: Size) -> int:
    """Floating-point operations of the products of one pass over a window, a multiplication and an addition each."""
    from charlstm.core.size import count_operations  # which loads JAX, and other libraries' processes read sizes too

    return size.characters * count_operations(size.model, size.vocabulary)


def training_operations(size: Size) -> int:
    """Floating-point operations of the products of one training step.

    Each product y = x·W of the pass forward has two more in the pass backward, for the gradients of x and of W. The
    carry before the window needs no gradient, which leaves out one product for each layer and row:

        3·forward - 8·H²·L·B

    The gradient of the first layer's input kernel adds rows up. Gates, loss, clipping and Adam are not products either.
    """
    return 3 * forward_operations(size) - 8 * size.hidden**2 * size.layers * size.batch


def streamed_bytes(size: Size) -> int:
    """Bytes of the weights that drawing one character reads, in float32.

    All of them but the first layer's input kernel, of which it reads one row of 4H:

        4·(4·H²·(2L - 1) + 4·H·(L + 1) + H·V + V)
    """
    hidden, vocabulary = size.hidden, size.vocabulary
    kernels = 4 * hidden**2 * (2 * size.layers - 1)
    rows = 4 * hidden * (size.layers + 1)
    return FLOAT * (kernels + rows + hidden * vocabulary + vocabulary)
