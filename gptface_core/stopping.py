"""SIGTERM, SIGINT and SIGUSR1 (schedulers warn with it) as a wish: the step under way is finished and saved first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gptface_core.errors import TrainingInterrupted

_PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A wish may come more than once: the kernel sends the death signal for each thread of the parent that ends (measured:
# up to five within 7 ms), a terminal and torchrun both pass Ctrl-C on.
SAME_WISH_S = 1.0
Handler = Callable[[int, FrameType | None], Any] | int | None


class Stop:
    """Whether, and by which signal, training was asked to end."""

    def __init__(self) -> None:
        self.number = 0
        self._asked_at = 0.0
        self._before: dict[int, Handler] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._asked_at = number, now
        elif now - self._asked_at > SAME_WISH_S:  # asked again: whoever asks will not wait for the step
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self, where: str, number: int = 0) -> None:
        """End the training, all being saved; `number`: the signal, where another process received it.

        Who listened before gets the signal (Prefect marks its run with it), Python's own answers are left out; then,
        and where that does not raise, TrainingInterrupted.
        """
        listener = self._before.get(self.number)
        self._restore()
        if callable(listener) and listener is not signal.default_int_handler:
            signal.raise_signal(self.number)
        number = self.number or number
        name = signal.Signals(number).name
        raise TrainingInterrupted(f"stopped by {name} after {where}, saved: the same command goes on there", number)


@contextmanager
def listening() -> Iterator[Stop]:
    """A `Stop` that the signals set; the handlers before are put back at the end.

    Outside the main thread Python takes no handlers: the `Stop` is then never set, and a kill is met by the newest
    checkpoint.
    """
    stop = Stop()
    if threading.current_thread() is threading.main_thread():
        stop._before = {int(number): signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        stop._restore()


def end_with_launcher() -> None:
    """Where torchrun started this process: SIGTERM when torchrun is gone, even by SIGKILL (Linux).

    It starts each process in a session of its own, so without it they would train on with nobody to stop them.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
