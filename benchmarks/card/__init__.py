"""The first ten minutes on a GPU: laws, speed against PyTorch's cuDNN, seeds, a run and memory, by one command.

python -m benchmarks.card [--rehearse] [--only PARTS] [--corpus CORPUS] [--out FILE]

Every part is a process of its own with a time limit, in the order of `parts.PARTS`; one that fails or takes too long
costs its own figures alone. FILE, by default card.json, and its Markdown beside it are written anew after each.
`--rehearse` does all of it on the CPU, in small: it shows that every part runs, and says nothing of speed.

The machine needs no network. It needs JAX with CUDA, Flax, Optax, Orbax and PyTorch, which a GPU image has, and the
packages of WHEELS with what these need themselves; docs/accelerators.md says how to carry them.
"""

from dataclasses import dataclass
from typing import Any

from benchmarks.deadline import Deadline

WHEELS = ("pydantic", "lazy-loader")
"""Packages that must be carried where they are missing; charlstm itself runs from the checkout."""

Finding = dict[str, Any]
"""What a part found, in JSON values: a row of its table, or a whole table in "markdown" with what it is made of."""


@dataclass(frozen=True)
class Asked:
    """What a part is to do."""

    rehearse: bool
    corpus: str | None
    """What `experiments/h100.py` trains on; None for charlstm's own source."""
    deadline: Deadline
