"""`gptface top`: one frame says what a person wants to know, and fits the terminal."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.top import frame
from flows.steps.progress import Progress, Run, Step, Work, process_started
from sample_web.server import SampleWeb
from tests.flows.conftest import Gptface, build_command

NOW = time.time()


def run(**changes: object) -> Run:
    steps = (
        Step("plan", NOW - 100, ended_at=NOW - 90),
        Step("consent", NOW - 90, total=20, ended_at=NOW - 60),
        Step("download", NOW - 60, total=20),
    )
    pid = os.getpid()
    values = {"process_started": process_started(pid), "started_at": NOW - 100, "steps": steps, **changes}
    return Run("0123456789abcdef", "build", "list:faces.parquet", os.uname().nodename, pid, **values)  # type: ignore[arg-type]


WORK = {
    "consent": Work(shards=20, rows=40_000),
    "download": Work(shards=15, rows=30_000, reasons={"robots_txt": 2_000, **{f"reason_{i}": i for i in range(1, 12)}}),
}


def shown(progress: Progress, width: int) -> list[str]:
    console = Console(width=width, color_system=None, force_terminal=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(frame(progress, width, NOW))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_a_frame_tells_steps_shards_rows_speed_and_time_left(width: int) -> None:
    lines = shown(Progress(run(), WORK, NOW), width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("build list:faces.parquet  running 0:01:40")
    [download] = [line for line in lines if "download" in line]
    assert download.split()[:2] == ["▶", "download"]
    assert download.split()[-6:] == ["15", "5", "30,000", "500", "0:01:00", "0:00:20"]
    [consent] = [line for line in lines if "consent" in line]
    assert consent.split()[:2] == ["✓", "consent"]
    assert consent.split()[-5:] == ["20", "0", "40,000", "1,333", "0:00:30"]
    rest = " ".join(" ".join(lines).split())
    assert "lost 2,066 rows so far" in rest and "robots_txt 2,000" in rest
    assert "others 10" in rest, "reasons beyond the first eight are one: 1 + 2 + 3 + 4"


def test_a_release_tells_what_was_kept() -> None:
    done = run(status="completed", ended_at=NOW - 10, decisions={"kept": 900, "no_face": 100})
    text = "\n".join(shown(Progress(done, WORK, NOW), 80))
    assert "done 0:01:30" in text and "kept 900 of 1,000 rows, lost 100" in text and "robots_txt" not in text


def test_a_run_that_died_or_failed_says_so() -> None:
    text = "\n".join(shown(Progress(run(process_started=1.0), WORK, NOW - 30), 80))
    assert "died 0:01:10" in text, "it was last heard of half a minute ago"
    assert "start the same command again" in text and "✗ download" in text
    failed = run(status="failed", ended_at=NOW, error="No space left on device: [x]")
    assert "No space left on device: [x]" in "\n".join(shown(Progress(failed, WORK, NOW), 80))


def test_silence_is_told() -> None:
    assert "nothing told for 0:05:00" in "\n".join(shown(Progress(run(), WORK, NOW - 300), 120))


@pytest.mark.e2e
def test_once_prints_one_frame_of_a_build_of_another_process(
    small_web: SampleWeb, tmp_path: Path, gptface: Gptface
) -> None:
    root = tmp_path / "root"
    built = subprocess.run(build_command(small_web.url, root), capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    done = gptface("top", "--root", root, "--once")
    assert done.returncode == 0, done.stderr
    assert "build site:" in done.stdout and "kept " in done.stdout
    words = {line.split()[1]: line.split() for line in done.stdout.splitlines() if line.startswith("✓")}
    assert {"plan", "consent", "download", "detect", "publish", "shard"} <= words.keys()
    assert words["download"][-5:-3] == [words["consent"][-5], "0"], "as many shards as were decided, none is left"
    nothing = gptface("top", "--root", root / "lake", "--once")
    assert nothing.returncode == 2 and "no run under" in nothing.stderr
