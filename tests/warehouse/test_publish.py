"""Publish: decisions with their reasons, releases, idempotence, crashes, newer crawls."""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from literal_crawls import FETCHED, Shot, write_crawl

from warehouse import connect, lake
from warehouse.errors import InputError
from warehouse.publish import Release, publish
from warehouse.rules import RuleParameters

CASES = {
    "kept": Shot("kept"),
    "robots_txt": Shot("r", refused="robots_txt"),
    "page_opted_out": Shot("po", refused="page_opted_out"),
    "timeout": Shot("t", failed="timeout"),
    "not_an_image": Shot("n", decode="not_an_image"),
    "too_small": Shot("s", side_px=63),
    "no_face": Shot("nf", faces=0),
    "several_faces": Shot("sf", faces=2),
    "face_score": Shot("fs", score=0.49),
    "face_px": Shot("fp", face_px=63.9),
    "no_caption": Shot("nc", captions=()),
    "caption_boilerplate": Shot("cb", captions=(("alt", "IMG_1234.jpg"),)),
    "caption_too_short": Shot("cs", captions=(("alt", "two words"),)),
    "duplicate_image": Shot("d2", page="p2", content="kept", captions=(("nearby", "Some text that stood nearby"),)),
    "near_duplicate_image": Shot("nd", phash="00000000000000ff", side_px=128),
}
LARGER = Shot("nd-large", phash="00000000000000f8", side_px=512)


def reasons(root: Path, at: int | None = None) -> dict[str, str]:
    with connect(root, at) as con:
        rows = con.execute("SELECT image_url, page_url, reason FROM decisions JOIN pairs USING (row_id)").fetchall()
    return {f"{image.rsplit('/', 1)[1]}@{page.rsplit('/', 1)[1]}": reason for image, page, reason in rows}


def reason_of(root: Path, shot: Shot) -> str:
    return reasons(root)[f"{shot.name}.jpg@{shot.page}"]


def everything(root: Path) -> list[Any]:
    """All that a release says, without the time and place of its making."""
    with connect(root) as con:
        found = [con.execute(f"FROM {t} ORDER BY ALL").fetchall() for t in ("decisions", "corpus", "captions", "faces")]
        return [*found, con.execute("SELECT * EXCLUDE (fetched_at) FROM images ORDER BY ALL").fetchall()]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Release]:
    root = tmp_path_factory.mktemp("published")
    crawl = write_crawl(root / "raw/test/g001", [*CASES.values(), LARGER], parts=3)
    return root, crawl, publish(root, [crawl], provenance={"run_id": "r1", "code_version": "v", "config": {"a": 1}})


def test_each_row_has_the_reason_of_the_first_rule_it_fails(published: tuple[Path, Path, Release]) -> None:
    root, _, _ = published
    found = reasons(root)
    for reason, shot in CASES.items():
        assert found[f"{shot.name}.jpg@{shot.page}"] == reason


def test_counts_agree_with_tables(published: tuple[Path, Path, Release]) -> None:
    root, _, release = published
    with connect(root) as con:
        assert con.execute("SELECT sum(pairs) FROM funnel").fetchone() == (len(CASES) + 1,)
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (release.kept,) == (2,)
        assert dict(con.execute("SELECT reason, pairs FROM funnel").fetchall()) == release.reasons
        last = con.execute("SELECT remaining FROM funnel ORDER BY stage_order DESC").fetchone()
        assert last == (release.kept,)
    assert (release.number, release.created, release.pairs, release.downloaded) == (1, True, 16, 13)


def test_publishing_the_same_again_is_a_no_op(published: tuple[Path, Path, Release]) -> None:
    root, crawl, release = published
    with connect(root) as con:
        before = con.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchone()
    again = publish(root, [crawl], provenance={"run_id": "r2"})
    with connect(root) as con:
        assert con.execute("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").fetchone() == before
    assert again.created is False
    assert (again.number, again.reasons) == (release.number, release.reasons)


def test_release_and_commit_message_carry_the_provenance(published: tuple[Path, Path, Release]) -> None:
    root, _, _ = published
    with connect(root) as con:
        row = con.execute("SELECT run_id, code_version, config, inputs FROM releases").fetchone()
        assert row == ("r1", "v", '{"a": 1}', '{"raw/test/g001": 3}')
        query = "SELECT commit_extra_info FROM ducklake_snapshots('lake') ORDER BY snapshot_id DESC"
        extra = json.loads((con.execute(query).fetchone() or [""])[0])
        assert (extra["release"], extra["run_id"], extra["rules"]["min_face_px"]) == (1, "r1", 64)
        assert con.execute("SELECT crawl, run_id FROM lineage").fetchall() == [("raw/test/g001", "r1")] * 2


def test_plain_duckdb_connection_reads_the_lake_also_after_a_move(
    published: tuple[Path, Path, Release], tmp_path: Path
) -> None:
    root, _, release = published
    moved = tmp_path / "it's moved [1]"
    shutil.copytree(root, moved)
    with connect(moved) as con:
        assert con.execute("SELECT count(*), max(caption) FROM corpus").fetchone()[0] == release.kept  # type: ignore[index]
    publish(moved, [moved / "raw/test/g001"])  # a no-op for the rows; the catalogue learns where it lies
    shutil.rmtree(moved / "raw")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as con:
        for extension in ("ducklake", "sqlite_scanner"):
            lake.load_extension(con, extension)
        con.execute(f"ATTACH {lake.quoted(f'ducklake:sqlite:{lake.catalog_path(moved)}')} AS other (READ_ONLY)")
        assert con.execute("SELECT count(*), count(caption) FROM other.corpus").fetchone() == (2, 2)
        assert con.execute("SELECT sum(pairs) FROM other.funnel").fetchone() == (16,)


@pytest.mark.e2e
def test_decisions_do_not_depend_on_the_order_of_parts_or_rows(tmp_path: Path) -> None:
    shots = [*CASES.values(), LARGER]
    seen = []
    for seed, parts in ((0, 1), (1, 4)):
        root = tmp_path / str(seed)
        mixed = random.Random(seed).sample(shots, len(shots))
        publish(root, [write_crawl(root / "raw/test/g001", mixed, parts)])
        found = everything(root)
        seen.append([found[0], [row[:28] for row in found[1]], found[2], found[3]])  # raw offsets follow the parts
    assert seen[0] == seen[1]


@pytest.mark.e2e
def test_time_travel_and_changed_rules(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g001", [Shot("a"), Shot("b", face_px=40)])
    publish(tmp_path, [crawl])
    second = publish(tmp_path, [crawl], RuleParameters(min_face_px=32))
    assert (second.number, second.created, second.kept) == (2, True, 2)
    assert reasons(tmp_path, at=1)["b.jpg@p0"] == "face_px"
    assert reasons(tmp_path, at=2)["b.jpg@p0"] == reasons(tmp_path)["b.jpg@p0"] == "kept"
    with connect(tmp_path, at=1) as con:
        assert con.execute("SELECT count(*) FROM corpus").fetchone() == (1,)
        assert con.execute("SELECT count(*) FROM lake.corpus").fetchone() == (2,)
    with pytest.raises(InputError, match=r"no release 3 under .*: it has 1 to 2"):
        connect(tmp_path, at=3)


@pytest.mark.e2e
def test_newer_crawl_replaces_what_changed_and_older_one_does_not_come_back(tmp_path: Path) -> None:
    day = dt.timedelta(days=1)
    first = write_crawl(tmp_path / "raw/x/g001", [Shot("a"), Shot("b"), Shot("c"), Shot("d")])
    later = [
        Shot("a", fetched=FETCHED + day, captions=(("alt", "Another text about this woman"),)),
        Shot("b", fetched=FETCHED + day, refused="image_opted_out"),
        Shot("c", fetched=FETCHED + day, failed="timeout"),
        Shot("e", fetched=FETCHED + day),
    ]
    publish(tmp_path, [first])
    second = publish(tmp_path, [write_crawl(tmp_path / "raw/x/g002", later)])
    assert second.number == 2
    expected = {"a": "kept", "b": "image_opted_out", "c": "kept", "d": "kept", "e": "kept"}
    assert reasons(tmp_path) == {f"{name}.jpg@p0": reason for name, reason in expected.items()}
    with connect(tmp_path) as con:
        caption = con.execute("SELECT caption FROM corpus WHERE image_url LIKE '%/a.jpg'").fetchone()
        assert caption == ("Another text about this woman",)
    assert publish(tmp_path, [first]).created is False
    together = tmp_path / "together"
    publish(together, [tmp_path / "raw/x/g002", first])
    assert reasons(together) == reasons(tmp_path)


def test_a_page_that_opts_out_takes_out_its_own_pair_alone(tmp_path: Path) -> None:
    open_page, closed_page = Shot("a", page="open"), Shot("a", page="closed", refused="page_opted_out")
    crawl = write_crawl(tmp_path / "raw/x/g001", [closed_page, open_page])
    publish(tmp_path, [crawl])
    assert reasons(tmp_path) == {"a.jpg@open": "kept", "a.jpg@closed": "page_opted_out"}


@pytest.mark.e2e
def test_crash_before_the_commit_leaves_the_lake_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_crawl(tmp_path / "raw/x/g001", [Shot("a")])
    publish(tmp_path, [first])
    before = everything(tmp_path)
    second = write_crawl(tmp_path / "raw/x/g002", [Shot("a", captions=(("alt", "A changed text of it"),)), Shot("b")])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("warehouse.publish._record", die)
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, [second])
    assert everything(tmp_path) == before
    assert publish(tmp_path, [second]).number == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda crawl: (crawl / "plan/done.json").unlink(), "has no finished plan"),
        (lambda crawl: (crawl / "faces/00000.pictures.parquet").unlink(), "is incomplete, faces/00000.pictures"),
        (lambda crawl: (crawl / "images/00000.parquet").write_bytes(b"PAR1 torn"), "images parts of crawl .* cannot"),
    ],
)
def test_spoilt_crawl_is_one_clear_line_and_makes_no_release(tmp_path: Path, spoil: Any, message: str) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g001", [Shot("a")])
    spoil(crawl)
    with pytest.raises(InputError, match=message) as caught:
        publish(tmp_path, [crawl])
    assert "\n" not in str(caught.value)
    if lake.catalog_path(tmp_path).is_file():
        with connect(tmp_path) as con:
            assert con.execute("SELECT (SELECT count(*) FROM releases) + (SELECT count(*) FROM pairs)").fetchone() == (
                0,
            )


def test_reason_outside_the_enum_is_refused(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g001", [Shot("a", failed="gremlins")])
    with pytest.raises(InputError, match="unknown reason 'gremlins'"):
        publish(tmp_path, [crawl])


def test_stray_files_are_not_read(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path / "raw/x/g001", [Shot("a")])
    for stray in ("plan/00001.pairs.parquet", "images/00001.parquet", "faces/.00000.pictures.parquet.tmp"):
        (crawl / stray).write_bytes(b"half a file")
    assert publish(tmp_path, [crawl]).pairs == 1


def test_nothing_to_publish(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to publish"):
        publish(tmp_path, [write_crawl(tmp_path / "raw/x/g001", [])])
