"""What the report says about a release, asked of the lake in SQL and held in plain dataclasses."""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import dataclass
from typing import Any

import duckdb

from warehouse.errors import InputError
from warehouse.report.reasons import sentence

BINS = 24
# What is left after each stage of the rules, in words.
_STAGE_LABELS = {
    "consent": "allowed",
    "transfer": "downloaded",
    "picture": "decoded, large enough",
    "content": "nothing against its content",
    "face": "one good face",
    "caption": "with a caption",
    "duplicate": "no duplicate",
    "cap": "within the cap of its host",
}
_SHOWN_IF_USED = frozenset({"content", "cap"})  # stages that most corpora pass without a loss


@dataclass(frozen=True)
class Step:
    """A step of the funnel: the pairs that are left after it."""

    label: str
    pairs: int
    share: float  # of all pairs, 0..1


@dataclass(frozen=True)
class ReasonCount:
    reason: str
    stage: str
    pairs: int
    share: float  # of all pairs, 0..1
    sentence: str


@dataclass(frozen=True)
class Histogram:
    """Counts of pictures in equal bins `low + i * width`; the last bin also holds everything above."""

    title: str
    unit: str
    low: float
    width: float
    found: tuple[int, ...]
    kept: tuple[int, ...]
    open_ended: bool
    threshold: float | None
    median_found: float | None
    median_kept: float | None


@dataclass(frozen=True)
class ShardRow:
    file: str
    split: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RunRow:
    kind: str
    status: str
    started_at: dt.datetime
    duration_s: float | None
    code_version: str
    run_id: str


@dataclass(frozen=True)
class Metric:
    """One measured figure of a model, with the 95 % interval `low` to `high`."""

    name: str
    value: float
    baseline: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class CorpusReport:
    """All figures of a release. Counts are pairs (a picture on a page) unless a name says otherwise."""

    release: int
    created_at: dt.datetime
    run_id: str
    code_version: str
    sources: tuple[tuple[str, int], ...]  # source, pairs
    detectors: tuple[tuple[str, int], ...]  # detector, pictures
    pairs: int
    pages: int
    hosts: int
    downloaded: int
    with_face: int
    kept: int
    funnel: tuple[Step, ...]
    reasons: tuple[ReasonCount, ...]
    splits: tuple[tuple[str, int], ...]
    caption_kinds: tuple[tuple[str, int], ...]
    histograms: tuple[Histogram, ...]
    shards: tuple[ShardRow, ...]
    runs: tuple[RunRow, ...]
    config: dict[str, Any]
    rules: dict[str, Any]
    inputs: dict[str, Any]


def read_corpus(con: duckdb.DuckDBPyConnection, at: int | None = None) -> CorpusReport:
    """The figures of release `at` (default: the newest); `con` is `warehouse.lake.connect(root, at)`.

    Raises InputError where the lake has no such release.
    """
    release = con.execute(
        """SELECT release, created_at, run_id, code_version, config, rules, inputs FROM releases
           WHERE release = coalesce(?, (SELECT max(release) FROM releases))""",
        [at],
    ).fetchone()
    if release is None:
        raise InputError(f"no release {at or ''} to report on: run `gptface build ...` first".replace("  ", " "))
    rules = json.loads(release[5])
    counts = con.execute("""
        SELECT count(*), count(DISTINCT page_url), count(DISTINCT page_host),
               count(*) FILTER (i.status = 'ok'), count(*) FILTER (t.face_count >= 1), (SELECT count(*) FROM corpus)
        FROM pairs p LEFT JOIN images i USING (url_id) LEFT JOIN pictures t ON t.image_id = i.image_id""").fetchone()
    pairs, pages, hosts, downloaded, with_face, kept = counts or (0, 0, 0, 0, 0, 0)
    return CorpusReport(
        release=int(release[0]),
        created_at=release[1],
        run_id=release[2],
        code_version=release[3],
        sources=_counted(con, "pairs", "source"),
        detectors=_counted(con, "pictures", "detector"),
        pairs=pairs,
        pages=pages,
        hosts=hosts,
        downloaded=downloaded,
        with_face=with_face,
        kept=kept,
        funnel=_funnel(con, pairs),
        reasons=_reasons(con, pairs),
        splits=_counted(con, "corpus", "split"),
        caption_kinds=_counted(con, "corpus", "caption_kind"),
        histograms=_histograms(con, rules),
        shards=_shards(con, int(release[0])),
        runs=_runs(con),
        config=json.loads(release[4]),
        rules=rules,
        inputs=json.loads(release[6]),
    )


def _counted(con: duckdb.DuckDBPyConnection, table: str, column: str) -> tuple[tuple[str, int], ...]:
    """Values of a column and how often they stand there, the most frequent first."""
    query = f"SELECT {column}, count(*) AS n FROM {table} GROUP BY {column} ORDER BY n DESC, {column}"
    return tuple((str(value), int(n)) for value, n in con.execute(query).fetchall())


def _funnel(con: duckdb.DuckDBPyConnection, pairs: int) -> tuple[Step, ...]:
    """Pairs left after each stage. What the download itself saw to be no picture never counts as downloaded."""
    rows = con.execute("""
        WITH dropped AS (
            SELECT CASE WHEN stage = 'picture' AND i.status <> 'ok' THEN 'transfer' ELSE stage END AS stage
            FROM decisions d JOIN reasons USING (reason) JOIN pairs p USING (row_id) LEFT JOIN images i USING (url_id)
            WHERE NOT d.kept),
        counted AS (SELECT stage, count(*) AS n FROM dropped GROUP BY stage),
        stages AS (SELECT stage, min(stage_order) AS position FROM reasons WHERE stage <> 'kept' GROUP BY stage)
        SELECT stage, coalesce(n, 0), coalesce(sum(n) OVER (ORDER BY position), 0)::BIGINT
        FROM stages LEFT JOIN counted USING (stage) ORDER BY position""").fetchall()
    steps = [Step("pairs found", pairs, 1.0 if pairs else 0.0)]
    shown = [(stage, dropped) for stage, here, dropped in rows if here or stage not in _SHOWN_IF_USED]
    for position, (stage, dropped) in enumerate(shown, 1):
        left = pairs - int(dropped)
        label = _STAGE_LABELS.get(stage, stage) + (": kept" if position == len(shown) else "")
        steps.append(Step(label, left, left / pairs if pairs else 0.0))
    return tuple(steps)


def _reasons(con: duckdb.DuckDBPyConnection, pairs: int) -> tuple[ReasonCount, ...]:
    rows = con.execute("SELECT reason, stage, pairs FROM funnel ORDER BY stage_order").fetchall()
    return tuple(ReasonCount(r, stage, int(n), n / pairs if pairs else 0.0, sentence(r)) for r, stage, n in rows)


def _shards(con: duckdb.DuckDBPyConnection, release: int) -> tuple[ShardRow, ...]:
    rows = con.execute(
        "SELECT file, split, samples, bytes, sha256 FROM shards WHERE release = ? ORDER BY file", [release]
    ).fetchall()
    return tuple(ShardRow(*row) for row in rows)


def _runs(con: duckdb.DuckDBPyConnection, count: int = 12) -> tuple[RunRow, ...]:
    """The newest runs, the newest first."""
    rows = con.execute(
        f"""SELECT kind, status, started_at, duration_s, code_version, run_id FROM runs
            ORDER BY started_at DESC, run_id LIMIT {count}"""
    ).fetchall()
    return tuple(RunRow(*row) for row in rows)


def read_metrics(con: duckdb.DuckDBPyConnection, model: str) -> tuple[Metric, ...]:
    """The figures of a model's newest evaluation, as the lake holds them; empty where there is none."""
    rows = con.execute(
        """SELECT metric, value, baseline, low, high, samples FROM evaluations WHERE model = ?
           QUALIFY row_number() OVER (PARTITION BY metric ORDER BY created_at DESC, release DESC) = 1
           ORDER BY metric""",
        [model],
    ).fetchall()
    return tuple(Metric(*row) for row in rows)


def _histograms(con: duckdb.DuckDBPyConnection, rules: dict[str, Any]) -> tuple[Histogram, ...]:
    """Of the largest face of each picture, and of the pictures: all that were found, and those that were kept."""
    faces = "SELECT image_id, {} AS x FROM faces WHERE face_index = 0"
    pictures = "SELECT image_id, least(width_px, height_px)::FLOAT AS x FROM pictures WHERE reason IS NULL"
    return (
        histogram(con, "Face size", "px", faces.format("face_px"), rules.get("min_face_px")),
        histogram(con, "Detection score", "", faces.format("score"), rules.get("min_score")),
        histogram(con, "Picture size, shorter side", "px", pictures, rules.get("min_side_px")),
    )


def histogram(con: duckdb.DuckDBPyConnection, title: str, unit: str, select: str, threshold: float | None) -> Histogram:
    """Of `select`, which gives image_id and x, all and those kept, in about BINS bins up to the 99th percentile."""
    marked = f"SELECT x, image_id IN (SELECT image_id FROM corpus) AS kept FROM ({select}) WHERE isfinite(x)"
    row = con.execute(f"""
        SELECT min(x), quantile_cont(x, 0.99), max(x), median(x), median(x) FILTER (kept) FROM ({marked})""").fetchone()
    smallest, p99, largest, median_found, median_kept = row or (None,) * 5
    if smallest is None or p99 is None or largest is None:
        return Histogram(title, unit, 0.0, 1.0, (), (), False, threshold, None, None)
    width = bin_width(p99 - smallest)
    low = math.floor(smallest / width) * width
    bins = min(max(math.ceil((largest - low) / width - 1e-6), 1), BINS)  # the last bin holds its upper end, too
    counted = con.execute(
        f"""SELECT least(greatest(floor((x - ?) / ?), 0), ?)::INT AS bin, count(*), count(*) FILTER (kept)
            FROM ({marked}) GROUP BY bin""",
        [low, width, bins - 1],
    ).fetchall()
    found, kept = [0] * bins, [0] * bins
    for index, n, n_kept in counted:
        found[index], kept[index] = n, n_kept
    open_ended = largest > low + bins * width * (1 + 1e-6)
    return Histogram(
        title, unit, low, width, tuple(found), tuple(kept), open_ended, threshold, median_found, median_kept
    )


def bin_width(span: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten with which `span` fits into `BINS - 1` bins."""
    if span <= 0:
        return 1.0
    raw = span / (BINS - 2)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= raw)
