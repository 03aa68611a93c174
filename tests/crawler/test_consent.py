"""Consent as a step: which hosts are asked for what, how long that holds, and what becomes of each pair."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_web import Web, answer, drip, redirect

from crawler import hosts as hosts_module
from crawler.address import authority_of
from crawler.consent import (
    ConsentConfig,
    ask_hosts,
    consent_path,
    decide_all,
    decide_consent,
    host_batches,
    hosts_path,
    load_hosts,
)
from crawler.download import DownloadConfig, download_part
from crawler.errors import InputError
from crawler.fetch import FetchConfig
from crawler.files import read_rows, write_table
from crawler.hosts import batch_of
from crawler.plan import part_path, write_plan
from crawler.robots import HostRecord
from crawler.sources import Candidate
from crawler.sources.base import StoredPicture
from crawler.stored import stored_index_path
from warehouse.schema import CONSENT, HOSTS, PAIRS, row_id, url_id

TDMREP = "/.well-known/tdmrep.json"
FILES = {"/robots.txt": 1, TDMREP: 1}
FORBIDDEN = b"User-agent: gptface\nDisallow: /"
RESERVED = b'[{"location": "/", "tdm-reservation": 1}]'
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Web]]:
    """Four servers for the module: starting and stopping them for each test takes longer than the tests."""
    found = [Web() for _ in range(4)]
    yield found
    for server in found:
        server.close()


@pytest.fixture
def webs(servers: list[Web]) -> list[Web]:
    for server in servers:
        server.routes.clear()
        server.asked.clear()
    return servers


@pytest.fixture
def web(webs: list[Web]) -> Web:
    return webs[0]


@pytest.fixture
def other_web(webs: list[Web]) -> Web:
    return webs[1]


def config(**changes: Any) -> ConsentConfig:
    return ConsentConfig(fetch=FetchConfig(total_s=2.0, allow_private=True), **changes)


def plan(crawl_dir: Path, *found: Candidate | StoredPicture, part_urls: int = 1000) -> None:
    """A plan as crawler.plan writes it (test_a_plan_is_what_consent_reads holds this to it), in a tenth of the time."""
    rows = sorted((pair(item) for item in found if isinstance(item, Candidate)), key=lambda row: row["url_id"])
    part_of = {name: i // part_urls for i, name in enumerate(dict.fromkeys(row["url_id"] for row in rows))}
    parts = max(part_of.values()) + 1
    for part in range(parts):
        chosen = [row for row in rows if part_of[row["url_id"]] == part]
        write_table(part_path(crawl_dir / "plan", part, "pairs"), chosen, PAIRS)
    names = sorted(url_id(item.image_url) for item in found if isinstance(item, StoredPicture))
    pq.write_table(pa.table({"url_id": pa.array(names, pa.string())}), stored_index_path(crawl_dir / "plan"))
    write_done(crawl_dir, parts)


def pair(candidate: Candidate) -> dict[str, str]:
    page, image = candidate.page_url, candidate.image_url
    return {
        "row_id": row_id(page, image),
        "url_id": url_id(image),
        "page_url": page,
        "image_url": image,
        "page_host": authority_of(page),
        "image_host": authority_of(image),
        "source": "test",
        "page_directives": candidate.page_directives,
    }


def write_done(crawl_dir: Path, parts: int) -> None:
    done = {"source": "test", "parts": parts, "part_urls": 1000, "pairs": 0, "urls": 0, "captions": 0, "known": 0}
    (crawl_dir / "plan").mkdir(parents=True, exist_ok=True)
    (crawl_dir / "plan" / "done.json").write_text(json.dumps(done))


def verdicts(crawl_dir: Path, part: int = 0) -> dict[str, tuple[bool, str | None]]:
    """url -> (allowed, reason)."""
    table = pq.read_table(consent_path(crawl_dir, part))
    assert table.schema.equals(CONSENT)
    rows = {row["row_id"]: row for row in table.to_pylist()}
    pairs = read_rows(crawl_dir / "plan" / f"{part:05d}.pairs.parquet")
    assert [p["row_id"] for p in pairs] == list(rows)
    return {p["image_url"]: (rows[p["row_id"]]["allowed"], rows[p["row_id"]]["reason"]) for p in pairs}


def evidence(crawl_dir: Path) -> set[str]:
    return {row["evidence"] for row in read_rows(consent_path(crawl_dir, 0))}


def pictures(web: Web, page: str, count: int, directives: str = "") -> list[Candidate]:
    return [Candidate(page, f"{web.url}/{i}.jpg", (), directives) for i in range(count)]


def age(path: Path, schema: pa.Schema, hours: float = 25) -> None:
    rows = [{**row, "checked_at": row["checked_at"] - timedelta(hours=hours)} for row in read_rows(path)]
    write_table(path, rows, schema)


# What is asked, counted by the servers.


def test_each_host_is_asked_for_two_files_and_nothing_else(tmp_path: Path, web: Web, other_web: Web) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /3.jpg", kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 5))
    [stats] = decide_all(tmp_path, config())
    assert (stats.pairs, stats.refused) == (5, 1)
    assert verdicts(tmp_path)[f"{web.url}/3.jpg"] == (False, "robots_txt")
    assert verdicts(tmp_path)[f"{web.url}/2.jpg"] == (True, None)
    assert web.asked == other_web.asked == FILES
    assert load_hosts(tmp_path, LONG_AGO).keys() == {web.url, other_web.url}
    assert pq.read_schema(hosts_path(tmp_path, 0)).equals(HOSTS)


def test_a_host_that_forbids_us_sees_robots_txt_alone(tmp_path: Path, web: Web, other_web: Web) -> None:
    web.routes["/robots.txt"] = answer(FORBIDDEN, kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 3))
    assert decide_all(tmp_path, config())[0].refused == 3
    assert web.asked == {"/robots.txt": 1}
    assert evidence(tmp_path) == {f"{web.url}/robots.txt disallows gptface"}


def test_a_host_that_reserves_its_rights_sees_two_files_alone(tmp_path: Path, web: Web, other_web: Web) -> None:
    web.routes[TDMREP] = answer(RESERVED, kind="application/json")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 3))
    assert decide_all(tmp_path, config())[0].refused == 3
    assert set(verdicts(tmp_path).values()) == {(False, "tdm_reserved")}
    assert web.asked == FILES
    assert evidence(tmp_path) == {f"{web.url}{TDMREP} reserves /"}


@pytest.mark.e2e
def test_hosts_that_refuse_see_no_more_when_the_others_are_downloaded(tmp_path: Path, webs: Sequence[Web]) -> None:
    good, forbidden, reserved, moved = webs
    forbidden.routes["/robots.txt"] = answer(FORBIDDEN, kind="text/plain")
    reserved.routes[TDMREP] = answer(RESERVED, kind="application/json")
    good.routes |= {f"/{i}.jpg": answer() for i in range(3)}
    # Redirects lead to hosts that refuse, too.
    moved.routes |= {"/0.jpg": redirect(f"{forbidden.url}/0.jpg"), "/1.jpg": redirect(f"{reserved.url}/1.jpg")}
    plan(tmp_path, *(candidate for web in webs for candidate in pictures(web, f"{good.url}/p", 3)))
    decide_all(tmp_path, config())
    stats = download_part(0, tmp_path, "raw", DownloadConfig(fetch=FetchConfig(total_s=2.0, allow_private=True)))
    assert stats.reasons == {"http_client_error": 1, "robots_txt": 4, "tdm_reserved": 4}
    assert (stats.ok, stats.refused) == (3, 8)
    assert good.asked == FILES | {f"/{i}.jpg": 1 for i in range(3)}
    assert forbidden.asked == {"/robots.txt": 1}
    assert reserved.asked == FILES


def test_a_reservation_on_a_part_of_a_host_leaves_the_rest(tmp_path: Path, web: Web) -> None:
    web.routes[TDMREP] = answer(b'[{"location": "/1.jpg", "tdm-reservation": 1}]', kind="application/json")
    plan(tmp_path, *pictures(web, f"{web.url}/p", 3))
    decide_all(tmp_path, config())
    assert [allowed for allowed, _ in verdicts(tmp_path).values()].count(True) == 2
    assert verdicts(tmp_path)[f"{web.url}/1.jpg"] == (False, "tdm_reserved")


def test_hosts_of_pages_that_opted_out_are_not_asked(tmp_path: Path, web: Web, other_web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 3, "meta robots: noai"))
    assert host_batches(tmp_path) == 1
    assert ask_hosts(0, tmp_path, config()).asked == 0
    assert decide_consent(0, tmp_path, config()).refused == 3
    assert set(verdicts(tmp_path).values()) == {(False, "page_opted_out")}
    assert not web.asked
    assert not other_web.asked


def test_one_page_that_allows_is_enough_to_ask_the_host(tmp_path: Path, web: Web, other_web: Web) -> None:
    plan(
        tmp_path,
        Candidate(f"{other_web.url}/closed", f"{web.url}/0.jpg", (), "tdm-reservation: 1"),
        Candidate(f"{web.url}/open", f"{web.url}/0.jpg", (), ""),
    )
    [stats] = decide_all(tmp_path, config())
    assert (stats.pairs, stats.refused) == (2, 1)
    assert web.asked == FILES
    assert not other_web.asked


def test_deciding_asks_nobody(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 3))
    decide_all(tmp_path, config())
    web.asked.clear()
    consent_path(tmp_path, 0).unlink()
    assert decide_consent(0, tmp_path, config()).pairs == 3
    assert not web.asked


def test_private_hosts_are_not_asked_unless_allowed(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    decide_all(tmp_path, ConsentConfig(fetch=FetchConfig(total_s=2.0)))
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, "private_address")}
    assert not web.asked


# What becomes of a pair.


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (401, True), (429, False), (500, False), (503, False)])
def test_status_of_robots_txt(tmp_path: Path, web: Web, status: int, allowed: bool) -> None:
    web.routes["/robots.txt"] = answer(b"User-agent: *\nDisallow: /", status)
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    decide_all(tmp_path, config())
    assert verdicts(tmp_path)[f"{web.url}/0.jpg"] == ((True, None) if allowed else (False, "robots_unreachable"))


def test_a_dead_image_host_refuses_and_a_dead_page_host_does_not(tmp_path: Path, web: Web, closed_port: int) -> None:
    dead = f"http://127.0.0.1:{closed_port}"
    plan(
        tmp_path, Candidate(f"{web.url}/p", f"{dead}/a.jpg", (), ""), Candidate(f"{dead}/p", f"{web.url}/b.jpg", (), "")
    )
    decide_all(tmp_path, config())
    assert verdicts(tmp_path) == {
        f"{dead}/a.jpg": (False, "robots_unreachable"),
        f"{web.url}/b.jpg": (True, None),
    }


@pytest.mark.parametrize(
    ("path", "rules", "reason"),
    [("/robots.txt", FORBIDDEN, "robots_txt"), (TDMREP, RESERVED, "tdm_reserved")],
)
def test_a_page_host_that_refuses_refuses_its_pairs(
    tmp_path: Path, web: Web, other_web: Web, path: str, rules: bytes, reason: str
) -> None:
    other_web.routes[path] = answer(rules, kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 1))
    decide_all(tmp_path, config())
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, reason)}


def test_addresses_without_a_host_are_refused_without_asking(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, Candidate(f"{web.url}/p", "http://user:secret@example.org/a.jpg", (), ""))
    decide_all(tmp_path, config())
    assert set(verdicts(tmp_path).values()) == {(False, "bad_address")}


def stored(url: str) -> StoredPicture:
    return StoredPicture(url, b"\xff\xd8\xff", (), datetime(2026, 1, 1, tzinfo=UTC))


def test_a_stored_picture_needs_no_host_that_answers(tmp_path: Path, web: Web, closed_port: int) -> None:
    dead = f"http://127.0.0.1:{closed_port}"
    plan(
        tmp_path,
        Candidate(f"{web.url}/p", f"{dead}/held.jpg", (), ""),
        Candidate(f"{web.url}/p", f"{dead}/not-held.jpg", (), ""),
        stored(f"{dead}/held.jpg"),
    )
    decide_all(tmp_path, config())
    assert verdicts(tmp_path) == {
        f"{dead}/held.jpg": (True, None),
        f"{dead}/not-held.jpg": (False, "robots_unreachable"),
    }


@pytest.mark.parametrize(
    ("path", "rules", "reason"),
    [("/robots.txt", FORBIDDEN, "robots_txt"), (TDMREP, RESERVED, "tdm_reserved")],
)
def test_rules_hold_for_stored_pictures_too(
    tmp_path: Path, web: Web, other_web: Web, path: str, rules: bytes, reason: str
) -> None:
    web.routes[path] = answer(rules, kind="text/plain")
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 1), stored(f"{web.url}/0.jpg"))
    decide_all(tmp_path, config())
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, reason)}


def test_page_directives_hold_for_stored_pictures_too(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1, "x-robots-tag: noai"), stored(f"{web.url}/0.jpg"))
    decide_all(tmp_path, config())
    assert verdicts(tmp_path) == {f"{web.url}/0.jpg": (False, "page_opted_out")}


# How long it holds, and how it goes on after a crash.


def test_verdicts_and_records_hold_for_a_day_and_no_longer(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 2))
    decide_all(tmp_path, config())
    decide_all(tmp_path, config())
    assert web.asked == FILES
    for path, schema in ((consent_path(tmp_path, 0), CONSENT), (hosts_path(tmp_path, 0), HOSTS)):
        age(path, schema, 23)
    decide_all(tmp_path, config())
    assert web.asked == FILES
    for path, schema in ((consent_path(tmp_path, 0), CONSENT), (hosts_path(tmp_path, 0), HOSTS)):
        age(path, schema, 2)
    web.routes["/robots.txt"] = answer(FORBIDDEN, kind="text/plain")
    assert decide_all(tmp_path, config())[0].refused == 2
    assert web.asked == {"/robots.txt": 2, TDMREP: 1}


def test_a_verdict_is_as_old_as_the_record_it_rests_on(tmp_path: Path, web: Web, other_web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{other_web.url}/p", 1))
    ask_all(tmp_path)
    age(hosts_path(tmp_path, 0), HOSTS, 5)
    decide_consent(0, tmp_path, config())
    [row] = read_rows(consent_path(tmp_path, 0))
    assert timedelta(hours=5) <= datetime.now(UTC) - row["checked_at"] < timedelta(hours=5.1)


def test_what_a_wrong_clock_stamped_with_a_time_to_come_is_asked_for_again(tmp_path: Path, web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 2))
    assert decide_all(tmp_path, config())[0].refused == 0
    age(hosts_path(tmp_path, 0), HOSTS, -9000)
    age(consent_path(tmp_path, 0), CONSENT, -9000)
    assert load_hosts(tmp_path, LONG_AGO) == {}
    web.routes["/robots.txt"] = answer(FORBIDDEN, kind="text/plain")
    assert decide_all(tmp_path, config())[0].refused == 2
    assert load_hosts(tmp_path, LONG_AGO).keys() == {web.url}


def ask_all(crawl_dir: Path, batch_hosts: int = 500) -> int:
    return sum(ask_hosts(batch, crawl_dir, config()).asked for batch in range(host_batches(crawl_dir, batch_hosts)))


def test_a_step_that_died_between_batches_goes_on_where_it_was(tmp_path: Path, webs: Sequence[Web]) -> None:
    plan(tmp_path, *(candidate for web in webs for candidate in pictures(web, f"{web.url}/p", 2)))
    batches = host_batches(tmp_path, 1)
    assert batches == 4
    full = next(batch for batch in range(batches) if batch_of(webs[0].url, batches) == batch)
    ask_hosts(full, tmp_path, config())
    asked_first = [web for web in webs if web.asked]
    assert webs[0] in asked_first
    assert host_batches(tmp_path, 1) == 4  # the run after the crash
    assert ask_all(tmp_path, 1) == len(webs) - len(asked_first)
    assert [web.asked for web in webs] == [FILES] * 4


def test_half_a_batch_leaves_nothing(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    host_batches(tmp_path)

    def die(*_: object) -> dict[str, HostRecord]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(hosts_module, "_asked", die)
        ask_hosts(0, tmp_path, config())
    assert not hosts_path(tmp_path, 0).exists()
    assert ask_hosts(0, tmp_path, config()).asked == 1


def test_hosts_of_parts_that_are_downloaded_are_not_asked_again(tmp_path: Path, web: Web, other_web: Web) -> None:
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1), *pictures(other_web, f"{other_web.url}/p", 1), part_urls=1)
    decide_all(tmp_path, config())
    age(hosts_path(tmp_path, 0), HOSTS)
    parts = {next(iter(verdicts(tmp_path, part))): part for part in (0, 1)}
    done = parts[f"{web.url}/0.jpg"]
    for part in (0, 1):
        age(consent_path(tmp_path, part), CONSENT)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{done:05d}_stats.json").write_text("{}")
    before = consent_path(tmp_path, done).read_bytes()
    decide_all(tmp_path, config())
    assert web.asked == FILES
    assert other_web.asked == {"/robots.txt": 2, TDMREP: 2}
    assert consent_path(tmp_path, done).read_bytes() == before  # what the download went by
    assert load_hosts(tmp_path, LONG_AGO).keys() == {web.url, other_web.url}


# Batches.


def many_hosts(crawl_dir: Path, count: int, part_urls: int = 50) -> list[str]:
    """A plan with a picture and a page on each of `count` hosts."""
    names = [f"http://h{i}.example" for i in range(count)]
    plan(crawl_dir, *(Candidate(f"{name}/p", f"{name}/a.jpg", (), "") for name in names), part_urls=part_urls)
    return names


def test_batches_divide_the_hosts_and_stay_as_they_are(tmp_path: Path) -> None:
    names = many_hosts(tmp_path, 100)
    assert host_batches(tmp_path, 15) == 7
    rows = read_rows(tmp_path / "consent" / "batches.parquet")
    assert sorted(row["host"] for row in rows) == sorted(names)
    assert all(row["batch"] == batch_of(row["host"], 7) and row["needed"] for row in rows)
    assert host_batches(tmp_path, 50) == 7  # settled by the first call


def fill(crawl_dir: Path, names: Sequence[str], batch_hosts: int) -> None:
    """Host files as ask_hosts writes them."""
    batches = host_batches(crawl_dir, batch_hosts)
    for batch in range(batches):
        records = {name: HostRecord(name, 404, "", 404, "", datetime.now(UTC)) for name in names
                   if batch_of(name, batches) == batch}  # fmt: skip
        hosts_module._write_records(hosts_path(crawl_dir, batch), records)


def test_a_part_opens_only_what_holds_its_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = many_hosts(tmp_path, 100, part_urls=5)
    fill(tmp_path, names, 5)
    opened: list[Path] = []
    read = hosts_module._records

    def counted(file: Path, hosts: list[str] | None) -> Iterator[HostRecord]:
        opened.append(file)
        assert hosts is not None
        return read(file, hosts)

    monkeypatch.setattr(hosts_module, "_records", counted)
    assert decide_consent(7, tmp_path, config()).refused == 0
    assert len(opened) <= 5  # of 20 batches, one for each of 5 hosts


def test_records_are_found_by_host(tmp_path: Path) -> None:
    names = many_hosts(tmp_path, 60)
    fill(tmp_path, names, 10)
    wanted = {*names[50:60], "http://unknown.example", ""}
    assert load_hosts(tmp_path, LONG_AGO, wanted).keys() == set(names[50:60])
    assert load_hosts(tmp_path, LONG_AGO).keys() == set(names)
    assert load_hosts(tmp_path, datetime.now(UTC) + timedelta(hours=1)) == {}
    assert load_hosts(tmp_path / "other", LONG_AGO) == {}


def test_only_the_row_groups_that_may_hold_a_host_are_read(tmp_path: Path) -> None:
    file = tmp_path / "00000.parquet"
    names = sorted(f"http://h{i:03d}.example" for i in range(100))
    now = datetime.now(UTC)
    hosts_module._write_records(file, {name: HostRecord(name, 404, "", 404, "", now) for name in names})
    with pq.ParquetFile(file) as parquet:
        groups = range(parquet.metadata.num_row_groups)
        assert len(groups) == 4
        assert [hosts_module._may_hold(parquet, group, [names[40]]) for group in groups] == [False, True, False, False]


def test_an_empty_plan_has_no_hosts(tmp_path: Path) -> None:
    write_done(tmp_path, 0)
    assert host_batches(tmp_path) == 0
    assert decide_all(tmp_path, config()) == []


def test_steps_out_of_order_say_which_one_is_missing(tmp_path: Path, web: Web) -> None:
    with pytest.raises(InputError, match="run the plan step first"):
        host_batches(tmp_path)
    with pytest.raises(InputError, match="run the plan step first"):
        decide_consent(0, tmp_path, config())
    plan(tmp_path, *pictures(web, f"{web.url}/p", 1))
    with pytest.raises(InputError, match="has no host batch 0: run host_batches first"):
        ask_hosts(0, tmp_path, config())
    with pytest.raises(InputError, match=r"1 hosts of .* have not been asked, http://127.0.0.1:\d+ among them"):
        decide_consent(0, tmp_path, config())
    assert not consent_path(tmp_path, 0).exists()
    with pytest.raises(InputError, match="threads must be over 0, not 0"):
        config(threads=0)


def test_odd_folder_names_are_taken_literally(tmp_path: Path, web: Web) -> None:
    folder = tmp_path / "site:it's [odd]*?"
    plan(folder, *pictures(web, f"{web.url}/p", 1))
    assert decide_all(folder, config())[0].pairs == 1


def write_big_plan(crawl_dir: Path, parts: int, pairs: int, hosts: int) -> None:
    """Pairs on hosts of many, the way a list of the whole web has them."""
    for part in range(parts):
        rows = []
        for i in range(pairs):
            number = int(hashlib.md5(f"{part}-{i}".encode()).hexdigest()[:8], 16)
            image = f"http://i{number % hosts}.example/{number}.jpg"
            rows.append(pair(Candidate(f"http://p{number % hosts}.example/{part}/{i}", image, (), "")))
        write_table(part_path(crawl_dir / "plan", part, "pairs"), rows, PAIRS)
    write_done(crawl_dir, parts)


@pytest.mark.slow
def test_the_work_of_a_part_does_not_grow_with_the_number_of_hosts(tmp_path: Path) -> None:
    seconds = {}
    for hosts in (1_000, 20_000):
        folder = tmp_path / str(hosts)
        write_big_plan(folder, 10, 1000, hosts)
        batches = host_batches(folder, 500)
        names = [row["host"] for row in read_rows(folder / "consent" / "batches.parquet")]
        for batch in range(batches):
            now = datetime.now(UTC)
            hosts_module._write_records(
                hosts_path(folder, batch),
                {n: HostRecord(n, 404, "", 404, "", now) for n in names if batch_of(n, batches) == batch},
            )
        started = datetime.now(UTC)
        assert decide_consent(3, folder, config()).pairs == 1000
        seconds[hosts] = (datetime.now(UTC) - started).total_seconds()
    assert seconds[20_000] < 6 * seconds[1_000] + 1


def test_a_plan_is_what_consent_reads(tmp_path: Path, web: Web) -> None:
    found = [*pictures(web, f"{web.url}/p", 3, "meta robots: all"), stored(f"{web.url}/1.jpg")]
    write_plan(found, tmp_path / "real" / "plan", 2, "test")
    plan(tmp_path / "light", *found, part_urls=2)
    for name in ("00000.pairs.parquet", "00001.pairs.parquet"):
        real, light = (read_rows(tmp_path / kind / "plan" / name) for kind in ("real", "light"))
        assert real == light
    indices = [read_rows(tmp_path / kind / "plan" / "stored.parquet", ["url_id"]) for kind in ("real", "light")]
    assert indices[0] == indices[1] == [{"url_id": url_id(f"{web.url}/1.jpg")}]
    assert [stats.pairs for stats in decide_all(tmp_path / "real", config())] == [2, 1]


_STEP = """
import sys
from pathlib import Path
from crawler.consent import ConsentConfig, decide_all
from crawler.fetch import FetchConfig
decide_all(Path(sys.argv[1]), ConsentConfig(fetch=FetchConfig(total_s=60.0, allow_private=True)))
"""


@pytest.mark.e2e
def test_a_process_that_is_killed_loses_at_most_one_batch(tmp_path: Path, webs: Sequence[Web]) -> None:
    plan(tmp_path, *(candidate for web in webs for candidate in pictures(web, f"{web.url}/p", 2)))
    batches = host_batches(tmp_path, 1)
    last = max(webs, key=lambda web: batch_of(web.url, batches))
    in_last_batch = [web for web in webs if batch_of(web.url, batches) == batch_of(last.url, batches)]
    last.routes["/robots.txt"] = drip(10_000)
    step = subprocess.Popen([sys.executable, "-c", _STEP, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while not last.asked and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        step.kill()
        step.wait()
    assert not hosts_path(tmp_path, batch_of(last.url, batches)).exists()
    last.routes.clear()
    decide_all(tmp_path, config())
    assert set(verdicts(tmp_path).values()) == {(True, None)}
    assert len(verdicts(tmp_path)) == 8
    assert [web.asked for web in webs if web not in in_last_batch] == [FILES] * (4 - len(in_last_batch))
    assert last.asked == {"/robots.txt": 2, TDMREP: 1}
