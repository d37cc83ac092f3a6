"""When a comparison has to be over."""

import time
from math import inf


class Deadline:
    """A point in time. Work that is begun may go on to it; none is begun shortly before."""

    def __init__(self, seconds: float = inf, margin: float = 0.0) -> None:
        """`seconds` from now on; nothing is begun in the last `margin` of them."""
        self._ends, self._margin = time.monotonic() + seconds, margin

    @property
    def left(self) -> float:
        """Seconds up to it, not below 0."""
        return max(self._ends - time.monotonic(), 0.0)

    @property
    def near(self) -> bool:
        """Whether nothing more is begun."""
        return self.left <= self._margin
