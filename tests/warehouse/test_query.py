"""User SQL: what it may do, what it may not, and how results are written."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from literal_crawls import Shot, write_crawl

from warehouse import lake
from warehouse.errors import InputError
from warehouse.publish import publish
from warehouse.queries import ready_queries, ready_query
from warehouse.query import open_for_queries, query_into, run_query
from warehouse.rules import RuleParameters

HOSTILE = 'A man, "quoted" \x1b[31m with\nred, =cmd()'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("query")
    shots = [
        Shot("a"),
        Shot("z", content="a"),
        Shot("b", face_px=40),
        Shot("c", page=HOSTILE),
        Shot("d", refused="robots_txt"),
    ]
    crawl = write_crawl(root / "raw/x/g001", shots)
    publish(root, [crawl])
    publish(root, [crawl], RuleParameters(min_face_px=32))
    return root


def asked(root: Path, sql: str, format: str = "json", at: int | None = None) -> str:
    out = io.StringIO()
    run_query(root, sql, format, out, at)
    return out.getvalue()


def rows(root: Path, sql: str, at: int | None = None) -> list[dict[str, object]]:
    return json.loads(asked(root, sql, at=at))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("select count(*) as n from corpus", 3),
        ("from corpus select count(*) as n;", 3),
        ("with c as (from corpus) select count(*) as n from c, range(2)", 6),
        ("select sum(pairs)::int as n from funnel", 5),
        ("select count(*) as n from lake.history.decisions where release_to is not null", 1),
        ("select n from (pivot corpus on split in ('train') using count(*)) , (select 7 as n) limit 1", 7),
    ],
)
def test_queries_over_the_views(root: Path, sql: str, value: int) -> None:
    assert rows(root, sql)[0]["n"] == value


def test_at_shows_an_earlier_release(root: Path) -> None:
    assert rows(root, "select count(*) as n from corpus", at=1) == [{"n": 2}]
    with pytest.raises(InputError, match="no release 9"):
        asked(root, "select 1", at=9)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('{catalog}')",
        "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "select * from '/etc/passwd'",
        "select * from '{catalog}'",
        "from 'http://127.0.0.1:9/x.parquet'",
        "select * from glob('/*')",
        "select * from sqlite_scan('{catalog}', 'ducklake_metadata')",
        "select (select count(*) from sqlite_scan('{catalog}', 'ducklake_metadata'))",
        "with x as (select * from sqlite_query('__ducklake_metadata_lake', 'select 1')) from x",
        "select * from __ducklake_metadata_lake.ducklake_snapshot",
        "from __ducklake_metadata_lake.main.ducklake_snapshot",
        "select * from query('select * from read_text(''/etc/passwd'')')",
        "select * from query_table('corpus')",
        "describe select * from read_text('/etc/passwd')",
        "summarize from sniff_csv('/etc/passwd')",
        "select * from corpus where exists (from read_text('/etc/passwd'))",
        "select * from ducklake_cleanup_old_files('lake', cleanup_all => true)",
        "select * from enable_logging()",
        "select * from parquet_metadata('{data}')",
        "select * from '{data}'",
        "copy (select 1) to '{folder}/out.csv'",
        "copy corpus to '{folder}/lake/data/out.parquet'",
        "explain analyze copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/x.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "pragma enable_profiling",
        "call ducklake_expire_snapshots('lake', older_than => now())",
        "delete from history.corpus",
        "insert into runs values (1)",
        "create table t as select 1",
        "drop view corpus",
        "checkpoint",
        "use memory",
        "export database '{folder}/x'",
        "select 1; select 2",
        "select 1; drop view corpus",
        "",
        "selec 1",
        "select nothing from corpus",
        "select * from nowhere",
    ],
)
def test_anything_else_is_refused_in_one_line(root: Path, sql: str) -> None:
    data = next((root / "lake/data").rglob("*.parquet"))
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError) as caught:
        asked(root, sql.format(catalog=lake.catalog_path(root), data=data, folder=root))
    assert "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("sql", ["select * from read_text('/etc/passwd')", "from 'http://127.0.0.1:9/x.parquet'"])
def test_duckdb_itself_is_closed_as_well(root: Path, sql: str) -> None:
    """The second fence holds without the first."""
    import duckdb

    with contextlib.closing(open_for_queries(root)) as con:
        with pytest.raises(duckdb.PermissionException):
            con.execute(sql)
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            con.execute("SET enable_external_access = true")


def test_several_queries_on_one_connection(root: Path) -> None:
    with contextlib.closing(open_for_queries(root)) as con:
        for _ in range(2):
            assert query_into(con, "select 1", "csv", io.StringIO()) == 1
            with pytest.raises(InputError):
                query_into(con, "select oops", "csv", io.StringIO())


def test_formats_agree(root: Path, tmp_path: Path) -> None:
    sql = "select row_id, page_url, score, points_px from corpus order by row_id"
    expected = rows(root, sql)
    by_csv = list(csv.DictReader(io.StringIO(asked(root, sql, "csv"))))
    assert [r["page_url"] for r in by_csv] == [r["page_url"] for r in expected]
    assert any(HOSTILE in str(r["page_url"]) for r in expected)
    assert [json.loads(r["points_px"]) for r in by_csv] == [r["points_px"] for r in expected]
    assert run_query(root, sql, "parquet", tmp_path / "out.parquet") == 3
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
    assert run_query(root, sql, "json", tmp_path / "out.json") == 3
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.parquet"]


def test_table_shows_no_control_characters(root: Path) -> None:
    text = asked(root, "select page_url, 1.5 as x, null as y, [1, 2] as z from corpus", "table")
    assert "\x1b" not in text
    assert text.splitlines()[-1] == "(3 rows)"
    assert len(text.splitlines()) == 6


def test_times_bytes_and_odd_numbers_are_plain_json(root: Path) -> None:
    sql = "select timestamptz '2026-01-01 00:00:00+00' as t, 'a'::blob as b, 'nan'::float as f, 1.5::decimal(4,2) as d"
    assert rows(root, sql) == [{"t": "2026-01-01T00:00:00+00:00", "b": "61", "f": None, "d": 1.5}]


def test_wrong_format_and_parquet_without_a_file(root: Path) -> None:
    with pytest.raises(InputError, match="no output format 'xml': choose table, csv, json, parquet"):
        run_query(root, "select 1", "xml")
    with pytest.raises(InputError, match="give one with --out"):
        run_query(root, "select 1", "parquet")


def test_failed_query_leaves_the_old_file(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    with pytest.raises(InputError):
        run_query(root, "select error('late') from corpus", "csv", out)
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert out.read_text() == "old"


MAY_BE_EMPTY = {"attempts", "captions_with", "faces_over", "models", "provenance", "takedowns"}


@pytest.mark.parametrize("name", sorted(ready_queries()))
def test_ready_made_queries_run_and_say_what_they_answer(root: Path, name: str) -> None:
    assert len(ready_queries()[name].about) > 10
    assert rows(root, name) or name in MAY_BE_EMPTY
    assert asked(root, name, "table", at=1)


def test_ready_made_queries_take_values(root: Path) -> None:
    def ask(name: str, **values: str) -> list[dict[str, object]]:
        return rows(root, ready_query(name).filled(values))

    assert ask("captions_with") == []
    assert len(ask("captions_with", word="WOMAN")) == 3
    assert len(ask("captions_with", word="woman", rows="2")) == 2
    assert ask("captions_with", word="o") == []  # a whole word
    assert ask("captions_with", word="' OR true --") == []
    kept = rows(root, "select row_id, image_id from corpus order by row_id limit 1")[0]
    assert [row["image_id"] for row in ask("provenance", row=str(kept["row_id"]))] == [kept["image_id"]]
    assert ask("threshold", px="96")[0]["lost"] == 1


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nothing", {}, "no ready-made query 'nothing': choose attempts, "),
        ("sample", {"rows": "1; drop"}, "rows='1; drop': give a number"),
        ("sample", {"colour": "1"}, "query sample has no parameter 'colour': it takes rows"),
        ("splits", {"rows": "1"}, "query splits has no parameter 'rows': it takes none"),
    ],
)
def test_wrong_values_are_refused(name: str, values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready_query(name).filled(values)


def test_reading_imports_neither_pyarrow_nor_pandas(root: Path) -> None:
    code = (
        "import sys; from warehouse.query import run_query\n"
        "run_query(sys.argv[1], 'select count(*) as n, max(score) as s from corpus', at=1)\n"
        "run_query(sys.argv[1], 'releases')\n"
        "assert not {'pyarrow', 'pandas', 'numpy'} & set(sys.modules), 'slow imports'"
    )
    run = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
