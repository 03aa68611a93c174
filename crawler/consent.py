"""Consent as a step of its own: hosts are asked first, in batches; each pair is then decided without the network.

    host_batches(crawl) -> n;  ask_hosts(batch, crawl) for each;  decide_consent(part, crawl) for each part

Grammar of directives: crawler.directives. robots.txt and tdmrep.json: crawler.robots. Batches: crawler.hosts.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawler.address import AddressError, parse_address
from crawler.directives import (
    REFUSING,
    forbids_following,
    refused_by_headers,
    refused_by_page,
    refusing_directive,
    reserves_tdm,
)
from crawler.errors import InputError
from crawler.files import replacing
from crawler.hosts import (
    ConsentConfig,
    HostStats,
    ask_hosts,
    host_batches,
    hosts_path,
    is_fresh,
    load_hosts,
    read_hosts,
)
from crawler.plan import part_path, read_plan
from crawler.robots import HostRecord, HostRules, Verdict
from crawler.stored import stored_index_path
from warehouse.schema import CONSENT, Reason

__all__ = [
    "REFUSING",
    "ConsentConfig",
    "ConsentStats",
    "HostStats",
    "ask_hosts",
    "consent_path",
    "decide_all",
    "decide_consent",
    "forbids_following",
    "host_batches",
    "hosts_path",
    "load_hosts",
    "refused_by_headers",
    "refused_by_page",
    "refusing_directive",
    "reserves_tdm",
]

logger = logging.getLogger(__name__)

_BATCH_PAIRS = 10_000
_COLUMNS = ["row_id", "url_id", "page_url", "image_url", "page_host", "image_host", "page_directives"]
# An owner's rule, in contrast to a host that cannot be asked.
_RULES = frozenset({Reason.ROBOTS_TXT, Reason.TDM_RESERVED})
_NO_ANSWER = frozenset({Reason.ROBOTS_UNREACHABLE, Reason.PRIVATE_ADDRESS})

Pair = dict[str, str]
_IMAGE, _PAGE = "image", "page"
Key = tuple[int, str]
"""A pair by its index, and which of its two addresses."""
Dated = tuple[Verdict, datetime]
"""A verdict and the time at which what it rests on was asked for."""


@dataclass(frozen=True)
class ConsentStats:
    """Of one part: pairs decided, and pairs refused."""

    part: int
    pairs: int
    refused: int


def consent_path(crawl_dir: Path, part: int) -> Path:
    return crawl_dir / "consent" / f"{part:05d}.parquet"


def decide_consent(part: int, crawl_dir: Path, config: ConsentConfig | None = None) -> ConsentStats:
    """Decide every pair of one planned part and write consent/<part>.parquet; a current one is kept as it is.

    Asks nobody: the hosts have been asked by ask_hosts. A part whose pictures are already downloaded keeps the verdicts
    that the download went by. Raises InputError where there is no plan, or a host has not been asked.
    """
    config = config or ConsentConfig()
    now = datetime.now(UTC)
    target = consent_path(crawl_dir, part)
    downloaded = (crawl_dir / "images" / f"{part:05d}_stats.json").is_file()
    if target.is_file() and (downloaded or _is_current(target, config.oldest(now))):
        allowed = pq.read_table(target, columns=["allowed"])["allowed"]
        return ConsentStats(part, len(allowed), len(allowed) - (pc.sum(allowed).as_py() or 0))
    source = part_path(crawl_dir / "plan", part, "pairs")
    if not source.is_file():
        raise InputError(f"part {part} of {crawl_dir} has no {source.name}: run the plan step first")
    pairs = refused = 0
    with (
        replacing(target) as temporary,
        pq.ParquetFile(source) as planned,
        pq.ParquetWriter(temporary, CONSENT, compression="zstd") as writer,
    ):
        stored = _stored(crawl_dir, planned)
        for batch in planned.iter_batches(_BATCH_PAIRS, columns=_COLUMNS):
            rows = _decided(batch.to_pylist(), crawl_dir, stored, now)
            writer.write_table(pa.Table.from_pylist(rows, schema=CONSENT))
            pairs += len(rows)
            refused += sum(not row["allowed"] for row in rows)
    logger.info("consent %05d: %d pairs, %d refused", part, pairs, refused)
    return ConsentStats(part, pairs, refused)


def decide_all(crawl_dir: Path, config: ConsentConfig | None = None) -> list[ConsentStats]:
    """Ask all hosts of a planned crawl and decide all its parts, one after the other, in this process."""
    for batch in range(host_batches(crawl_dir)):
        ask_hosts(batch, crawl_dir, config)
    summary = read_plan(crawl_dir / "plan")
    return [decide_consent(part, crawl_dir, config) for part in range(summary.parts if summary else 0)]


def _is_current(path: Path, oldest: datetime) -> bool:
    ends = pc.min_max(pq.read_table(path, columns=["checked_at"])["checked_at"]).as_py()
    return ends["min"] is None or all(is_fresh(time, oldest) for time in ends.values())


def _decided(pairs: Sequence[Pair], crawl_dir: Path, stored: frozenset[str], now: datetime) -> list[dict[str, object]]:
    """Rows of CONSENT for `pairs`: their pages' directives first, then the rules of the hosts that are left."""
    verdicts: dict[int, Dated] = {}
    for index, pair in enumerate(pairs):
        directive = refused_by_page(pair["page_directives"], now)
        if directive is not None:
            verdicts[index] = Verdict(False, Reason.PAGE_OPTED_OUT, directive), now
    left = [index for index in range(len(pairs)) if index not in verdicts]
    by_rule = _verdicts(_addresses(pairs, left), crawl_dir)
    for index in left:
        verdicts[index] = _joined(
            by_rule.get((index, _IMAGE)) or (_unaskable(pairs[index]["image_url"]), now),
            by_rule.get((index, _PAGE)),
            pairs[index]["url_id"] in stored,
        )
    return [_row(pair, *verdicts[index]) for index, pair in enumerate(pairs)]


def _addresses(pairs: Sequence[Pair], indices: Iterable[int]) -> Iterator[tuple[Key, str, str]]:
    """(key, host, address) of everything that a host's rules decide about."""
    for index in indices:
        pair = pairs[index]
        if pair["image_host"]:
            yield (index, _IMAGE), pair["image_host"], pair["image_url"]
        if pair["page_host"] and pair["page_url"] != pair["image_url"]:
            yield (index, _PAGE), pair["page_host"], pair["page_url"]


def _verdicts(addresses: Iterable[tuple[Key, str, str]], crawl_dir: Path) -> dict[Key, Dated]:
    """Verdicts by key, found host by host, so that few records are in memory at a time."""
    by_host: defaultdict[str, list[tuple[Key, str]]] = defaultdict(list)
    for key, host, url in addresses:
        by_host[host].append((key, url))
    verdicts: dict[Key, Dated] = {}
    for record in read_hosts(crawl_dir, by_host):
        verdicts.update(_by_record(record, by_host.pop(record.host)))
    if by_host:
        raise InputError(
            f"{len(by_host)} hosts of {crawl_dir} have not been asked, {min(by_host)} among them: run the hosts' step "
            "(ask_hosts) for all batches first"
        )
    return verdicts


def _by_record(record: HostRecord, urls: list[tuple[Key, str]]) -> Iterator[tuple[Key, Dated]]:
    rules = HostRules(record)
    for key, url in urls:
        try:
            yield key, (rules.verdict(parse_address(url).target), record.checked_at)
        except AddressError as error:
            yield key, (Verdict(False, error.reason, error.detail), record.checked_at)


def _unaskable(url: str) -> Verdict:
    """The verdict on an address without a host."""
    try:
        parse_address(url)
    except AddressError as error:
        return Verdict(False, error.reason, error.detail)
    return Verdict(False, Reason.BAD_ADDRESS, "the plan names no host for the address")


def _joined(image: Dated, page: Dated | None, is_stored: bool) -> Dated:
    """The verdict on a pair from those on its two addresses; it is as old as the older of the records.

    The page is not asked for again, nor is a picture that the source holds: there, a host that does not answer refuses
    nothing, but an owner's rule does.
    """
    verdict, at = image
    if is_stored and verdict.reason in _NO_ANSWER:
        verdict = Verdict(True, None, f"held by the source; {verdict.evidence}")
    if page is None:
        return verdict, at
    at = min(at, page[1])
    return (page[0] if verdict.allowed and page[0].reason in _RULES else verdict), at


def _stored(crawl_dir: Path, planned: pq.ParquetFile) -> frozenset[str]:
    """The url_ids of a planned part whose pictures the source itself holds; both files are in order of url_id."""
    index = stored_index_path(crawl_dir / "plan")
    if not index.is_file() or not pq.read_metadata(index).num_rows or not planned.metadata.num_rows:
        return frozenset()
    bounds = pc.min_max(planned.read(columns=["url_id"])["url_id"]).as_py()
    between = [("url_id", ">=", bounds["min"]), ("url_id", "<=", bounds["max"])]
    return frozenset(pq.read_table(index, columns=["url_id"], filters=between)["url_id"].to_pylist())


def _row(pair: Pair, verdict: Verdict, checked_at: datetime) -> dict[str, object]:
    return {
        "row_id": pair["row_id"],
        "url_id": pair["url_id"],
        "allowed": verdict.allowed,
        "reason": verdict.reason,
        "evidence": verdict.evidence,
        "checked_at": checked_at,
    }
