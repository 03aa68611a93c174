"""What a signal means to a training: once, in a burst, and asked again."""

from __future__ import annotations

import os
import signal
from types import FrameType

import pytest

from gptface_core import stopping
from gptface_core.errors import TrainingInterrupted
from gptface_core.stopping import listening


def _ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_burst_of_signals_is_one_wish_and_a_later_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel sends the death signal once per thread of a killed parent: that must not skip the saving."""
    now, ended = [100.0], []

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)

    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    before = signal.signal(signal.SIGTERM, end)
    try:
        with listening() as stop:
            for later in (0.0, 0.0, 0.007, 0.5):
                now[0] = 100.0 + later
                _ask()
            _ask(signal.SIGINT)  # what a launcher makes of it
            assert (stop.number, ended) == (signal.SIGTERM, [])
            now[0] = 102.0
            _ask()
            assert ended == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)


def test_leaving_names_the_first_signal() -> None:
    with listening() as stop:
        _ask(signal.SIGINT)
        _ask()
        with pytest.raises(TrainingInterrupted, match="stopped by SIGINT after main step 3 of 9, saved") as caught:
            stop.leave("main step 3 of 9")
    assert caught.value.exit_code == 128 + signal.SIGINT
