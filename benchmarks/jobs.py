"""What a process can be asked to measure."""

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from benchmarks import floor, parity
from benchmarks.contenders import JAX_LIBRARIES, VARIANTS, Work, make
from benchmarks.settings import Settings, environment
from benchmarks.shapes import Size

Kind = Literal["train", "eval", "sample", "products", "weights", "parity"]


@dataclass(frozen=True)
class Job:
    """One contender at one kind of work."""

    contender: str
    kind: Kind
    size: Size
    streams: int = 1
    """Texts that are drawn side by side."""
    length: int = 1000
    """Characters that are drawn in each."""
    settings: Settings = "shipped"
    """The reading; it decides the environment of the process."""

    @property
    def words(self) -> list[str]:
        """The command line of `benchmarks.worker` that does it."""
        numbers = ["--streams", self.streams, "--length", self.length]
        return [self.contender, self.kind, str(self.size), *map(str, numbers)]

    @property
    def environment(self) -> dict[str, str]:
        """Of its process, without what depends on a place."""
        return environment(self.settings, jax=self.contender in JAX_LIBRARIES)

    @property
    def caches(self) -> bool:
        """Whether what it compiles is kept for its next process, without its user asking for that."""
        return self.contender in VARIANTS

    def load(self) -> None:
        """Import the library, which is no part of what is timed."""
        if self.contender in floor.FLOORS:
            import_module(floor.FLOORS[self.contender])
        else:
            make(self.contender)

    def work(self) -> Work:
        """The model, ready to be run."""
        if self.kind == "products" or self.kind == "weights":
            return floor.measure(self.contender, self.kind, self.size)
        contender = make(self.contender)
        match self.kind:
            case "train":
                return contender.train(self.size)
            case "parity":
                return parity.check(contender)
            case "eval":
                return contender.evaluate(self.size)
            case "sample":
                return contender.sample(self.size, self.streams, self.length)
