"""The command and its parts, without a crawl: what is asked for, what is overwritten, what is told."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.tombstones import Tombstones, load_tombstones, of_rows
from flows.steps.config import ConfigError
from flows.steps.erase_files import overwrite, scrub_table
from flows.steps.layout import Layout
from flows.steps.likeness import pictures_of_person
from flows.steps.space import is_disk_full
from flows.steps.takedown import TakedownConfig, plan
from warehouse.removal import GONE, Removal
from warehouse.schema import content_id
from warehouse.tombstones import address_stones, ensure_key, host_stones, look_stones, picture_stones

KEY = bytes(range(32))


def removal(*urls: str, hosts: tuple[str, ...] = ()) -> Removal:
    ids = frozenset(map(content_id, urls))
    return Removal(frozenset(), ids, frozenset({"a" * 64}), ids, frozenset(map(content_id, hosts)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": ("example.org/a.jpg",)}, "--url 'example.org/a.jpg': give a whole address"),
        ({"hosts": ("https://example.org/people",)}, "--host .*: give a name such as"),
        ({"sha256s": ("abc",)}, "--sha256 'abc': give 64 hex digits"),
        ({"near_bits": 40}, "--near-bits 40: choose 0 to 16"),
        ({"similarity": 0.0}, "--similarity 0.0"),
    ],
)
def test_what_cannot_be_taken_down_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TakedownConfig("root", **settings)


def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no corpus under"):
        plan(TakedownConfig(str(tmp_path / "none"), urls=("http://h/a.jpg",)))


def test_a_person_needs_embeddings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no face embeddings under .*biometric"):
        pictures_of_person(Layout(tmp_path), tmp_path / "me.jpg", 0.4, "cascade", "buffalo_sc")


@pytest.mark.e2e
def test_pictures_of_a_person_are_those_with_a_near_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from flows.steps import likeness
    from warehouse.schema import EMBEDDINGS

    vectors = {"same": [0.8, 0.6], "other": [0.0, 1.0]}
    import datetime as dt

    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    rows = [
        {"image_id": n, "face_index": 0, "embedding": v, "model": "m", "expires_at": tomorrow}
        for n, v in vectors.items()
    ]
    folder = tmp_path / "raw/s/g000/faces"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EMBEDDINGS), folder / "00000.embeddings.parquet")
    monkeypatch.setattr(likeness, "_embedded", lambda *_: (np.array([1, 0], np.float32), "m"))
    layout, picture = Layout(tmp_path), tmp_path / "me.jpg"
    assert pictures_of_person(layout, picture, 0.5, "cascade", "p") == ["same"]
    assert pictures_of_person(layout, picture, 0.9, "cascade", "p") == []
    monkeypatch.setattr(likeness, "_embedded", lambda *_: (np.array([1, 0], np.float32), "another"))
    with pytest.raises(ConfigError, match="made by m, not by another"):
        pictures_of_person(layout, picture, 0.5, "cascade", "p")


def test_a_member_is_overwritten_and_the_tar_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("one.jpg", b"1" * 700), ("two.jpg", b"2" * 900), ("three.jpg", b"3" * 5)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as tar:
        places = {m.name: (m.offset_data, m.size) for m in tar}
    size = path.stat().st_size
    for _ in range(2):  # again: the same
        assert overwrite(tmp_path, [("00000.tar", *places["two.jpg"]), ("gone.tar", 512, 1)]) == 1
        data = path.read_bytes()
        assert len(data) == size and b"two.jpg" not in data and b"22" not in data
        with tarfile.open(path) as tar:
            there = {m.name: (m.offset_data, m.size) for m in tar}
        assert {name: there.get(name) for name in ("one.jpg", "three.jpg")} == {
            name: places[name] for name in ("one.jpg", "three.jpg")
        }


def test_rows_lists_and_texts_lose_what_goes_and_nothing_else(tmp_path: Path) -> None:
    page, other = "http://h/gone.html", "http://h/stays.html"
    path = tmp_path / "links.parquet"
    schema = pa.schema(
        [
            pa.field("page_url", pa.string(), nullable=False),
            pa.field("links", pa.list_(pa.string())),
            pa.field("error", pa.string()),
        ]
    )
    rows = [
        {"page_url": page, "links": [other], "error": None},
        {"page_url": other, "links": [page, other], "error": f"led to {page}, not good"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert scrub_table(path, removal(page)) == 1
    table = pq.read_table(path)
    assert table.schema.equals(schema)
    assert table.to_pylist() == [{"page_url": other, "links": [other], "error": f"led to {GONE}, not good"}]
    before = path.stat().st_mtime_ns
    assert scrub_table(path, removal(page)) == 0
    assert path.stat().st_mtime_ns == before, "what has nothing to lose is not written"


def test_a_full_disk_is_no_reason_to_delete_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "links.parquet"
    pq.write_table(pa.table({"page_url": ["http://h/gone.html", "http://h/stays.html"]}), path)
    whole = path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.steps.erase_files._rewrite", full)
    with pytest.raises(OSError, match="No space left") as caught:
        scrub_table(path, removal("http://h/gone.html"))
    assert is_disk_full(caught.value) and "delete it" not in str(caught.value)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see http://h/a.jpg.", f"see {GONE}."),
        ("http://h/a.jpg?x=1", "http://h/a.jpg?x=1"),
        ("https://gone.org:81/x and http://stays.org/gone.org", f"{GONE} and http://stays.org/gone.org"),
        ("http://sub.gone.org/", "http://sub.gone.org/"),
        ("plain text", "plain text"),
        ("(http://h/a.jpg), http://h/a.jpg", f"({GONE}), {GONE}"),
        ("http://h/b,(c).jpg,200", f"{GONE},200"),
        ("https://archive.org/http://h/a.jpg", f"https://archive.org/{GONE}"),
    ],
)
def test_texts_lose_addresses_that_go(text: str, left: str) -> None:
    assert removal("http://h/a.jpg", "http://h/b,(c).jpg", hosts=("gone.org",)).scrubbed(text) == left


def test_a_text_full_of_addresses_is_read_to_its_end() -> None:
    text = "http://h/," * 2_000
    assert removal("http://h/a.jpg").scrubbed(text) is text
    assert removal("http://h/a.jpg").scrubbed(f"{text}http://h/a.jpg") == text + GONE


def test_a_removal_survives_its_journal() -> None:
    found = removal("http://h/a.jpg", hosts=("gone.org",))
    assert Removal.from_dict(found.as_dict()) == found


def test_a_table_without_rows_loses_nothing(tmp_path: Path) -> None:
    schema = pa.schema([("row_id", pa.string()), ("image_id", pa.string()), ("error", pa.string())])
    path = tmp_path / "empty.parquet"
    pq.write_table(schema.empty_table(), path)
    assert pq.read_metadata(path).num_row_groups == 1, "with a row group that is empty"
    assert scrub_table(path, removal("http://h/a.jpg")) == 0


def test_captions_name_another_link_in_its_place_in_parts_and_in_what_was_extracted(tmp_path: Path) -> None:
    from crawler.rows import CAPTION
    from warehouse.schema import CAPTIONS, GONE_LINK

    url = "http://h/a.jpg"
    rows = [{"row_id": "1", "rank": 0, "kind": "alt", "text": f"see {url}, please"}]
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS), tmp_path / "00000.captions.parquet")
    lists = pa.table(
        {"row_id": ["1", "2"], "captions": pa.array([[{"kind": "alt", "text": url}], None], pa.list_(CAPTION))}
    )
    pq.write_table(lists, tmp_path / "00000.pairs.parquet")
    for path in tmp_path.iterdir():
        assert scrub_table(path, removal(url)) == 0
        assert scrub_table(path, removal(url)) == 0
    left = pq.read_table(tmp_path / "00000.captions.parquet")
    assert left.schema.equals(CAPTIONS) and left["text"].to_pylist() == [f"see {GONE_LINK}, please"]
    captions = pq.read_table(tmp_path / "00000.pairs.parquet")["captions"].to_pylist()
    assert captions == [[{"kind": "alt", "text": GONE_LINK}], None]


def test_what_was_chosen_from_a_caption_is_the_same_without_the_address() -> None:
    import duckdb

    from warehouse.captions import clean_sql
    from warehouse.schema import GONE_LINK

    with duckdb.connect() as con:
        for text in ("A man ({}), smiling", "{}.", "See{} now", '"{}"; a woman'):
            cleaned = [
                con.execute(f"SELECT {clean_sql('t')} FROM (SELECT ? AS t)", [text.format(link)]).fetchone()
                for link in ("http://h/a.jpg", GONE_LINK)
            ]
            assert cleaned[0] == cleaned[1] and "://" not in str(cleaned)


def test_tombstones_bar_what_was_taken_down_under_all_its_names() -> None:
    rows = [
        *address_stones(KEY, ["http://h/a.jpg"]),
        *host_stones(KEY, ["gone.org", "other.org:81"]),
        *picture_stones(KEY, ["ab" * 32]),
        *look_stones(KEY, ["00000000000000ff"], 2),
        *look_stones(KEY, ["ff00000000000000"], 1, "face"),
    ]
    stones = of_rows(KEY, rows)
    barred = (
        "http://h/a.jpg",
        "http://h/a.jpg#x",
        "https://gone.org/x",
        "http://gone.org:8080/",
        "http://other.org:81/",
    )
    allowed = ("http://h/b.jpg", "http://other.org/", "http://notgone.org/")
    assert [stones.bars_address(url) for url in (*barred, *allowed)] == [True] * 5 + [False] * 3
    assert stones.bars_picture("ab" * 32) and not stones.bars_picture("cd" * 32)
    assert [stones.bars_look(f"{value:016x}") for value in (0xFF, 0xFC, 0xF8)] == [True, True, False]
    assert [stones.bars_face(phash) for phash in ("fe00000000000000", "fc00000000000000", None)] == [True, False, False]
    assert not stones.bars_look("ff00000000000000") and not stones.bars_face("00000000000000ff"), "each of its own kind"
    assert not of_rows(bytes(32), rows).bars_address("http://h/a.jpg"), "without the key they say nothing"
    told = repr([value for _, value, _ in rows])
    assert not any(word in told for word in ("gone.org", "ab" * 8, "00000000000000ff", "ff00000000000000"))


def test_tombstones_whose_key_is_gone_stop_a_crawl(tmp_path: Path) -> None:
    assert not load_tombstones("") and not load_tombstones(tmp_path / "tombstones.json")
    (tmp_path / "tombstones.json").write_text('{"tombstones": [["address", "00", null]]}')
    with pytest.raises(ValueError, match=r"tombstone\.key is missing"):
        load_tombstones(tmp_path / "tombstones.json")


def test_a_batch_loses_pairs_and_addresses_that_were_taken_down() -> None:
    from crawler.rows import FOUND
    from warehouse.schema import GONE_LINK

    pairs = [("http://p/1", "http://h/a.jpg"), ("http://p/2", "http://h/b.jpg"), ("http://gone.org/", "http://h/b.jpg")]
    told = [{"kind": "alt", "text": "by http://h/a.jpg, http://gone.org/me and http://h/b.jpg"}]
    found = pa.RecordBatch.from_pylist(
        [{"page_url": p, "image_url": i, "page_directives": "", "captions": told} for p, i in pairs], schema=FOUND
    )
    stones = of_rows(KEY, [*address_stones(KEY, ["http://h/a.jpg"]), *host_stones(KEY, ["gone.org"])])
    allowed = stones.allowed(found)
    assert allowed["page_url"].to_pylist() == ["http://p/2"]
    assert allowed["captions"].to_pylist() == [
        [{"kind": "alt", "text": f"by {GONE_LINK}, {GONE_LINK} and http://h/b.jpg"}]
    ]
    assert Tombstones().allowed(found) is found


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key = ensure_key(tmp_path)
    assert len(key) == 32 and ensure_key(tmp_path) == key
    assert (tmp_path / "lake/tombstone.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.e2e
def test_a_reader_of_an_older_copy_of_shards_passes_over_what_was_taken_down(tmp_path: Path) -> None:
    from gptface_core.shards import open_index, read_shard
    from tests.gptface_core.micro import write_corpus
    from warehouse.tombstones import readers_key, sample_stones

    shards, _ = write_corpus(tmp_path)
    before = open_index(shards)
    samples = [sample.row_id for sample in read_shard(before.splits["train"][0])]
    hashes = [value for _, value, _ in sample_stones(KEY, samples[1:3])]
    (shards / "tombstones.json").write_text(
        json.dumps({"version": 1, "key": readers_key(KEY).hex(), "samples": hashes})
    )
    after = open_index(shards)
    assert [sample.row_id for sample in read_shard(after.splits["train"][0])] == [samples[0], *samples[3:]]
    assert after.digest() != before.digest(), "a model that saw it is not taken for one of the rest"
