"""The phases of a takedown, in order; each may be repeated, so that what a killed one had begun can be finished."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from flows.steps import erase_derived, erase_files
from flows.steps.layout import Layout
from flows.steps.progress import progress_dir
from warehouse.removal import Removal


@dataclass(frozen=True)
class Job:
    """A takedown at work; all of it is in the journal."""

    takedown_id: str
    at: str
    kind: str
    run_id: str
    removal: Removal
    copies: list[tuple[str, int, int]]
    stones: list[tuple[str, str, int | None]]
    derived: erase_derived.Derived

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "removal": self.removal.as_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        return cls(
            **{
                **values,
                "removal": Removal.from_dict(values["removal"]),
                "copies": [(str(file), int(offset), int(size)) for file, offset, size in values["copies"]],
                "stones": [(kind, value, bits) for kind, value, bits in values["stones"]],
                "derived": erase_derived.from_dict(values["derived"]),
            }
        )


def _erase_rows(layout: Layout, job: Job) -> None:
    from warehouse.erase import erase_rows

    audit = {
        "takedown_id": job.takedown_id,
        "at": dt.datetime.fromisoformat(job.at),
        "kind": job.kind,
        "raw_pictures": len(job.copies),
        "shards": json.dumps(job.derived.shards),
        "gaps": json.dumps(job.derived.gaps),
        "models": json.dumps(job.derived.models),
        "run_id": job.run_id,
    }
    erase_rows(layout.root, job.removal, audit, job.stones)


def _erase_raw(layout: Layout, job: Job) -> None:
    erase_files.drop_unfinished(layout)
    erase_files.overwrite(layout.root, job.copies)


def _erase_tables(layout: Layout, job: Job) -> None:
    erase_files.scrub_tables(erase_files.tables_below(layout.root), job.removal)
    erase_files.drop_folders(layout, job.removal)


def _erase_shards(layout: Layout, job: Job) -> None:
    erase_derived.erase_samples(layout, job.removal, job.derived.shards)


def _erase_from_models(layout: Layout, job: Job) -> None:
    erase_derived.erase_from_models(layout, job.removal, job.derived.models)


def _erase_texts(layout: Layout, job: Job) -> None:
    erase_files.scrub_texts(layout, job.removal)


def _purge(layout: Layout, job: Job) -> None:
    from warehouse.erase import purge

    purge(layout.root)


def _renew_reports(layout: Layout, job: Job) -> None:
    """What a run told about itself goes for good: its last words may name an address."""
    from flows.steps.renew_reports import renew_reports

    shutil.rmtree(progress_dir(layout.root), ignore_errors=True)
    renew_reports(layout)


PHASES: tuple[tuple[str, Callable[[Layout, Job], None]], ...] = (
    ("rows", _erase_rows),
    ("raw", _erase_raw),
    ("tables", _erase_tables),
    ("shards", _erase_shards),
    ("models", _erase_from_models),
    ("texts", _erase_texts),
    ("purge", _purge),
    ("report", _renew_reports),
)
