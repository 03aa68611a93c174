"""Wall time of a build by step."""

from __future__ import annotations

import time
from collections import defaultdict


class StepClock:
    """A progress sink: wall seconds per step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._started: dict[str, float] = {}

    def start(self, name: str, total: float | None) -> None:
        self._started[name] = time.perf_counter()

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        pass

    def finish(self, name: str) -> None:
        self.seconds[name] += time.perf_counter() - self._started[name]
