"""Hosts of a crawl, in batches: which there are, and what each answered to robots.txt and tdmrep.json.

consent/batches.parquet (host, batch, needed) and batches.json (last) say which hosts there are; consent/hosts/<batch>
.parquet (warehouse.schema.HOSTS) hold the answers of one batch each. The batch of a host follows from a hash of its
name, so a part finds the records of its hosts by opening those batches alone, and the work grows with the pairs,
whatever the number of hosts and parts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crawler.directives import refused_by_page
from crawler.errors import InputError
from crawler.fetch import FetchConfig, Fetcher
from crawler.files import replacing, write_json
from crawler.plan import part_path, read_plan
from crawler.robots import ROBOTS_MAX_BYTES, HostRecord, RobotsGate
from warehouse.schema import HOSTS

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

_ROW_GROUP_HOSTS = 32  # records of up to 1 MiB each
_READ_GROUPS = 8  # in memory at a time
_FETCHED_ROWS = 10_000
_CLOCK_SKEW = timedelta(hours=1)  # between machines; what is stamped later than that was written by a wrong clock
_MEMORY_LIMIT = "1GB"  # of DuckDB; it goes to disk beyond

# The hosts of pictures and pages. `needed` where a pair of a part that is not downloaded yet asks for the host, and is
# not refused by its own page: hosts of other pairs are left in peace.
_HOSTS = """
create temp table hosts as
    with found as (
        select unnest([image_host, page_host]) as host,
               part in (select part from open_parts)
               and page_directives not in (select directives from refusing) as needed
        from (select *, regexp_extract(filename, '([0-9]+)[.]pairs[.]parquet$', 1)::int as part
              from read_parquet($files, filename = true))
    )
    select host, bool_or(needed) as needed from found where host <> '' group by host
"""
_BATCHES = """
copy (
    select host, (('0x' || substr(md5(host), 1, 8))::ubigint % $batches)::int as batch, needed
    from hosts order by batch, host
) to '{target}' (format parquet, row_group_size 2048)
"""


@dataclass(frozen=True)
class ConsentConfig:
    """How consent is decided. `ttl_h`: verdicts and host records older than this many hours are asked for again."""

    fetch: FetchConfig = field(default_factory=lambda: FetchConfig(total_s=20.0, max_bytes=ROBOTS_MAX_BYTES))
    threads: int = 32
    ttl_h: float = 24.0

    def __post_init__(self) -> None:
        for name in ("threads", "ttl_h"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be over 0, not {getattr(self, name)}")

    def oldest(self, now: datetime) -> datetime:
        """When the oldest record that still counts was asked for."""
        return now - timedelta(hours=self.ttl_h)


def is_fresh(asked_at: datetime, oldest: datetime) -> bool:
    """Whether a record still counts: not asked for before `oldest`, nor at a time that has not come yet."""
    return oldest <= asked_at <= datetime.now(UTC) + _CLOCK_SKEW


@dataclass(frozen=True)
class HostStats:
    """Of one batch: its hosts, and how many of them were asked in this run."""

    batch: int
    hosts: int
    asked: int


def hosts_path(crawl_dir: Path, batch: int) -> Path:
    return crawl_dir / "consent" / "hosts" / f"{batch:05d}.parquet"


def batch_of(host: str, batches: int) -> int:
    """The batch of `host`; the same as in _BATCHES."""
    return int(hashlib.md5(host.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:8], 16) % batches


def host_batches(crawl_dir: Path, batch_hosts: int = 500) -> int:
    """Divide the hosts of a planned crawl into batches of about `batch_hosts`; how many batches there are.

    The number is settled by the first call; later ones only find out anew which hosts are still needed. Memory is
    bounded, whatever the size of the plan. Raises InputError where there is no finished plan.
    """
    import duckdb

    if batch_hosts < 1:
        raise InputError(f"batch_hosts must be at least 1, not {batch_hosts}")
    summary = read_plan(crawl_dir / "plan")
    if summary is None:
        raise InputError(f"{crawl_dir} has no finished plan: run the plan step first")
    settled = _batches(crawl_dir)
    if summary.parts == 0:
        return settled or 0
    files = [part_path(crawl_dir / "plan", part, "pairs") for part in range(summary.parts)]
    work = crawl_dir / "consent" / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    config: dict[str, Any] = {"threads": 2, "memory_limit": _MEMORY_LIMIT, "temp_directory": str(work)}
    try:
        with duckdb.connect(config=config) as connection:
            connection.execute("set enable_progress_bar = false")
            hosts = _write_batches(connection, crawl_dir, files, batch_hosts, settled)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return hosts


def _write_batches(
    connection: duckdb.DuckDBPyConnection, crawl_dir: Path, files: list[Path], batch_hosts: int, settled: int | None
) -> int:
    names = [_unglobbed(file) for file in files]
    images = crawl_dir / "images"
    still_open = [part for part in range(len(files)) if not (images / f"{part:05d}_stats.json").is_file()]
    connection.register("open_parts", pa.table({"part": pa.array(still_open, pa.int32())}))
    _find_refusing_pages(connection, names)
    connection.execute(_HOSTS, {"files": names})
    batches = settled
    if batches is None:
        (hosts,) = connection.execute("select count(*) from hosts").fetchone() or (0,)
        batches = max(1, -(-int(hosts) // batch_hosts))
    target = crawl_dir / "consent" / "batches.parquet"
    with replacing(target) as temporary:
        sql = _BATCHES.replace("{target}", str(temporary).replace("'", "''"))
        connection.execute(sql, {"batches": batches})
    if settled is None:
        write_json(crawl_dir / "consent" / "batches.json", {"batches": batches})
    return batches


def _find_refusing_pages(connection: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Table `refusing`: the distinct page directives that refuse by themselves."""
    now = datetime.now(UTC)
    connection.execute("create temp table refusing (directives varchar)")
    cursor = connection.cursor()
    cursor.execute(
        "select distinct page_directives from read_parquet($files) where page_directives <> ''", {"files": names}
    )
    while rows := cursor.fetchmany(_FETCHED_ROWS):
        refusing = [text for (text,) in rows if refused_by_page(text, now) is not None]
        if refusing:
            table = pa.table({"directives": refusing})
            connection.register("found_refusing", table)
            connection.execute("insert into refusing select directives from found_refusing")
            connection.unregister("found_refusing")


def _unglobbed(file: Path) -> str:
    """A path that DuckDB's file patterns take literally."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(file))


def _batches(crawl_dir: Path) -> int | None:
    """How many batches there are, or None before the first host_batches."""
    file = crawl_dir / "consent" / "batches.json"
    return int(json.loads(file.read_text(encoding="utf-8"))["batches"]) if file.is_file() else None


def ask_hosts(batch: int, crawl_dir: Path, config: ConsentConfig | None = None) -> HostStats:
    """Ask the hosts of one batch for robots.txt and tdmrep.json, and write consent/hosts/<batch>.parquet.

    Records younger than `ttl_h` are kept, and so is every record of a host that no open part needs. A batch that was
    cut short starts anew. Raises InputError where host_batches has not named the batch.
    """
    config = config or ConsentConfig()
    batches = _batches(crawl_dir)
    if batches is None or not 0 <= batch < batches:
        raise InputError(f"{crawl_dir} has no host batch {batch}: run host_batches first")
    listed = pq.read_table(
        crawl_dir / "consent" / "batches.parquet", columns=["host", "needed"], filters=[("batch", "=", batch)]
    ).to_pylist()
    target = hosts_path(crawl_dir, batch)
    records = {record.host: record for record in _records(target, None)}
    now = datetime.now(UTC)
    fresh = {host for host, record in records.items() if is_fresh(record.checked_at, config.oldest(now))}
    wanted = [row["host"] for row in listed if row["needed"] and row["host"] not in fresh]
    if wanted:
        records |= _asked(wanted, config)
    if wanted or not target.exists():
        _write_records(target, records)
    logger.info("hosts %05d: %d of %d asked", batch, len(wanted), len(listed))
    return HostStats(batch, len(listed), len(wanted))


def _asked(hosts: list[str], config: ConsentConfig) -> dict[str, HostRecord]:
    with (
        Fetcher(config.fetch) as fetcher,
        ThreadPoolExecutor(max_workers=min(config.threads, len(hosts))) as pool,
    ):
        gate = RobotsGate(fetcher)
        return {record.host: record for record in pool.map(gate.record, hosts)}


def _write_records(target: Path, records: dict[str, HostRecord]) -> None:
    rows = [asdict(records[host]) for host in sorted(records)]
    with replacing(target) as temporary:
        table = pa.Table.from_pylist(rows, schema=HOSTS)
        pq.write_table(table, temporary, compression="zstd", row_group_size=_ROW_GROUP_HOSTS)


def _records(file: Path, hosts: list[str] | None) -> Iterator[HostRecord]:
    """The records of one file, of the sorted `hosts` alone where they are given; a few row groups in memory."""
    if not file.is_file():
        return
    with pq.ParquetFile(file) as parquet:
        found = range(parquet.metadata.num_row_groups)
        groups = [group for group in found if hosts is None or _may_hold(parquet, group, hosts)]
        for at in range(0, len(groups), _READ_GROUPS):
            # The files are small and many: starting threads would take longer than reading.
            table = parquet.read_row_groups(groups[at : at + _READ_GROUPS], use_threads=False)
            if hosts is not None:
                table = table.filter(pc.is_in(table["host"], pa.array(hosts, pa.string())))
            yield from (HostRecord(**row) for row in table.to_pylist())


def _may_hold(parquet: pq.ParquetFile, group: int, hosts: list[str]) -> bool:
    """False where the statistics of the row group say that none of the sorted `hosts` is in it."""
    statistics = parquet.metadata.row_group(group).column(0).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    at = bisect_left(hosts, statistics.min)
    return at < len(hosts) and hosts[at] <= statistics.max


def read_hosts(crawl_dir: Path, hosts: Collection[str] | None = None) -> Iterator[HostRecord]:
    """The records of a crawl, of `hosts` alone where given, in bounded memory: each batch that holds one is opened."""
    batches = _batches(crawl_dir)
    if batches is None:
        return
    if hosts is None:
        for batch in range(batches):
            yield from _records(hosts_path(crawl_dir, batch), None)
        return
    by_batch: defaultdict[int, list[str]] = defaultdict(list)
    for host in sorted(set(hosts) - {""}):
        by_batch[batch_of(host, batches)].append(host)
    for batch, wanted in sorted(by_batch.items()):
        yield from _records(hosts_path(crawl_dir, batch), wanted)


def load_hosts(crawl_dir: Path, oldest: datetime, hosts: Collection[str] | None = None) -> dict[str, HostRecord]:
    """The records that count (see `is_fresh`), of `hosts` (scheme://authority) alone where they are given."""
    return {record.host: record for record in read_hosts(crawl_dir, hosts) if is_fresh(record.checked_at, oldest)}
