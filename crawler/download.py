"""Download one part of a plan into one raw shard: consented addresses only, guarded, every row with an end.

images/<part>.tar (original bytes), <part>.parquet (warehouse.schema.IMAGES), <part>_stats.json (last: the part is
done). A crash leaves no statistics, and the part is done again; a tar that no longer has its recorded size, too.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from crawler.consent import consent_path, load_hosts, refused_by_headers
from crawler.engine import download_shard
from crawler.errors import InputError
from crawler.fetch import Answer, FetchConfig, Fetcher, FetchError, Headers, Hooks
from crawler.files import read_rows, write_json, write_table
from crawler.plan import part_path
from crawler.rawshard import Outcome, RawShardWriter
from crawler.robots import RobotsGate
from crawler.sniff import image_kind
from warehouse.schema import IMAGES, Reason, Status

logger = logging.getLogger(__name__)

# Worth asking again at once, after a pause. A timeout is not: it has had its time. A refusal and a 4xx are answers.
_RETRIED = frozenset({Reason.DNS, Reason.CONNECT, Reason.HTTP_SERVER_ERROR, Reason.BROKEN_TRANSFER})
_REFUSALS = frozenset(
    {
        Reason.ROBOTS_TXT,
        Reason.ROBOTS_UNREACHABLE,
        Reason.PAGE_OPTED_OUT,
        Reason.IMAGE_OPTED_OUT,
        Reason.HOST_OPTED_OUT,
    }
)


@dataclass(frozen=True)
class DownloadConfig:
    """How a part is downloaded. `backoff_s` doubles with each of `retries`; `part_s` bounds the whole part."""

    fetch: FetchConfig = field(default_factory=FetchConfig)
    threads: int = 32
    retries: int = 2
    backoff_s: float = 0.5
    part_s: float = 3600.0
    hosts_ttl_h: float = 24.0

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError(f"threads must be at least 1, not {self.threads}")
        if self.retries < 0:
            raise InputError(f"retries must not be negative, but is {self.retries}")


@dataclass(frozen=True)
class DownloadStats:
    """Of one part: addresses by outcome, bytes kept, and the counts of each reason."""

    part: int
    urls: int
    ok: int
    refused: int
    failed: int
    bytes: int
    tar_bytes: int
    duration_s: float
    reasons: dict[str, int]


def images_path(crawl_dir: Path, part: int, ending: str) -> Path:
    """Path of a part's ".tar", ".parquet" or "_stats.json"."""
    return crawl_dir / "images" / f"{part:05d}{ending}"


def read_stats(crawl_dir: Path, part: int) -> DownloadStats | None:
    """The statistics of a finished part, or None where it has to be done (again)."""
    marker, tar, table = (images_path(crawl_dir, part, end) for end in ("_stats.json", ".tar", ".parquet"))
    if not (marker.is_file() and tar.is_file() and table.is_file()):
        return None
    stats = DownloadStats(**json.loads(marker.read_text(encoding="utf-8")))
    if tar.stat().st_size != stats.tar_bytes:
        logger.warning("%s has %d bytes of %d: downloading it again", tar, tar.stat().st_size, stats.tar_bytes)
        return None
    return stats


def download_part(part: int, crawl_dir: Path, raw_prefix: str, config: DownloadConfig | None = None) -> DownloadStats:
    """Download the addresses of one part; a finished part is returned as it is.

    Args:
        part: number of the part in crawl_dir/plan, decided by crawler.consent.decide_consent.
        crawl_dir: folder of the crawl (root/raw/<source>/g<generation>).
        raw_prefix: path of crawl_dir/images below the root, with "/": `raw_shard` of each picture begins with it.
        config: bounds.

    Raises InputError where the part has no plan or no verdicts. Rows never raise: each ends with status and reason.
    """
    config = config or DownloadConfig()
    finished = read_stats(crawl_dir, part)
    if finished is not None:
        return finished
    started = time.monotonic()
    marker = images_path(crawl_dir, part, "_stats.json")
    marker.unlink(missing_ok=True)
    scratch = crawl_dir / "images" / f".{part:05d}.work"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    urls, outcomes = _decided(part, crawl_dir)
    raw_shard = f"{raw_prefix.strip('/')}/{part:05d}.tar"
    writer = RawShardWriter(scratch)
    try:
        with Fetcher(config.fetch) as fetcher:
            hosts = load_hosts(crawl_dir, datetime.now(UTC) - timedelta(hours=config.hosts_ttl_h))
            rows = _Rows(fetcher, RobotsGate(fetcher, hosts), config, writer, outcomes)
            wanted = [(url_id, url) for url_id, url in sorted(urls.items()) if url_id not in outcomes]
            rows.run(part, wanted, scratch)
        tar = images_path(crawl_dir, part, ".tar")
        table = writer.finish(tar, raw_shard, urls, outcomes)
    finally:
        writer.close()
        shutil.rmtree(scratch, ignore_errors=True)
    write_table(images_path(crawl_dir, part, ".parquet"), table, IMAGES)
    stats = _stats(part, table, tar.stat().st_size, time.monotonic() - started)
    write_json(marker, asdict(stats))
    logger.info("images %05d: %d ok, %d refused, %d failed", part, stats.ok, stats.refused, stats.failed)
    return stats


def _decided(part: int, crawl_dir: Path) -> tuple[dict[str, str], dict[str, Outcome]]:
    """All addresses of the part (url_id -> address), and the outcome of those that no pair may ask for.

    An address is asked for if at least one page that shows it allows it; the pair's own verdict is kept in CONSENT.
    """
    pairs_file, verdicts_file = part_path(crawl_dir / "plan", part, "pairs"), consent_path(crawl_dir, part)
    for path, step in ((pairs_file, "plan"), (verdicts_file, "consent")):
        if not path.is_file():
            raise InputError(f"part {part} of {crawl_dir} has no {path.name}: run the {step} step first")
    urls = {row["url_id"]: row["image_url"] for row in read_rows(pairs_file, ["url_id", "image_url"])}
    verdicts = read_rows(verdicts_file)
    allowed = {row["url_id"] for row in verdicts if row["allowed"]}
    refused: dict[str, Outcome] = {}
    for row in sorted(verdicts, key=lambda row: row["row_id"]):
        if row["url_id"] not in allowed and row["url_id"] not in refused:
            reason = Reason(row["reason"])
            refused[row["url_id"]] = _ended(reason, row["evidence"], row["checked_at"], attempts=0)
    undecided = urls.keys() - allowed - refused.keys()
    if undecided:
        raise InputError(
            f"part {part} of {crawl_dir} has {len(undecided)} addresses without verdict: run consent again"
        )
    return urls, refused


def _ended(reason: Reason, error: str, at: datetime, attempts: int, http_status: int | None = None) -> Outcome:
    status = Status.REFUSED if reason in _REFUSALS else Status.FAILED
    return Outcome(status, reason, error, http_status, attempts, at)


class _Rows:
    """Fetches rows in threads and receives them as img2dataset's sample writer."""

    def __init__(
        self,
        fetcher: Fetcher,
        gate: RobotsGate,
        config: DownloadConfig,
        writer: RawShardWriter,
        outcomes: dict[str, Outcome],
    ) -> None:
        self._fetcher = fetcher
        self._gate = gate
        self._config = config
        self._writer = writer
        self._outcomes = outcomes
        self._deadline = time.monotonic() + config.part_s
        self._wanted: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def run(self, part: int, wanted: list[tuple[str, str]], scratch: Path) -> None:
        """Download `wanted` (url_id, address); afterwards every one of them has an outcome."""
        self._wanted = wanted
        if wanted:
            threads = min(self._config.threads, len(wanted))
            download_shard(part, wanted, scratch, threads, self._fetch, self)
        for url_id, _ in wanted:
            outcome = self._outcomes.get(url_id)
            if outcome is None or (outcome.status is Status.OK and url_id not in self._writer):
                logger.error("row %s was lost on the way to the writer", url_id)
                self._outcomes[url_id] = _ended(Reason.INTERNAL_ERROR, "lost before writing", datetime.now(UTC), 0)

    # img2dataset's side: called from its threads, and from its one writing thread.

    def _fetch(self, position: int, url: str) -> tuple[BytesIO | None, str | None]:
        outcome, data = self._download(url)
        with self._lock:
            self._outcomes[self._wanted[position][0]] = outcome
        return (BytesIO(data), None) if data is not None else (None, str(outcome.reason))

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        if img_str is not None:
            self._writer.add(meta["url_id"], img_str)

    def close(self) -> None:
        """img2dataset closes its writer after the last row; ours is finished by the part."""

    # One row.

    def _download(self, url: str) -> tuple[Outcome, bytes | None]:
        """Ask for `url`, again after a pause where that is worth it."""
        for attempt in range(1, self._config.retries + 2):
            outcome, data = self._attempt(url, attempt)
            pause_s = self._config.backoff_s * 2 ** (attempt - 1)
            last = attempt > self._config.retries or time.monotonic() + pause_s > self._deadline
            if outcome.reason not in _RETRIED or last:
                break
            time.sleep(pause_s)
        return outcome, data

    def _attempt(self, url: str, attempt: int) -> tuple[Outcome, bytes | None]:
        now = datetime.now(UTC)
        if time.monotonic() > self._deadline:
            return _ended(Reason.TIMEOUT, "the part's time was up", now, attempt - 1), None
        try:
            hooks = Hooks(hop=_hop_check(self._gate, url), headers=_refuse_by_headers)
            answer = self._fetcher.get(url, hooks, self._deadline)
            return _judged(answer, now, attempt)
        except FetchError as error:
            return _ended(error.reason, error.detail[:300], now, attempt, error.http_status), None
        except Exception as error:  # the row boundary: one bad row must not end the part
            logger.exception("unexpected error at %s", url)
            return _ended(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"[:300], now, attempt), None


def _hop_check(gate: RobotsGate, url: str) -> Any:
    """Redirects obey robots.txt, too, of whatever host they lead to."""

    def check(target: str) -> None:
        verdict = gate.verdict(target)
        if not verdict.allowed:
            raise FetchError(verdict.reason or Reason.ROBOTS_TXT, f"redirect to {target[:200]}: {verdict.evidence}")

    return check


def _refuse_by_headers(_url: str, status: int, headers: Headers) -> None:
    """An opt-out in the headers ends the request before the body is read."""
    refusal = refused_by_headers(headers, datetime.now(UTC))
    if refusal is not None:
        raise FetchError(Reason.IMAGE_OPTED_OUT, refusal, status)


def _judged(answer: Answer, now: datetime, attempt: int) -> tuple[Outcome, bytes | None]:
    """The outcome of a complete answer, with its bytes where it is a picture."""

    def failed(reason: Reason, error: str) -> tuple[Outcome, None]:
        return _ended(reason, error, now, attempt, answer.status), None

    if answer.status >= 500:
        return failed(Reason.HTTP_SERVER_ERROR, f"HTTP {answer.status}")
    if answer.status // 100 != 2:
        return failed(Reason.HTTP_CLIENT_ERROR, f"HTTP {answer.status}")
    if not answer.body:
        return failed(Reason.EMPTY_BODY, "no bytes")
    kind = image_kind(answer.body)
    if kind is None:
        return failed(Reason.NOT_AN_IMAGE, f"begins with {answer.body[:12]!r}")
    return Outcome(Status.OK, None, None, answer.status, attempt, now, kind), answer.body


def _stats(part: int, rows: list[dict[str, Any]], tar_bytes: int, duration_s: float) -> DownloadStats:
    by_status = Counter(row["status"] for row in rows)
    reasons = Counter(str(row["reason"]) for row in rows if row["reason"])
    return DownloadStats(
        part=part,
        urls=len(rows),
        ok=by_status[Status.OK],
        refused=by_status[Status.REFUSED],
        failed=by_status[Status.FAILED],
        bytes=sum(row["raw_bytes"] or 0 for row in rows),
        tar_bytes=tar_bytes,
        duration_s=round(duration_s, 3),
        reasons=dict(sorted(reasons.items())),
    )
