"""Similarities of captions and faces: what is to be measured, what a threshold drops, whose measurements count."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from literal_crawls import Shot, Visit, write_crawl

from warehouse import connect
from warehouse.erase import erase_rows
from warehouse.errors import InputError
from warehouse.parameters import RuleParameters
from warehouse.publish import publish
from warehouse.removal import Removal
from warehouse.report.spread import read_spread
from warehouse.schema import SIMILARITIES
from warehouse.similarities import chosen_texts
from warehouse.whatif import release_rules, what_if

GOOD, BAD, UNKNOWN = Shot("good"), Shot("bad", captions=(("alt", "Tickets for the old harbour"),)), Shot("unknown")
MODEL, OTHER = "open_clip:a:1:2", "open_clip:b:3:4"
LIMIT = RuleParameters(min_clip_similarity=0.2, clip_model=MODEL)


def similarities(crawl: Path, *values: tuple[Shot, float], model: str = MODEL) -> Path:
    """A file as flows.steps.similarity writes it; the literal captions need no cleaning."""
    rows = [
        {
            "image_id": shot.image_id,
            "caption_id": hashlib.md5(shot.captions[0][1].encode()).hexdigest(),
            "model": model,
            "similarity": value,
        }
        for shot, value in values
    ]
    path = crawl / "similarity" / f"00000.{hashlib.sha256(model.encode()).hexdigest()[:8]}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SIMILARITIES), path)
    return path


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    return write_crawl(tmp_path / "raw/test/g000", [GOOD, BAD, UNKNOWN])


def decided(root: Path, at: int | None = None) -> dict[str, tuple[str, float | None]]:
    with connect(root, at) as con:
        rows = con.execute(
            "SELECT image_url, reason, round(clip_similarity::DOUBLE, 4) FROM decisions JOIN pairs USING (row_id)"
        ).fetchall()
    names = {shot.image_url: shot.name for shot in (GOOD, BAD, UNKNOWN)}
    return {names[url]: (reason, value) for url, reason, value in rows}


def test_nothing_is_dropped_until_a_threshold_is_set(
    crawl: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = similarities(crawl, (GOOD, 0.3), (BAD, 0.1))
    first = publish(tmp_path, [crawl], RuleParameters(clip_model=MODEL), similarities=[file])
    assert decided(tmp_path) == {"good": ("kept", 0.3), "bad": ("kept", 0.1), "unknown": ("kept", None)}
    with connect(tmp_path) as con:
        now = release_rules(con)
        kept = con.execute("SELECT image_id, clip_similarity FROM corpus WHERE clip_similarity > 0.2").fetchall()
    assert kept == [(GOOD.image_id, pytest.approx(0.3))]
    # What it would cost is known before it is applied; a pair that nobody has measured passes.
    cost = what_if(tmp_path, now, now.changed("clip_similarity", "0.2"))
    assert (cost.total.before, cost.total.after, cost.reasons) == (3, 2, {"clip_similarity": 1})
    with caplog.at_level(logging.WARNING):
        second = publish(tmp_path, [crawl], LIMIT)
    assert "min_clip_similarity=0.2: 1 pairs have no similarity and pass" in caplog.text
    assert (first.number, second.number) == (1, 2)
    assert decided(tmp_path) == {"good": ("kept", 0.3), "bad": ("clip_similarity", 0.1), "unknown": ("kept", None)}
    assert decided(tmp_path, at=1)["bad"] == ("kept", 0.1)
    with connect(tmp_path) as con:
        assert ("caption", "clip_similarity", 1) in con.execute("SELECT stage, reason, pairs FROM funnel").fetchall()
        charts = {chart.title: chart for chart in read_spread(con, asdict(LIMIT)).histograms}
    chart = charts["CLIP similarity of face and caption"]
    assert (sum(chart.found), sum(chart.kept), chart.threshold) == (2, 1, 0.2)


def test_a_model_counts_until_another_is_named(crawl: Path, tmp_path: Path) -> None:
    rules = replace(LIMIT, clip_model="")
    assert publish(tmp_path, [crawl], rules).kept == 3  # nothing is measured
    file = similarities(crawl, (GOOD, 0.3), (BAD, 0.1))
    assert publish(tmp_path, [crawl], LIMIT, similarities=[file]).kept == 2
    again = publish(tmp_path, [crawl], rules)  # a build without --clip says nothing about the model
    assert (again.number, again.created, again.kept) == (2, False, 2)
    other = similarities(crawl, (GOOD, 0.1), (BAD, 0.9), model=OTHER)
    publish(tmp_path, [crawl], replace(LIMIT, clip_model=OTHER), similarities=[file, other])
    assert decided(tmp_path)["good"] == ("clip_similarity", 0.1)
    publish(tmp_path, [crawl], LIMIT)
    assert decided(tmp_path)["good"] == ("kept", 0.3)


def test_a_new_text_or_picture_takes_no_similarity_over(crawl: Path, tmp_path: Path) -> None:
    publish(tmp_path, [crawl], LIMIT, similarities=[similarities(crawl, (GOOD, 0.3), (BAD, 0.1), (UNKNOWN, 0.1))])
    text = replace(BAD, captions=(("alt", "A man with a short beard"),))
    newer = write_crawl(
        tmp_path / "raw/test/g001", [text, replace(UNKNOWN, content="new bytes")], visits=[Visit()], seen=[GOOD]
    )
    publish(tmp_path, [newer], LIMIT)
    assert decided(tmp_path) == {"good": ("kept", 0.3), "bad": ("kept", None), "unknown": ("kept", None)}
    # Measured later, for the older crawl and the newer one.
    publish(tmp_path, [newer], LIMIT, similarities=[similarities(newer, (text, 0.4))])
    assert decided(tmp_path)["bad"] == ("kept", 0.4)
    assert decided(tmp_path, at=1)["bad"] == ("clip_similarity", 0.1)


def test_a_takedown_takes_similarities_along(crawl: Path, tmp_path: Path) -> None:
    publish(tmp_path, [crawl], LIMIT, similarities=[similarities(crawl, (GOOD, 0.3), (BAD, 0.1))])
    gone = Removal(frozenset({BAD.row_id}), frozenset({BAD.url_id}), frozenset({BAD.image_id}))
    texts = dict.fromkeys(("kind", "shards", "gaps", "models", "run_id"), "")
    audit = {"takedown_id": "t", "at": BAD.fetched, "raw_pictures": 0, **texts}
    erase_rows(tmp_path, gone, audit, [])
    with connect(tmp_path) as con:
        assert con.execute("SELECT image_id FROM history.similarities").fetchall() == [(GOOD.image_id,)]
    assert decided(tmp_path) == {"good": ("kept", 0.3), "unknown": ("kept", None)}


def test_what_is_measured_is_what_the_caption_rules_choose(tmp_path: Path) -> None:
    shots = [
        GOOD,
        Shot("same", page="p1", content="good"),  # the same bytes and text elsewhere: one comparison
        Shot("two", captions=(("alt", "IMG_1234.jpg"), ("title", "A man  with a beard, call +44 20 7946 0958"))),
        Shot("file", captions=(("alt", "IMG_1234.jpg"),)),
        Shot("short", captions=(("alt", "Ada Lovelace"),)),
        Shot("gone", failed="dns"),
        Shot("none", captions=()),
    ]
    crawl = write_crawl(tmp_path / "raw/test/g000", shots)
    found = {(text.image_id, text.text): text for text in chosen_texts(0, crawl, RuleParameters())}
    assert set(found) == {
        (GOOD.image_id, "A smiling woman with brown hair"),
        (shots[2].image_id, "A man with a beard"),
    }
    text = found[GOOD.image_id, GOOD.captions[0][1]]
    assert text.caption_id == hashlib.md5(text.text.encode()).hexdigest()
    assert (text.raw_shard, text.raw_bytes) == ("raw/test/g000/images/00000.tar", 1000)
    both = RuleParameters(min_caption_words=2)
    assert (shots[4].image_id, "Ada Lovelace") in {(t.image_id, t.text) for t in chosen_texts(0, crawl, both)}
    with pytest.raises(InputError, match=r"part 1 of .* cannot be read"):
        chosen_texts(1, crawl, RuleParameters())


def test_files_that_do_not_fit_are_named(crawl: Path, tmp_path: Path) -> None:
    file = similarities(crawl, (GOOD, 0.3))
    pq.write_table(pq.read_table(file).drop_columns(["similarity"]), file)
    with pytest.raises(InputError, match=r"similarities parts of crawl raw/test/g000 cannot be read"):
        publish(tmp_path, [crawl], LIMIT, similarities=[file])
    for values in ({"min_clip_similarity": 2}, {"clip_model": 1}):
        with pytest.raises(InputError, match=f"rule parameter {next(iter(values))}="):
            RuleParameters.from_mapping(values)
