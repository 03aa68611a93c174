"""list:FILE in every format, with columns under every name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.errors import InputError
from crawler.sources import Candidate, open_source
from crawler.sources.list import Columns, detect_columns

ROWS = [
    ("https://a.example/1.jpg", "Ada, smiling"),
    ("https://a.example/2.jpg", ""),
    ("https://b.example/3.jpg", "Bób"),
]


def write(path: Path, url: str, caption: str) -> Path:
    """ROWS in the format of the path's ending."""
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({"n": [1, 2, 3], url: [r[0] for r in ROWS], caption: [r[1] or None for r in ROWS]}), path
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"n": i, url: u, caption: c}) + "\n" for i, (u, c) in enumerate(ROWS)))
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        lines = [("n", url, caption), *((str(i), u, f'"{c}"') for i, (u, c) in enumerate(ROWS))]
        path.write_text("".join(comma.join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[Candidate]:
    return list(open_source(f"list:{path}").candidates())


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("url", "caption"), [("url", "caption"), ("URL", "TEXT"), ("image_url", "alt"), ("Url", "text")]
)
def test_formats_and_column_names(tmp_path: Path, ending: str, url: str, caption: str) -> None:
    found = read(write(tmp_path / f"list.{ending}", url, caption))
    assert [(c.page_url, c.image_url) for c in found] == [(u, u) for u, _ in ROWS]
    assert [[(x.kind.value, x.text) for x in c.captions] for c in found] == [
        [("list", "Ada, smiling")],
        [],
        [("list", "Bób")],
    ]


def test_page_addresses_are_taken_where_given(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("page_url,url\nhttps://p.example/,https://a.example/1.jpg\n,https://a.example/2.jpg\n")
    assert [c.page_url for c in read(path)] == ["https://p.example/", "https://a.example/2.jpg"]


def test_rows_without_address_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"url": null}\n\n{"url": 7}\n{"url": " https://a.example/1.jpg "}\n{"text": "x"}\n')
    assert [c.image_url for c in read(path)] == ["https://a.example/1.jpg"]


def test_detection_prefers_the_plainest_name() -> None:
    assert detect_columns(["alt", "URL", "image_url", "page_url"], "f") == Columns("image_url", "alt", "page_url")


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_no_url_column_is_one_line_that_lists_the_columns(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"list.{ending}", "link", "words")
    with pytest.raises(InputError, match=r"no column of picture addresses.*link, words") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "no such list file"),
        ("empty.csv", b"", "cannot read list"),
        ("header.csv", b"url,caption\n", "holds no picture address"),
        ("empty.jsonl", b"", "holds no picture address"),
        ("broken.jsonl", b'{"url": "http://a/"}\n{"url":\n', "line 2 is not JSON"),
        ("array.jsonl", b"[1]\n", "not a JSON object"),
        ("broken.parquet", b"PAR1 no", "cannot read list"),
        ("list.xlsx", b"x", "unknown ending"),
        ("ragged.csv", b"url,caption\nhttp://a/,x\nhttp://b/,x,y\n", "cannot read list"),
        ("binary.csv", b"url\nhttp://a/\xff\xfe\n", "cannot read list"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "list", "list:", "site:", "ftp:x", "https://example.org"])
def test_unknown_sources_are_one_line(spec: str) -> None:
    with pytest.raises(InputError, match="site:"):
        open_source(spec)
