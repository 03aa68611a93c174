"""The source `sample:N`: its web is always at the same addresses, because they are the rows' names."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from flows.steps import sample
from flows.steps.config import BuildConfig


@pytest.mark.e2e
def test_a_second_build_waits_for_the_ports_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Ports and lock of our own: another build on this machine is no part of the test.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sample, "_PORT", next(p for p in range(18717, 28717, 4) if _are_free(p, monkeypatch)))
    config = BuildConfig(source="sample:50", root=str(tmp_path))
    second: list[str] = []

    def build_too() -> None:
        with sample.served(config) as (crawlable, _):
            second.append(crawlable.source)

    thread = threading.Thread(target=build_too)
    with sample.served(config) as (crawlable, _):
        thread.start()
        deadline = time.monotonic() + 30
        while "waiting for it to end" not in caplog.text:
            assert time.monotonic() < deadline
            assert not second, "served beside the first"
            time.sleep(0.02)
    thread.join(60)
    assert second == [crawlable.source] == [f"site:http://127.0.0.1:{sample._PORT}"]


def _are_free(port: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(sample, "_PORT", port)
    return sample.free_port() == port
