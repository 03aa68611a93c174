"""Taking down: what a picture, an address, a host or a likeness left anywhere below a root is removed for good.

`plan` finds what goes and changes nothing. `take_down` writes down the ids of what goes (lake/takedown.json, no address
and no content), works through PHASES and removes that file last. Every phase may be repeated, so a takedown that was
killed is finished by the next one, or by the next build or training of this root, whichever comes first.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps import erase_derived, erase_files
from flows.steps.config import ConfigError
from flows.steps.embeddings import expire_embeddings
from flows.steps.layout import Layout
from flows.steps.runs import recorded
from flows.steps.space import told_if_full
from flows.steps.takedown_phases import PHASES, Job
from warehouse.dedup import Nearness
from warehouse.removal import Removal
from warehouse.selection import Request, Selection

if TYPE_CHECKING:
    import duckdb

    from flows.steps.runner import Runner

logger = logging.getLogger(__name__)

NEAR_BITS = Nearness().whole_bits
SAME_PERSON = 0.4  # cosine of two ArcFace embeddings above which they are taken for the same person


@dataclass(frozen=True)
class TakedownConfig:
    """What to take down. `like` and `person_like` are picture files; `near_bits` and `similarity` say how like."""

    root: str
    urls: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    person_like: tuple[str, ...] = ()
    near_bits: int = NEAR_BITS
    similarity: float = SAME_PERSON
    detector: str = "auto"
    pack: str = "buffalo_sc"

    def __post_init__(self) -> None:
        for value in self.sha256s:
            if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
                raise ConfigError(f"--sha256 {value!r}: give 64 hex digits, as in the column image_id")
        for url in self.urls:
            if "://" not in url:
                raise ConfigError(f"--url {url!r}: give a whole address, beginning with http:// or https://")
        for host in self.hosts:
            if not host or any(c in host.partition("://")[2] or c.isspace() for c in "/?#"):
                raise ConfigError(f"--host {host!r}: give a name such as example.org, or https://example.org:8443")
        if not 0 <= self.near_bits <= 16:
            raise ConfigError(f"--near-bits {self.near_bits}: choose 0 to 16")
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"--similarity {self.similarity}: choose over 0, up to 1")

    @property
    def kinds(self) -> list[str]:
        """What was asked by, without what was asked for."""
        named = {"url": self.urls, "host": self.hosts, "sha256": self.sha256s}
        return [kind for kind, given in {**named, "like": self.like, "person_like": self.person_like}.items() if given]


@dataclass(frozen=True)
class Found:
    """What was searched for and found, for `take_down`: it removes no more than that."""

    request: Request
    removal: Removal


@dataclass(frozen=True)
class TakedownPlan:
    """What a takedown would remove, in numbers. `hosts`: pairs by their picture's host, for who asks to see."""

    pictures: int
    addresses: int
    pairs: int
    raw_copies: int
    near_duplicates: int  # pictures that look like these and stay
    shards: dict[str, list[str]]
    models: list[str]
    hosts: dict[str, int] = field(default_factory=dict)
    found: Found | None = field(default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        return not (self.pictures or self.addresses or self.pairs or self.raw_copies)


@dataclass(frozen=True)
class TakedownSummary:
    """What a takedown removed. `resumed`: it was begun by a run that did not live to finish it."""

    takedown_id: str
    resumed: bool
    pictures: int
    pairs: int
    rows: dict[str, int]  # by table of the lake, over all releases
    raw_copies: int
    shards: dict[str, list[str]]
    models: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Audit:
    """What is recorded of a takedown's run: nothing that says what went."""

    root: str
    kind: str


def journal_path(layout: Layout) -> Path:
    return layout.root / "lake" / "takedown.json"


def plan(config: TakedownConfig) -> TakedownPlan:
    """What `take_down` would remove. Raises InputError where nothing was asked for, or there is no such root."""
    from warehouse.lake import root_lock

    layout = _layout(config)
    with root_lock(layout.root):
        request, selection, derived = _find(layout, config)
    removal = selection.removal
    return TakedownPlan(
        pictures=len(removal.image_ids),
        addresses=len(removal.url_ids),
        pairs=len(removal.row_ids),
        raw_copies=len(selection.raw_copies),
        near_duplicates=selection.near_duplicates,
        shards=derived.shards,
        models=derived.models,
        hosts=dict(selection.hosts),
        found=Found(request, removal),
    )


def take_down(config: TakedownConfig, runner: Runner, found: Found | None = None) -> list[TakedownSummary]:
    """Finish a takedown that was interrupted, then do this one; what each removed.

    `found` is what `plan` has found and somebody has seen: no picture is searched for again.

    Raises InputError where nothing was asked for and nothing is to be finished, for a picture that cannot be used, and
    where more would go by now than was `found`; the root is then as it was.
    """
    from warehouse.lake import root_lock
    from warehouse.store import keeps_old_versions, shown

    layout = _layout(config)
    with told_if_full(layout.root), root_lock(layout.root):
        done = finish(layout, runner)
        expire_embeddings(layout.root)
        if not config.kinds:
            if not done:
                raise ConfigError("nothing to take down: give --url, --host, --sha256, --like or --person-like")
            return done
        with recorded(layout, "takedown", _Audit("", ",".join(config.kinds))) as run:
            job = _job(layout, config, run.run_id, found)
            erase_files.write_durably(journal_path(layout), job.as_dict())
            summary = _work(layout, job, runner)
            run.result = {"takedown_id": summary.takedown_id, "rows": summary.rows}
    if keeps_old_versions(layout.root):
        logger.warning(
            "the bucket of %s keeps old versions of objects, and with them what was taken down: delete them there",
            shown(layout.root),
        )
    return [*done, summary]


def finish(layout: Layout, runner: Runner) -> list[TakedownSummary]:
    """Finish what a killed takedown has begun (at most one). The caller holds the root."""
    path = journal_path(layout)
    if not path.is_file():
        return []
    logger.info("a takedown was interrupted: finishing it")
    job = Job.from_dict(json.loads(path.read_text("utf-8")))
    return [_work(layout, job, runner, resumed=True)]


def _layout(config: TakedownConfig) -> Layout:
    from warehouse.catalog import find_catalog

    layout = Layout(Path(config.root))
    find_catalog(layout.root)
    if not (layout.root / "lake").is_dir() and not layout.raw.is_dir():
        raise ConfigError(f"no corpus under {config.root}: give its --root")
    return layout


def _find(
    layout: Layout, config: TakedownConfig, found: Found | None = None
) -> tuple[Request, Selection, erase_derived.Derived]:
    from warehouse.lake import has_lake
    from warehouse.selection import select

    if not config.kinds:
        raise ConfigError("nothing to take down: give --url, --host, --sha256, --like or --person-like")
    request = found.request if found else _request(layout, config)
    lake_exists = has_lake(layout.root)
    with contextlib.closing(_connection(layout, lake_exists)) as con:
        selection = select(con, layout.root, request, lake_exists)
    if found and not selection.removal.is_within(found.removal):
        raise ConfigError("pictures or pairs have come since these were shown, nothing was removed: look again")
    return request, selection, erase_derived.find_derived(layout, selection.removal)


def _connection(layout: Layout, has_lake: bool) -> duckdb.DuckDBPyConnection:
    import duckdb

    import warehouse

    return warehouse.connect(layout.root) if has_lake else duckdb.connect()


def _request(layout: Layout, config: TakedownConfig) -> Request:
    from flows.steps.likeness import look_of, pictures_of_person

    likes = [look_of(Path(picture), config.detector, config.pack) for picture in config.like]
    people = [
        image_id
        for picture in config.person_like
        for image_id in pictures_of_person(layout, Path(picture), config.similarity, config.detector, config.pack)
    ]
    return Request(
        urls=tuple(sorted({text for url in config.urls for text in (url, url.partition("#")[0])})),
        hosts=tuple(host.lower().rstrip("/") for host in config.hosts),
        sha256s=(*config.sha256s, *(sha256 for sha256, _ in likes)),
        looks=tuple(look for _, look in likes),
        near=Nearness(whole_bits=config.near_bits),
        image_ids=tuple(people),
    )


def _job(layout: Layout, config: TakedownConfig, run_id: str, found: Found | None) -> Job:
    from warehouse import tombstones
    from warehouse.erase import checked_key

    request, selection, derived = _find(layout, config, found)
    key = checked_key(layout.root)
    stones = [
        *tombstones.address_stones(key, selection.addresses),
        *tombstones.host_stones(key, request.hosts),
        *tombstones.picture_stones(key, selection.picture_ids),
        *tombstones.sample_stones(key, selection.removal.row_ids),
        *tombstones.look_stones(key, selection.phashes, config.near_bits),
        *tombstones.look_stones(key, selection.face_phashes, request.near.face_bits, "face"),
    ]
    return Job(
        takedown_id=uuid.uuid4().hex,
        at=dt.datetime.now(dt.UTC).isoformat(),
        kind=",".join(config.kinds),
        run_id=run_id,
        removal=selection.removal,
        copies=list(selection.raw_copies),
        stones=stones,
        derived=derived,
    )


def _work(layout: Layout, job: Job, runner: Runner, resumed: bool = False) -> TakedownSummary:
    for name, phase in PHASES:
        runner.step(name, phase, layout, job)
    journal_path(layout).unlink()
    rows = _rows_of(layout, job.takedown_id)
    logger.info(
        "takedown %s: %d pictures, %d pairs", job.takedown_id, len(job.removal.image_ids), len(job.removal.row_ids)
    )
    return TakedownSummary(
        takedown_id=job.takedown_id,
        resumed=resumed,
        pictures=len(job.removal.image_ids),
        pairs=len(job.removal.row_ids),
        rows=rows,
        raw_copies=len(job.copies),
        shards=job.derived.shards,
        models=job.derived.models,
    )


def _rows_of(layout: Layout, takedown_id: str) -> dict[str, int]:
    import warehouse

    with warehouse.connect(layout.root) as con:
        row = con.execute("SELECT rows FROM takedowns WHERE takedown_id = ?", [takedown_id]).fetchone()
    return dict(json.loads(row[0])) if row else {}
