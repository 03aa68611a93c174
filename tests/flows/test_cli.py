"""The command line as a person meets it: quick, and one clear line with exit code 2 for what does not fit."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sample_web.server import SampleWeb
from tests.flows.conftest import Gptface, build_command
from tests.flows.small_disk import mounted
from warehouse.lake import root_lock


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("gptface: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_help_is_light_and_grouped(gptface: Gptface) -> None:
    # What makes a start slow are heavy imports: named here, since seconds on a busy machine prove nothing.
    code = (
        "import sys; sys.argv = ['gptface', '--help']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert all(group in done.stdout for group in ("Run everything", "Corpus", "Model"))
    loaded = done.stdout.splitlines()[-1]
    for heavy in ("torch", "pyarrow", "pandas", "prefect", "cv2", "duckdb", "scrapy", "numpy"):
        assert f"'{heavy}'" not in loaded, f"gptface --help imports {heavy}"


def test_help_takes_under_a_second(gptface: Gptface) -> None:
    best = min(_seconds(lambda: gptface("--help")) for _ in range(3))
    assert best < 1.0


def _seconds(action: object) -> float:
    started = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - started


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name",
    [
        "build",
        "sql",
        "snapshots",
        "funnel",
        "report",
        "shard",
        "rebuild",
        "card",
        "train",
        "evaluate",
        "edit",
        "demo",
        "backup",
        "restore",
        "up",
    ],
)
def test_every_command_has_help_with_an_example(gptface: Gptface, name: str) -> None:
    done = gptface(name, "--help")
    assert done.returncode == 0
    assert f"Example: gptface {name}" in re.sub(r"\s+", " ", done.stdout)
    assert "--root" in done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("build", "site:http://127.0.0.1:9/", "--allow-private"), "cannot reach http://127.0.0.1:9/"),
        (("build", "site:http://127.0.0.1:9/"), "add --allow-private"),
        (("build", "warez:http://x"), "no source kind 'warez'"),
        (("build", "list:missing.csv"), "no file matches missing.csv"),
        (("build", "sample:7"), "give a number of pictures from 50"),
        (("build", "sample:60", "--detector", "foo"), "unknown detector 'foo': choose from auto, insightface, cascade"),
        (("build", "sample:60", "--rule", "min_face=3"), "no rule parameter 'min_face': choose from"),
        (("build", "sample:60", "--rule", "min_face_px=0"), "min_face_px=0: choose 1 to 100000"),
        (("sql", "select 1"), "run `gptface build"),
        (("funnel",), "run `gptface build"),
        (("train",), "run `gptface build"),
        (("evaluate",), "run `gptface build"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    gptface: Gptface, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    root = tmp_path / "root"
    assert says in refused(gptface(*words, "--root", root))
    assert files_below(root) <= {".lock"} if root.exists() else True
    assert not root.exists() or not list((root / "raw").glob("*"))


def test_an_unknown_option_is_exit_code_2(gptface: Gptface) -> None:
    done = gptface("build", "sample:60", "--colour", "red")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_a_list_without_addresses_names_the_columns_it_has(gptface: Gptface, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("link,words\nhttp://127.0.0.1:9/a.jpg,a face\n")
    line = refused(gptface("build", f"list:{source}", "--root", tmp_path / "root"))
    assert "link" in line
    assert "url" in line


def test_an_empty_list_is_refused(gptface: Gptface, tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text("url,caption\n")
    assert str(source) in refused(gptface("build", f"list:{source}", "--root", tmp_path / "root"))


def test_a_root_that_cannot_be_written(gptface: Gptface, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    line = refused(gptface("build", "sample:60", "--root", blocked / "root"))
    assert "cannot write the root" in line
    assert str(blocked) in line
    assert blocked.read_text() == "not a folder"


def test_a_root_that_another_process_writes(gptface: Gptface, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with root_lock(root):
        line = refused(gptface("build", "sample:60", "--root", root, "--detector", "cascade"))
    assert f"process {os.getpid()}" in line
    assert "another --root" in line


def test_a_traceback_only_with_debug(gptface: Gptface, tmp_path: Path) -> None:
    done = gptface("build", "list:missing.csv", "--root", tmp_path, "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1.5 MiB."""
    with mounted(tmp_path / "disk", "1536k") as disk:
        yield disk


@pytest.mark.e2e
def test_a_disk_that_fills_up(small_disk: Path, small_web: SampleWeb, tmp_path: Path) -> None:
    done = subprocess.run(
        build_command(small_web.url, small_disk / "root"), capture_output=True, text=True, timeout=240, check=False
    )
    assert "No space left" in refused(done)
    temporary = [name for name in files_below(small_disk) if name.endswith((".tmp", ".part"))]
    assert temporary == []


@pytest.mark.e2e
def test_a_truncated_tar_left_by_a_crash_is_made_anew(built_root: Path, small_web: SampleWeb, tmp_path: Path) -> None:
    from tests.flows.test_build import outcome

    root = tmp_path / "root"
    crawl = next((built_root / "raw").glob("*/g000"))
    target = root / crawl.relative_to(built_root)
    for name in ("extract", "plan", "consent"):
        shutil.copytree(crawl / name, target / name)
    tar = crawl / "images" / "00000.tar"
    (target / "images").mkdir()
    (target / "images" / "00000.tar").write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    done = subprocess.run(build_command(small_web.url, root), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert outcome(root) == outcome(built_root)


@pytest.mark.e2e
def test_sql_in_every_format(gptface: Gptface, built_root: Path, tmp_path: Path) -> None:
    query = "select reason, pairs from funnel order by pairs desc, reason"
    table = gptface("sql", query, "--root", built_root)
    rows = json.loads(gptface("sql", query, "--root", built_root, "--format", "json").stdout)
    csv = gptface("sql", query, "--root", built_root, "--format", "csv").stdout.splitlines()
    assert table.returncode == 0
    assert csv[0] == "reason,pairs"
    assert len(csv) == len(rows) + 1
    assert rows[0] == {"reason": "kept", "pairs": rows[0]["pairs"]}
    target = tmp_path / "funnel.parquet"
    assert gptface("sql", query, "--root", built_root, "--format", "parquet", "--out", target).returncode == 0
    import pyarrow.parquet as pq

    assert pq.read_table(target).to_pylist() == rows


@pytest.mark.e2e
@pytest.mark.parametrize(
    "query", ["drop table corpus", "select * from read_text('/etc/hostname')", "copy corpus to 'x.csv'", "selec 1"]
)
def test_sql_is_read_only_and_closed(gptface: Gptface, built_root: Path, query: str) -> None:
    assert "query" in refused(gptface("sql", query, "--root", built_root))


@pytest.mark.e2e
def test_shards_are_verified(gptface: Gptface, built_root: Path) -> None:
    done = gptface("shard", "--verify", "--root", built_root)
    assert done.returncode == 0, done.stderr
    assert "agree with their index" in done.stdout
