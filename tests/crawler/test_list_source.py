"""list:FILE in every format, with columns under every name."""

from __future__ import annotations

import bz2
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.errors import InputError
from crawler.extract import absolute, collapse
from crawler.rows import FOUND
from crawler.sources import Candidate, open_source
from crawler.sources.base import Damage, Found
from crawler.sources.list import ListSource
from crawler.sources.listcolumns import Columns, detect_columns

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


def read_all(path: Path) -> list[Found]:
    source = open_source(f"list:{path}")
    assert isinstance(source, ListSource)
    return [item for unit in source.units() for item in source.read(unit)]


def read(path: Path) -> list[Candidate]:
    """The candidates of a list without any damage."""
    found = [item for item in read_all(path) if isinstance(item, Candidate)]
    assert len(found) == len(read_all(path)), "the list is damaged"
    return found


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
        ("missing.csv", None, "no file matches"),
        ("empty.csv", b"", "cannot read list"),
        ("broken.jsonl", b'{"url":\n', "line 1 is not JSON"),
        ("array.jsonl", b"[1]\n", "not a JSON object"),
        ("deep.jsonl", b"[" * 100_000, "not JSON"),
        ("broken.parquet", b"PAR1 no", "cannot read list"),
        ("list.xlsx", b"x", "unknown ending"),
    ],
)
def test_files_that_are_no_lists_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_all(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_numbers_are_no_addresses(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": [1, 2]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="column url holds int64"):
        read_all(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    ("name", "content", "urls", "message"),
    [
        ("header.csv", b"url,caption\n", [], "holds no picture address"),
        ("empty.jsonl", b"", [], "holds no picture address"),
        ("ragged.csv", b"url,caption\nhttp://a/,x\nhttp://b/,x,y\nhttp://c/,z\n", ["http://a/", "http://c/"], "1 rows"),
        (
            "lines.jsonl",
            b'{"url": "http://a/"}\n{"url":\n{"url": "http://b/"}\n7',
            ["http://a/", "http://b/"],
            "2 lines",
        ),
        ("cut.csv.gz", gzip.compress(b"url\n" + b"http://a/\n" * 20_000, mtime=0)[:-20], None, "damaged"),
        ("cut.jsonl.gz", gzip.compress(b'{"url": "http://a/"}\n' * 20_000, mtime=0)[:-20], None, "damaged"),
        ("long.jsonl", b'{"url": "http://a/"}\n{"text": "' + b"x" * (17 << 20), ["http://a/"], "line 2 is over"),
    ],
)
def test_damage_costs_no_good_row_and_is_told(
    tmp_path: Path, name: str, content: bytes, urls: list[str] | None, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    *found, damage = read_all(tmp_path / name)
    assert isinstance(damage, Damage)
    assert message in damage.message and damage.file == str(tmp_path / name)
    good = [item.image_url for item in found if isinstance(item, Candidate)]
    assert good == urls if urls is not None else set(good) == {"http://a/"} and 18_000 < len(good) <= 20_000


def test_a_damaged_parquet_yields_the_row_groups_before(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    with pq.ParquetWriter(path, pa.schema([("url", pa.string())]), compression="zstd", use_dictionary=False) as writer:
        for group in range(3):
            writer.write_table(pa.table({"url": [f"http://a/{group}/{i}" for i in range(10_000)]}))
    second = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[second : second + 2000] = bytes(2000)
    path.write_bytes(content)
    *found, damage = read_all(path)
    assert isinstance(damage, Damage) and "damaged" in damage.message
    assert [c.image_url for c in found if isinstance(c, Candidate)] == [f"http://a/0/{i}" for i in range(10_000)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    import zstandard

    plain = write(tmp_path / f"list.{ending}", "url", "caption")
    expected, content = read(plain), plain.read_bytes()
    for suffix, compressed in (
        ("gz", gzip.compress(content)),
        ("zst", zstandard.compress(content)),
        ("bz2", bz2.compress(content)),
    ):
        path = tmp_path / f"list.{ending}.{suffix}"
        path.write_bytes(compressed)
        assert read(path) == expected


def test_globs_are_one_unit_per_file(tmp_path: Path) -> None:
    for number in (2, 1):
        (tmp_path / f"{number}.csv").write_text(f"url\nhttp://a/{number}.jpg\n")
    (tmp_path / "3.jsonl").write_text('{"url": "http://a/3.jpg"}\n')
    (tmp_path / "notes.txt").write_text("no list")
    units = ListSource(str(tmp_path / "[0-9].*")).units()
    assert [Path(unit.name).name for unit in units] == ["1.csv", "2.csv", "3.jsonl"]
    assert all(unit.fingerprint for unit in units)
    assert [c.image_url for c in read(tmp_path / "[0-9].*")] == [f"http://a/{n}.jpg" for n in (1, 2, 3)]


def test_a_large_parquet_is_several_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawler.sources.list._SPLIT_BYTES", 0)
    monkeypatch.setattr("crawler.sources.list._UNIT_ROWS", 25)
    path = tmp_path / "list.parquet"
    urls = [f"http://a.example/{i}.jpg" for i in range(95)]
    pq.write_table(pa.table({"url": urls}), path, row_group_size=10)
    units = ListSource(str(path)).units()
    groups = [unit.name.partition("#row-groups=")[2] for unit in units]
    assert groups == ["0-2", "2-4", "4-6", "6-8", "8-10"]
    assert len({unit.fingerprint for unit in units}) == 1
    assert [c.image_url for c in read(path)] == urls


def test_text_in_other_encodings_costs_a_character_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"url,caption\nhttp://a/1.jpg,caf\xe9\nhttp://a/2.jpg,NA\n")
    assert [c.captions[0].text for c in read(tmp_path / "latin.csv")] == ["caf\ufffd", "NA"]
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfurl\nhttp://a/1.jpg\n")
    assert len(read(tmp_path / "bom.csv")) == 1
    (tmp_path / "bom.jsonl").write_bytes(b'\xef\xbb\xbf{"url": "http://a/\\ud800.jpg"}\n')
    assert len(read(tmp_path / "bom.jsonl")) == 1


def test_rows_of_a_jsonl_may_differ(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"url": "http://a/1"}\n{"TEXT": "t", "URL": "http://a/2"}\n{"x": 1}\n')
    assert [(c.image_url, len(c.captions)) for c in read(tmp_path / "list.jsonl")] == [
        ("http://a/1", 0),
        ("http://a/2", 1),
    ]


def test_other_text_types_of_a_parquet(tmp_path: Path) -> None:
    url = ["http://a/1.jpg", None, "http://a/2.jpg"]
    text = pa.array(["x", "y", None])
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"url": pa.array(url).cast(kind), "text": text.cast(kind), "page_url": [1, 2, 3]})
        pq.write_table(table, tmp_path / "list.parquet")
        assert [(c.page_url, c.image_url) for c in read(tmp_path / "list.parquet")] == [(u, u) for u in url if u]


URLS = [
    "https://a.example/1.jpg?x=1&y=/..",
    "HTTP://A.Example/1.jpg#top",
    "https://a.example",
    "https://a.example/?",
    "https://a.example/a;b?c;d",
    "https://a.example/x;",
    "https://a.example/a/../b/./c.jpg",
    "https://user:p@a.example/x",
    "https://a.example:8080/x%20y",
    "https://a.example/ü.jpg",
    "https://ü.example/1.jpg",
    "https://a.example/a b.jpg",
    "//a.example/x.jpg",
    "ftp://a.example/x.jpg",
    "nonsense",
    "https://[::1]/x",
    "https://a.example/" + "x" * 9000,
    "data:image/png;base64,AAAA",
]
TEXTS = [
    "plain text",
    " two  spaces ",
    "tab\there",
    "é",
    "\u00a0x\u2003y",
    "x" * 700,
    "a\0b",
    "line\nline",
    "\x1f",
    " ",
]


def test_columns_are_taken_as_pages_would_give_them(tmp_path: Path) -> None:
    """The fast path gives what `absolute` and `collapse` give row by row."""
    rows = [{"url": url, "page_url": page, "text": "x"} for url in URLS for page in (*URLS, None)]
    rows += [{"url": f"https://a.example/{i}", "page_url": None, "text": text} for i, text in enumerate(TEXTS)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = []
    for row in rows:
        url = absolute(str(row["url"]), str(row["url"])) or str(row["url"])
        page = str(row["page_url"] or url)
        text = collapse(row["text"])
        expected.append((absolute(page, page) or page, url, [text] if text else []))
    found = [(c.page_url, c.image_url, [x.text for x in c.captions]) for c in read(tmp_path / "list.jsonl")]
    assert found == expected


def test_batches_are_what_read_gives(tmp_path: Path) -> None:
    path = write(tmp_path / "list.parquet", "url", "caption")
    source = ListSource(str(path))
    [unit] = source.units()
    [batch] = source.batches(unit)
    assert isinstance(batch, pa.RecordBatch)
    assert batch.schema.equals(FOUND)
    assert batch.column("image_url").to_pylist() == [c.image_url for c in read(path)]


@pytest.mark.e2e
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """One row group of 90 MB of addresses: its rows are never all in memory, only batches of them."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process by itself is told by Linux alone")
    code = """
import sys
def peak_kib():  # getrusage would begin with the peak of the process that started this one
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
from crawler.sources.list import ListSource
source = ListSource(sys.argv[1])
count, base = 0, 0
for unit in source.units():
    for batch in source.batches(unit):
        base = base or peak_kib()
        count += batch.num_rows
print(count, (peak_kib() - base) // 1024)
"""
    schema = pa.schema([("url", pa.string())])
    for count in (100_000, 800_000):
        path = tmp_path / f"{count}.parquet"
        urls = [f"https://host-{i}.example/{'x' * 60}/{i}.jpg" for i in range(count)]
        with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
            writer.write_table(pa.table({"url": urls}), row_group_size=count)
    sizes = []
    for count in (100_000, 800_000):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{count}.parquet")], capture_output=True, text=True, check=True
        )
        rows, grown = map(int, done.stdout.split())
        assert rows == count
        sizes.append(grown)
    assert sizes[1] - sizes[0] < 25, f"memory grew by {sizes} MiB"


@pytest.mark.parametrize("spec", ["", "list", "list:", "site:", "ftp:x", "https://example.org"])
def test_unknown_sources_are_one_line(spec: str) -> None:
    with pytest.raises(InputError, match="site:"):
        open_source(spec)
