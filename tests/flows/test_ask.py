"""`gptface sql` (ready-made queries, prompt, script) and `gptface snapshots`, on a lake made by hand."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.prompt import Prompt
from warehouse import lake
from warehouse.errors import InputError

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases of three pairs; the second one keeps one less."""
    root = tmp_path_factory.mktemp("ask")
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    with lake.writing(root) as con:
        con.execute("BEGIN")
        for number, kept in ((1, 3), (2, 2)):
            counts = json.dumps({"pairs": 3, "kept": kept})
            con.execute("INSERT INTO releases VALUES (?, ?, 'run', '1', '{}', '{}', '{}', ?)", [number, now, counts])
        con.execute("""
            INSERT INTO history.decisions BY NAME SELECT 'r' || i AS row_id, true AS kept, 'kept' AS reason,
                'a; "semicolon"' AS caption, 1 AS release_from, CASE i WHEN 0 THEN 2 END AS release_to
            FROM range(3) t(i)""")
        con.execute("COMMIT")
    return root


def script(root: Path, text: str, format: str = "csv") -> tuple[bool, str]:
    out = io.StringIO()
    with Prompt(root, format, None, out) as prompt:
        return prompt.run(io.StringIO(text)), out.getvalue()


def test_a_script_holds_queries_over_several_lines_and_commands(root: Path) -> None:
    text = "select count(*) as n\nfrom decisions;\n\\at 1\nselect count(*) as n from decisions; select 7 as x;\n\\at\n"
    assert script(root, text) == (True, "n\n2\nn\n3\nx\n7\n")
    assert script(root, "select ';' as semicolon,\n'it''s;\n' as b;\nselect 1 as last")[1].startswith("semicolon,b\n;,")
    assert script(root, "\\f json\nselect 1 as x;") == (True, '[\n{"x": 1}\n]\n')


def test_commands_show_tables_columns_and_queries(root: Path) -> None:
    assert "corpus" in script(root, "\\d")[1].split()
    assert "image_host" in script(root, "\\d decisions")[1].split()
    assert "captions_with" in script(root, "\\l")[1]
    assert script(root, "\\r sample rows=5") == (True, "row_id,split,face_px,caption,image_url\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop table decisions;", "only a query can be run here"),
        ("from read_text('/etc/passwd');", "'read_text' is not available here"),
        ("\\x", r"no command \x: \? lists them"),
        ("\\at 9", "no release 9"),
        ("\\at x", "release 'x': give its number"),
        ("\\r nothing", "no ready-made query 'nothing'"),
        ("\\d x';--", "does not exist"),
        ("selec 1;", "query: "),
    ],
)
def test_an_error_is_one_line_and_ends_a_script(
    root: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert script(root, f"{text}\nselect 1 as later;") == (False, "")
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_prompt_goes_on_after_an_error_and_remembers(root: Path, tmp_path: Path) -> None:
    """Through a real terminal."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", "from flows.cli import main; main()", "sql", "--root", str(root)]
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
    typed = b"selec 1;\nselect count(*)\nas found from decisions;\n\\q\n"
    done = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while b"gptface>" not in shown:
            shown += os.read(main, 4096)
        os.write(main, typed)
        deadline = time.monotonic() + 60
        while done.poll() is None and time.monotonic() < deadline:
            try:
                shown += os.read(main, 4096)
            except OSError:  # the other side is closed
                break
        assert done.wait(30) == 0
    finally:
        done.kill()
        done.wait()
        os.close(main)
    text = shown.decode()
    assert "gptface: query:" in text
    assert "(1 row)" in text
    assert "...>" in text
    assert "as found" in (tmp_path / "gptface/sql_history").read_text()


def test_parquet_has_no_prompt(root: Path) -> None:
    with pytest.raises(InputError, match="a prompt writes table, csv, json"):
        Prompt(root, "parquet")


def invoked(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_ready_made_queries_from_the_command_line(root: Path) -> None:
    assert "captions_with" in invoked("sql", "--list", "--root", root)
    told = invoked("sql", "--query", "reasons", "--root", root, "--format", "csv", "--at", 1)
    assert told.splitlines()[1:] == ["kept,kept,3,3"]
    assert invoked("sql", "-q", "sample", "--set", "rows=1", "--root", root, "--format", "json") == "[\n]\n"
    for words in (
        ("select 1", "-q", "sample"),
        ("--set", "rows=1"),
        ("-q", "sample", "--set", "rows"),
        ("-o", "x.csv"),
    ):
        done = CliRunner().invoke(app, ["sql", *words, "--root", str(root)])
        assert isinstance(done.exception, InputError)


def test_snapshots_from_the_command_line(root: Path) -> None:
    rows = json.loads(invoked("snapshots", "--root", root, "--format", "json"))
    assert [(row["release"], row["kept"], row["run_id"]) for row in rows] == [(2, 2, "run"), (1, 3, "run")]
    assert "2026-01-02 00:00" in invoked("snapshots", "--root", root)
