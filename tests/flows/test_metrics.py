"""Metrics as Prometheus gets them, and the dashboard that asks for them."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.steps.config import ConfigError
from flows.steps.gpu import read_gpus
from flows.steps.metrics import sample_names, served_metrics
from flows.steps.watched import Tally, watched
from sample_web.server import SampleWeb
from tests.flows.conftest import build_command
from tests.flows.test_progress import Threads

PROJECT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, tuple[str, ...]], float]
NVIDIA_SMI = """#!/bin/sh
echo "0, 87, 40000, 141000"
echo "1, [N/A], 12, 141000"
"""


def scrape(url: str) -> Samples:
    """Samples by name and the values of their labels, in order of the labels' names."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(v for _, v in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_a_run_is_told_while_it_goes(tmp_path: Path, two_gpus: None) -> None:
    root = tmp_path / "root"
    with served_metrics(root, "0") as url:
        assert {name for name, _ in scrape(url)} <= {name for name in sample_names() if "gpu" in name}, "no run yet"
        with watched(root, "run", "build", 'list:"x"\n', Threads()) as runner:
            runner.step("plan", int, "1")
            runner.map("download", lambda item: Tally(10, {"dns": 2}), range(3))
            runner._start("detect", 5)
            found = scrape(url)
            runner.decided({"kept": 4, "dns": 6})
        after = scrape(url)
    assert found["gptface_rows_total", ("download",)] == 30
    assert found["gptface_rows_lost_total", ("dns", "download")] == 6
    assert found["gptface_shards_done", ("download",)] == 3 and found["gptface_shards_queued", ("download",)] == 0
    assert found["gptface_shards_queued", ("detect",)] == 5
    assert found["gptface_step_seconds", ("plan",)] >= 0
    assert [value for (name, _), value in found.items() if name == "gptface_run"] == [1]
    assert [value for (name, _), value in after.items() if name == "gptface_run"] == [0]
    assert after["gptface_run_failed", ()] == 0 and after["gptface_decisions", ("kept",)] == 4
    assert found["gptface_gpu_use_ratio", ("0",)] == 0.87
    assert found["gptface_gpu_memory_bytes", ("1",)] == 12 * 2**20
    assert ("gptface_gpu_use_ratio", ("1",)) not in found, "a device that does not tell is not idle"
    with pytest.raises(OSError, match="refused"):
        scrape(url)


def test_without_a_gpu_nothing_is_said_about_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() == []


@pytest.mark.parametrize("listen", ["metrics", "127.0.0.1:", "70000", "-1"])
def test_what_is_no_port_is_one_clear_line(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"\[HOST:\]PORT"), served_metrics(tmp_path, listen):
        pass


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with served_metrics(tmp_path, "0") as url:
        port = url.split(":")[2].split("/")[0]
        with pytest.raises(ConfigError, match=f"{port}.*choose another port"), served_metrics(tmp_path, port):
            pass


def test_nothing_is_served_unless_asked_for(tmp_path: Path) -> None:
    with served_metrics(tmp_path, "") as url:
        assert url == ""


def test_the_dashboard_asks_for_what_is_told_and_for_all_of_it() -> None:
    dashboard = json.loads((PROJECT / "deploy/grafana/gptface.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert all(panel["targets"] and panel["title"] for panel in dashboard["panels"])
    assert set(re.findall(r"gptface_\w+", " ".join(asked))) == sample_names()
    boxes = [tuple(panel["gridPos"][name] for name in "xywh") for panel in dashboard["panels"]]
    apart = [
        ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
        for i, (ax, ay, aw, ah) in enumerate(boxes)
        for bx, by, bw, bh in boxes[:i]
    ]
    assert all(apart), "no panel lies over another"


@pytest.mark.e2e
def test_a_build_is_scraped_over_http_while_it_runs(small_web: SampleWeb, tmp_path: Path) -> None:
    with served_metrics(tmp_path, "0") as url:  # a port that was free a moment ago
        address = url.removeprefix("http://").removesuffix("/metrics")
    command = [*build_command(small_web.url, tmp_path / "root"), "--metrics", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    last: Samples = {}  # of those that were taken while the run was under way
    try:
        while process.poll() is None:
            try:
                found = scrape(f"http://{address}/metrics")
            except OSError:
                found = {}  # not begun, or over
            if 1 in [value for (name, _), value in found.items() if name == "gptface_run"]:
                last = found
            time.sleep(0.1)
    finally:
        process.kill()
        _, told = process.communicate()
    assert process.returncode == 0, told
    parts = last["gptface_shards_done", ("download",)]
    assert parts >= 5 and last["gptface_rows_total", ("download",)] > 100
    assert any(name == "gptface_rows_lost_total" and "robots_txt" in labels for name, labels in last)
