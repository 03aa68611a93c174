"""A takedown leaves nothing: not in a file, not in the catalogue, not in an old release, and it stays that way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warehouse
from flows.steps.config import BuildConfig, TrainConfig
from flows.steps.layout import Layout
from flows.steps.pipeline import BuildSummary, build, train
from flows.steps.report import write_report
from flows.steps.takedown import TakedownConfig, journal_path, plan, take_down
from flows.steps.takedown_phases import PHASES
from sample_web.server import SampleWeb
from tests.flows.takedown_root import chunks_of, crop_of, residue, shard_hashes
from tests.flows.test_model_steps import MICRO
from tests.flows.test_recrawl_e2e import InlineRunner
from tests.postgres_cluster import Cluster
from warehouse.dedup import cluster_id_sql
from warehouse.lake import quoted
from warehouse.parameters import RuleParameters

pytestmark = pytest.mark.e2e
IMAGES = 80
FIGURES = ("*.png", "events.out.tfevents*")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def web() -> Iterator[SampleWeb]:
    with SampleWeb(images=IMAGES) as web:
        yield web


def config(web: SampleWeb, root: Path, **settings: Any) -> BuildConfig:
    quick: dict[str, Any] = {"detector": "cascade", "allow_private": True, "page_delay_s": 0.0}
    return BuildConfig(f"site:{web.url}", str(root), part_urls=30, samples_per_shard=8, **quick, **settings)


def run(web: SampleWeb, root: Path, **settings: Any) -> BuildSummary:
    return build(config(web, root, **settings), InlineRunner())


@pytest.fixture(scope="module")
def finished(web: SampleWeb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases with their shards, a model that was trained on the first, a report. Never changed: copy it."""
    root = tmp_path_factory.mktemp("finished") / "root"
    run(web, root)
    assert run(web, root, rules=RuleParameters(min_caption_words=5)).release == 2
    preset = root.parent / "micro.json"
    preset.write_text(json.dumps(MICRO))
    train(TrainConfig(str(root), str(preset), "micro", 1), InlineRunner())
    write_report(root)
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "root"))


def rows(root: Path, query: str, at: int | None = None) -> list[Row]:
    with contextlib.closing(warehouse.connect(root, at=at)) as con:
        cursor = con.execute(query)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def kept_rows(root: Path, at: int | None = None) -> list[Row]:
    return rows(root, "FROM corpus ORDER BY row_id", at)


def picture(root: Path, row: Row) -> bytes:
    with (root / row["raw_shard"]).open("rb") as raw:
        raw.seek(row["raw_offset"])
        return raw.read(row["raw_bytes"])


def traces(root: Path, row: Row) -> list[bytes]:
    """Bytes by which the picture of a row, its aligned crop and its address are known."""
    return [row["image_url"].encode(), *chunks_of(picture(root, row)), *chunks_of(crop_of(root, row["row_id"])[1])]


def victim(root: Path, copied: bool = False) -> Row:
    """A kept row of the training split, so that it lies in both releases' shards and in the model's tokens.

    `copied`: with copies, of which it is the earliest; these stay, and with them the name of what they are copies of.
    """
    pictures = f"""SELECT cluster_id FROM pairs JOIN images USING (url_id) JOIN decisions USING (row_id)
                   GROUP BY cluster_id HAVING count(DISTINCT image_id) {"> 1" if copied else "= 1"}"""
    first = rows(root, f"FROM corpus WHERE split = 'train' AND cluster_id IN ({pictures}) ORDER BY row_id", 1)
    second = {row["row_id"] for row in kept_rows(root, 2)}
    return next(
        row for row in first if row["row_id"] in second and row["cluster_id"] == cluster_of(root, row["image_id"])
    )


def cluster_of(root: Path, image_id: str) -> str:
    """The id of a cluster whose earliest picture is this."""
    return str(rows(root, f"SELECT {cluster_id_sql(quoted(image_id))} AS id")[0]["id"])


def asked(root: Path, **what: Any) -> TakedownConfig:
    return TakedownConfig(str(root), **what)


def do(root: Path, **what: Any) -> None:
    take_down(asked(root, **what), InlineRunner())


def test_nothing_of_a_picture_is_left_and_the_rest_is_as_it_was(root: Path, web: SampleWeb) -> None:
    row = victim(root)
    needles = traces(root, row)
    before, kept = shard_hashes(root), {at: kept_rows(root, at) for at in (1, 2)}
    seen = residue(root, needles)
    assert {name.split("/")[0] for name in seen} >= {"lake", "raw", "shards"}, "the needles must be found beforehand"
    assert all(list((root / "models/micro").rglob(pattern)) for pattern in FIGURES)
    planned = plan(asked(root, urls=(row["image_url"],)))
    assert (planned.pictures, planned.pairs, planned.models) == (1, 1, ["micro"])
    assert residue(root, needles).keys() == seen.keys(), "looking removes nothing"
    do(root, urls=(row["image_url"],))
    ids = [row[name].encode() for name in ("row_id", "image_id")]
    assert residue(root, [*needles, *ids]) == {}
    assert not any(list((root / "models/micro").rglob(pattern)) for pattern in FIGURES)
    for at in (1, 2):
        assert kept_rows(root, at) == [other for other in kept[at] if other["row_id"] != row["row_id"]]
    after = shard_hashes(root)
    touched = {crop_of_release(before, row["row_id"], at) for at in (1, 2)}
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == touched
    assert_shards_verify(root)
    # What is made anew from the lake is what was left, byte for byte: tars, index and manifest.
    made = {path.name: path.read_bytes() for path in (root / "shards/r00002").glob("[im]*")}
    shutil.rmtree(root / "shards")
    for words in (5, 3):
        run(web, root, rules=RuleParameters(min_caption_words=words))
    again = shard_hashes(root)
    assert {name: again[name] for name in again if "r00002" in name} == {
        n: b for n, b in after.items() if "r00002" in n
    }
    assert {name: (root / "shards/r00002" / name).read_bytes() for name in made} == made


def test_copies_of_it_do_not_tell_what_they_are_copies_of(root: Path) -> None:
    row = victim(root, copied=True)
    cluster = f"FROM decisions WHERE cluster_id = '{row['cluster_id']}'"
    copies = [found["row_id"] for found in rows(root, cluster) if found["row_id"] != row["row_id"]]
    do(root, urls=(row["image_url"],))
    assert residue(root, [row[name].encode() for name in ("row_id", "image_id", "image_url")]) == {}
    assert {found["row_id"] for found in rows(root, cluster)} <= set(copies) != set()


def crop_of_release(shards: dict[str, bytes], row_id: str, release: int) -> str:
    [name] = [n for n, data in shards.items() if f"r{release:05d}" in n and f"{row_id}.jpg".encode() in data]
    return name


def assert_shards_verify(root: Path) -> None:
    from warehouse.shards import verify_index

    for folder in (root / "shards").iterdir():
        assert verify_index(folder) == []
    for shard in rows(root, "FROM shards"):
        assert (root / shard["file"]).stat().st_size == shard["bytes"]


def test_a_crawl_does_not_bring_it_back(root: Path, web: SampleWeb, tmp_path: Path) -> None:
    row = victim(root)
    needles = traces(root, row)
    do(root, urls=(row["image_url"],))
    rest = len(kept_rows(root))
    run(web, root, refresh=True, rules=RuleParameters(min_caption_words=5))  # the same source again
    assert residue(root, needles) == {}
    assert len(kept_rows(root)) == rest
    addresses = tmp_path / "list.csv"  # another source that names it
    other = kept_rows(root)[0]
    lines = [
        f"{u},a person with brown hair,http://pages.example/{i}"
        for i, u in enumerate((row["image_url"], other["image_url"]))
    ]
    addresses.write_text("\n".join(["url,caption,page_url", *lines]) + "\n")
    build(dataclasses.replace(config(web, root), source=f"list:{addresses}"), InlineRunner())
    assert residue(root, needles) == {}
    assert [found["image_url"] for found in rows(root, "FROM pairs WHERE source LIKE 'list:%'")] == [other["image_url"]]


def test_the_audit_says_what_was_done_and_not_to_what(root: Path) -> None:
    row = victim(root)
    do(root, sha256s=(row["image_id"],))
    [audit] = rows(root, "FROM takedowns")
    assert (audit["kind"], audit["raw_pictures"], json.loads(audit["models"])) == ("sha256", 1, ["micro"])
    assert json.loads(audit["rows"])["images"] == 1
    assert {stone["kind"] for stone in rows(root, "FROM tombstones")} == {"address", "picture", "sample"}
    assert (root / "lake/tombstone.key").stat().st_mode & 0o777 == 0o600
    assert residue(root, [row["image_url"].encode(), row["image_id"].encode()]) == {}
    [run_row] = rows(root, "FROM runs WHERE kind = 'takedown'")
    assert json.loads(run_row["config"]) == {"kind": "sha256", "root": ""}


def test_a_host_goes_with_all_its_addresses(root: Path, web: SampleWeb) -> None:
    host = web.origins[1]
    gone = rows(root, f"FROM pairs WHERE image_host = '{host}'")
    assert gone
    do(root, hosts=(host.partition("://")[2],))
    assert residue(root, [host.partition("://")[2].encode()]) == {}
    run(web, root, refresh=True)
    assert residue(root, [host.partition("://")[2].encode()]) == {}
    assert len(rows(root, "FROM pairs")) == IMAGES - len(gone)


def test_the_host_of_the_whole_crawl_goes(root: Path, web: SampleWeb) -> None:
    host = web.url.partition("://")[2]
    do(root, hosts=(web.url,))
    assert residue(root, [host.encode()]) == {}
    assert not list((root / "raw").glob("*"))
    assert rows(root, "FROM pairs", 1) == []
    with pytest.raises(ValueError, match="was taken down"):  # it is not asked again
        run(web, root, refresh=True)
    assert residue(root, [host.encode()]) == {}


def test_a_crawl_that_reached_no_release_is_searched_too(root: Path) -> None:
    row = victim(root)
    needles = traces(root, row)
    for folder in ("lake", "shards", "models", "reports"):
        shutil.rmtree(root / folder)
    for stats in (root / "raw").glob("*/g*/images/*_stats.json"):  # as if killed while it downloaded
        if stats.name.startswith("00001"):
            stats.unlink()
    assert residue(root, needles)
    do(root, urls=(row["image_url"],))
    assert residue(root, needles) == {}


def test_the_catalogue_in_postgresql_forgets_as_well(
    web: SampleWeb, tmp_path: Path, postgres: str, postgres_cluster: Cluster
) -> None:
    root = tmp_path / "root"
    run(web, root, catalog=postgres)
    assert run(web, root, rules=RuleParameters(min_caption_words=5)).release == 2
    row = victim(root)
    needles, kept = traces(root, row), {at: kept_rows(root, at) for at in (1, 2)}
    do(root, urls=(row["image_url"],))
    for at in (1, 2):
        assert kept_rows(root, at) == [other for other in kept[at] if other["row_id"] != row["row_id"]]
    dumped = postgres_cluster.run("pg_dump", postgres.rpartition("/")[2])
    assert "ducklake_data_file" in dumped
    assert residue(root, needles) == {}
    assert row["image_url"] not in dumped and row["image_id"] not in dumped and row["row_id"] not in dumped
    host = web.url.partition("://")[2]
    do(root, hosts=(host,))
    assert host not in postgres_cluster.run("pg_dump", postgres.rpartition("/")[2])


def test_what_looks_the_same_goes_and_stays_away_at_other_addresses(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    row = victim(root)
    needles = traces(root, row)
    copy = tmp_path / "smaller.png"
    source = tmp_path / "source.jpg"
    source.write_bytes(picture(root, row))
    with Image.open(source) as opened:
        opened.convert("RGB").resize((opened.width * 3 // 4, opened.height * 3 // 4)).save(copy)
    do(root, like=(str(copy),))
    assert residue(root, needles) == {}
    from flows.steps.kept_out import keeper

    is_taken_down = keeper(root)
    assert is_taken_down(source.read_bytes()) and is_taken_down(copy.read_bytes())
    assert not is_taken_down(picture(root, kept_rows(root)[0]))


def test_a_picture_that_is_served_elsewhere_now_reaches_no_release(root: Path, web: SampleWeb, tmp_path: Path) -> None:
    from tests.flows.test_recrawl_e2e import Site, serving

    row, data = victim(root), picture(root, victim(root))
    do(root, sha256s=(row["image_id"],))
    pages = {"/": dict.fromkeys(("moved", "other"), "A smiling woman with brown hair")}
    with serving(Site(pages=pages)) as site:
        site.put("other", 7)
        site.pictures["moved"] = (200, {"Content-Type": "image/jpeg"}, data)
        build(dataclasses.replace(config(web, root), source=f"site:{site.url}/"), InlineRunner())
        found = rows(root, f"FROM pairs WHERE source LIKE 'site:{site.url}%'")
        assert [pair["image_url"] for pair in found] == [f"{site.url}/other.jpg"]
        assert residue(root, [b"moved.jpg", *chunks_of(data)]) == {}


KILLED = """
import os, signal, sys
from flows.steps import takedown
from tests.flows.test_recrawl_e2e import InlineRunner

name, when, root, url = sys.argv[1:]
def lethal(phase):
    def run(layout, job):
        if when == "after":
            phase(layout, job)
        os.kill(os.getpid(), signal.SIGKILL)
    return run

takedown.PHASES = tuple((n, lethal(p) if n == name else p) for n, p in takedown.PHASES)
takedown.take_down(takedown.TakedownConfig(root, urls=(url,)), InlineRunner())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "when"), [("rows", "before"), *((name, "after") for name, _ in PHASES)], ids=lambda value: str(value)
)
def test_a_killed_takedown_is_finished_by_the_next_one(root: Path, phase: str, when: str) -> None:
    row = victim(root)
    needles = traces(root, row)
    command = [sys.executable, "-c", KILLED, phase, when, str(root), row["image_url"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = journal_path(Layout(root))
    assert row["image_url"].encode() not in journal.read_bytes()
    [summary] = take_down(asked(root), InlineRunner())
    assert summary.resumed and not journal.exists()
    assert residue(root, needles) == {}
    assert_shards_verify(root)
    assert len(rows(root, "FROM takedowns")) == 1
