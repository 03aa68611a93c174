"""Download one part of a plan into one raw shard: consented addresses only, guarded, every row with an end.

images/<part>.tar (original bytes), <part>.parquet (warehouse.schema.IMAGES), <part>_stats.json (last: the part is
done). A crash leaves no statistics, and the part is done again; a tar that no longer has its recorded size, too. What
had refused before the crash is not asked again (crawler.refusals).
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crawler.asking import AskConfig, Asking, host_of
from crawler.consent import consent_path
from crawler.directives import refused_by_headers
from crawler.engine import download_shard
from crawler.errors import InputError
from crawler.fetch import FetchConfig, Fetcher
from crawler.files import attempt, read_rows, write_json, write_table
from crawler.hostqueues import HostQueues
from crawler.hosts import load_hosts
from crawler.known import read_known
from crawler.outcomes import accumulated, ended, judged, kept
from crawler.plan import part_path
from crawler.politeness import PolitenessConfig, Row
from crawler.rawshard import Outcome, RawShardWriter
from crawler.refusals import HostRefusals, refusals_dir
from crawler.robots import RobotsGate
from crawler.stored import read_stored
from warehouse.schema import IMAGES, Reason, Status

logger = logging.getLogger(__name__)

_NO_PAGE_RULE = frozenset({Reason.ROBOTS_UNREACHABLE, Reason.PAGE_OPTED_OUT})


@dataclass(frozen=True)
class DownloadConfig:
    """How a part is downloaded. `backoff_s` doubles with each of `retries`; `part_s` bounds the whole part.

    host_concurrency, host_delay_s, refusal_limit: see crawler.politeness; `processes` of a build share a host.
    """

    fetch: FetchConfig = field(default_factory=FetchConfig)
    threads: int = 32
    retries: int = 2
    backoff_s: float = 0.5
    part_s: float = 3600.0
    hosts_ttl_h: float = 24.0
    host_concurrency: int = 8
    host_delay_s: float = 0.0
    refusal_limit: int = 3
    processes: int = 1
    pause_max_s: float = 120.0

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError(f"threads must be at least 1, not {self.threads}")
        if self.retries < 0:
            raise InputError(f"retries must not be negative, but is {self.retries}")
        _ = self.politeness  # checks its share of the values

    @property
    def politeness(self) -> PolitenessConfig:
        return PolitenessConfig(
            host_concurrency=self.host_concurrency,
            host_delay_s=self.host_delay_s,
            processes=self.processes,
            refusal_limit=self.refusal_limit,
            pause_max_s=self.pause_max_s,
            limited_limit=self.retries + 1,
        )


@dataclass(frozen=True)
class DownloadStats:
    """Of one part: addresses by outcome, bytes stored, and the counts of each reason.

    `kept` rows (which may be ok, too) are those of an earlier release, whose bytes lie in an earlier shard.
    """

    part: int
    urls: int
    ok: int
    refused: int
    failed: int
    bytes: int
    tar_bytes: int
    duration_s: float
    reasons: dict[str, int]
    kept: int = 0


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


def download_part(
    part: int,
    crawl_dir: Path,
    raw_prefix: str,
    config: DownloadConfig | None = None,
    is_taken_down: Callable[[bytes], bool] = lambda data: False,
) -> DownloadStats:
    """Download the addresses of one part; a finished part is returned as it is.

    Args:
        part: number of the part in crawl_dir/plan, decided by crawler.consent.decide_consent.
        crawl_dir: folder of the crawl (root/raw/<source>/g<generation>).
        raw_prefix: path of crawl_dir/images below the root, with "/": `raw_shard` of each picture begins with it.
        config: bounds.
        is_taken_down: whether a picture with these bytes must not be kept; they are then written nowhere.

    Raises InputError where the part has no plan or no verdicts, OSError where the disk is full. Rows never raise: each
    ends with status and reason.
    """
    config = config or DownloadConfig()
    finished = read_stats(crawl_dir, part)
    if finished is not None:
        return finished
    started = time.monotonic()
    with (
        attempt(crawl_dir / "images" / f".{part:05d}.work") as scratch,
        contextlib.closing(RawShardWriter(scratch)) as writer,
    ):
        images_path(crawl_dir, part, "_stats.json").unlink(missing_ok=True)
        download = _Part(part, crawl_dir, config, writer, started + config.part_s, is_taken_down)
        download.run(scratch)
        files = {ending: scratch / f"whole{ending}" for ending in (".tar", ".parquet", "_stats.json")}
        raw_shard = f"{raw_prefix.strip('/')}/{part:05d}.tar"
        table = writer.finish(files[".tar"], raw_shard, download.urls, download.outcomes)
        write_table(files[".parquet"], table, IMAGES)
        own = {url_id for url_id, outcome in download.outcomes.items() if outcome.kept is None}
        stats = _stats(part, table, own, files[".tar"].stat().st_size, time.monotonic() - started)
        write_json(files["_stats.json"], asdict(stats))
        for ending, file in files.items():  # the marker last
            file.replace(images_path(crawl_dir, part, ending))
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
            refused[row["url_id"]] = ended(reason, row["evidence"], row["checked_at"], attempts=0)
    undecided = urls.keys() - allowed - refused.keys()
    if undecided:
        raise InputError(
            f"part {part} of {crawl_dir} has {len(undecided)} addresses without verdict: run consent again"
        )
    return urls, refused


class _Part:
    """The rows of one part. To img2dataset it is the sample writer, called from its one writing thread."""

    def __init__(
        self,
        part: int,
        crawl_dir: Path,
        config: DownloadConfig,
        writer: RawShardWriter,
        deadline: float,
        is_taken_down: Callable[[bytes], bool],
    ) -> None:
        self.urls, self.outcomes = _decided(part, crawl_dir)
        self._part = part
        self._crawl_dir = crawl_dir
        self._config = config
        self._writer = writer
        self._deadline = deadline
        self._is_taken_down = is_taken_down
        self._known = read_known(crawl_dir, self.urls)
        self._fault: OSError | None = None

    def run(self, scratch: Path) -> None:
        """Give every address an outcome: known, held by the source, or asked for."""
        oldest = datetime.now(UTC) - timedelta(hours=self._config.hosts_ttl_h)
        with Fetcher(self._config.fetch) as fetcher:
            gate = RobotsGate(fetcher, load_hosts(self._crawl_dir, oldest, _hosts(self._part, self._crawl_dir)))
            self._take_known(gate)
            self._take_stored()
            wanted = [(url_id, url) for url_id, url in sorted(self.urls.items()) if url_id not in self.outcomes]
            if wanted:
                self._ask(wanted, fetcher, gate, scratch)
        for url_id, _ in wanted:
            outcome = self.outcomes.get(url_id)
            is_lost = outcome is None or (
                outcome.status is Status.OK and outcome.kept is None and url_id not in self._writer
            )
            if is_lost:
                logger.error("row %s was lost on the way to the writer", url_id)
                self.outcomes[url_id] = ended(Reason.INTERNAL_ERROR, "lost before writing", datetime.now(UTC), 0)

    def _take_known(self, gate: RobotsGate) -> None:
        """What is settled stays, unless its own host has withdrawn consent; that of a page concerns its pair alone."""
        for url_id, known in self._known.items():
            outcome = self.outcomes.get(url_id)
            if outcome is None:
                if known.settled and not known.recheck:
                    self.outcomes[url_id] = kept(known)
            elif known.settled or known.is_ok:
                is_by_page = outcome.reason in _NO_PAGE_RULE or gate.verdict(self.urls[url_id]).allowed
                self.outcomes[url_id] = kept(known) if is_by_page or not known.is_ok else accumulated(outcome, known)
            else:
                self.outcomes[url_id] = accumulated(outcome, known)

    def _take_stored(self) -> None:
        """Pictures that the source holds are judged like downloaded ones, headers included, without a request."""
        for url_id, picture in read_stored(self._crawl_dir, self.urls.keys() - self.outcomes.keys()):
            refusal = refused_by_headers(picture.headers, datetime.now(UTC))
            if refusal is not None:
                outcome = ended(Reason.IMAGE_OPTED_OUT, refusal, picture.fetched_at, 0, 200)
            else:
                outcome, data = judged(picture.body, 200, picture.headers, picture.fetched_at, 0)
                if data is not None and self._is_taken_down(data):
                    outcome = ended(Reason.TAKEN_DOWN, "", picture.fetched_at, 0, 200)
                elif data is not None:
                    self._writer.add(url_id, data)
            self.outcomes[url_id] = accumulated(outcome, self._known.get(url_id))

    def _ask(self, wanted: list[tuple[str, str]], fetcher: Fetcher, gate: RobotsGate, scratch: Path) -> None:
        config, folder = self._config, refusals_dir(self._crawl_dir)
        rows = [Row(i, url_id, url, host_of(url), config.fetch.total_s) for i, (url_id, url) in enumerate(wanted)]
        at_once = len({row.host for row in rows}) * config.politeness.share  # more threads would only wait
        queues = HostQueues(
            rows, config.politeness, self._deadline, lambda host: HostRefusals(folder, host, config.refusal_limit)
        )
        ask = AskConfig(
            config.retries, config.backoff_s, config.fetch.total_s, config.fetch.max_redirects, self._deadline
        )
        asking = Asking(fetcher, gate, queues, self._known, ask, self.outcomes.__setitem__)
        download_shard(self._part, wanted, scratch, min(config.threads, len(wanted), at_once), asking.next_ended, self)
        queues.check()
        if self._fault is not None:
            raise self._fault

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        if img_str is None:
            return
        url_id = meta["url_id"]
        if self._is_taken_down(img_str):
            outcome = self.outcomes[url_id]
            self.outcomes[url_id] = ended(Reason.TAKEN_DOWN, "", outcome.fetched_at, outcome.attempts, 200)
        else:
            self._keep(url_id, img_str)

    def _keep(self, url_id: str, data: bytes) -> None:
        """img2dataset swallows what its writer raises, and a full disk would look like pictures that failed."""
        try:
            if self._fault is None:
                self._writer.add(url_id, data)
        except OSError as error:
            self._fault = error

    def close(self) -> None:
        """img2dataset closes its writer after the last row; ours is finished by the part."""


def _hosts(part: int, crawl_dir: Path) -> set[str]:
    rows = read_rows(part_path(crawl_dir / "plan", part, "pairs"), ["image_host"])
    return {row["image_host"] for row in rows}


def _stats(
    part: int, rows: Iterable[Mapping[str, Any]], own: set[str], tar_bytes: int, duration_s: float
) -> DownloadStats:
    rows = list(rows)
    by_status = Counter(row["status"] for row in rows)
    reasons = Counter(str(row["reason"]) for row in rows if row["reason"])
    return DownloadStats(
        part=part,
        urls=len(rows),
        ok=by_status[Status.OK],
        refused=by_status[Status.REFUSED],
        failed=by_status[Status.FAILED],
        bytes=sum(row["raw_bytes"] or 0 for row in rows if row["url_id"] in own),
        tar_bytes=tar_bytes,
        duration_s=round(duration_s, 3),
        reasons=dict(sorted(reasons.items())),
        kept=len(rows) - len(own),
    )
