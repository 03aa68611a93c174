"""How bench.orchestration and bench.scale_sim reckon: spans of time on two workers, and growth."""

from __future__ import annotations

import time
import types
from pathlib import Path

import pytest

import crawler.engine
import flows.steps.manifest
import warehouse.shards
from bench._orchestrated_build import Spanned, _clocks
from bench.orchestration import covered, length, report, within
from bench.scale_sim import summarise


def test_spans_that_touch_count_once() -> None:
    assert covered([(4, 5), (0, 2), (1, 3)]) == [(0, 3), (4, 5)]
    assert length(covered([(0, 2), (0, 2)])) == 2
    assert within([(0, 3), (4, 5)], (2, 4.5)) == [(2, 3), (4, 4.5)]


def test_overhead_is_the_wall_time_in_which_nobody_works() -> None:
    spans = [
        {"kind": "fetch", "start": 10.0, "end": 40.0},
        {"kind": "fetch", "start": 15.0, "end": 45.0},
        {"kind": "write", "start": 60.0, "end": 90.0},
    ]
    told = {"steps": [("plan", 2, 5), ("download", 5, 50), ("shard", 55, 95)], "kept": 7, "tars": 1, "detector": "d"}
    found = report((0, 100), told, spans, {"processes": 2}, 20, 1000)
    assert found["overhead"] == pytest.approx(1 - (35 + 30) / 100)
    assert found["worker_overhead"] == pytest.approx(1 - 90 / 200), "one of the two had nothing to write"
    assert found["work_s"] == {"fetch": 60, "write": 30}
    assert found["outside_s"] == {"plan": 3, "download": 10, "shard": 10, "before, between and after steps": 12}
    assert sum(found["outside_s"].values()) == pytest.approx(100 * found["overhead"])
    assert not found["ok"]


def test_only_what_is_work_is_clocked() -> None:
    spans: list[tuple[str, float, float]] = []
    plain = warehouse.shards.write_shard
    with _clocks("shard", spans), pytest.raises(AttributeError):
        warehouse.shards.write_shard(None, [], None)  # type: ignore[arg-type]
    assert [kind for kind, _, _ in spans] == ["write"] and warehouse.shards.write_shard is plain
    with _clocks("shard", spans), pytest.raises(FileNotFoundError):
        flows.steps.manifest.sample_rows(Path("nowhere.tar"), {})
    assert len(spans) == 2, "a tar is listed as it is written"
    with _clocks("consent", spans):
        pass
    assert len(spans) == 2


def test_the_downloader_is_clocked_without_its_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[str, float, float]] = []

    class Downloader:
        def download_shard(self, row: int) -> int:
            return row + 1

    def load() -> types.SimpleNamespace:
        time.sleep(0.05)
        return types.SimpleNamespace(Downloader=Downloader)

    monkeypatch.setattr(crawler.engine, "load_downloader", load)
    with _clocks("download", spans):
        began = time.time()
        assert crawler.engine.load_downloader().Downloader().download_shard(1) == 2
    [(kind, start, end)] = spans
    assert kind == "fetch" and began + 0.05 <= start <= end
    assert crawler.engine.load_downloader is load


def test_a_clocked_shard_gives_its_own_result(tmp_path: object) -> None:
    assert Spanned("consent", len, str(tmp_path))([1, 2]) == 2


def test_growth_is_one_where_ten_times_the_shards_take_ten_times_as_long() -> None:
    small = {
        "seconds": 10.0,
        "cpu_s": 15.0,
        "read_s": 0.1,
        "steps": {"plan": 4.0},
        "peak_gib": 1,
        "tars": 1,
        "files": 1,
    }
    large = {**small, "seconds": 100.0, "cpu_s": 300.0, "steps": {"plan": 40.0}}
    found = summarise(small, large, 1000, 2, 110)
    assert (found["growth"], found["cpu_growth"], found["read_growth"]) == (1, 2, 1)
    assert found["ms_per_shard"] == 100 and found["shards_per_s"] == 10 and not found["ok"], (
        "processor time is not linear"
    )
    assert summarise(small, {**large, "cpu_s": 150.0}, 1000, 2, 110)["ok"]
    assert not summarise(small, {**large, "cpu_s": 150.0}, 1000, 2, 601)["ok"]
