"""Where things lie below a root, and the crawls (one source, one generation) that it holds."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from crawler.files import write_json
from flows.steps.space import DiskFullError, is_disk_full
from warehouse.schema import content_id
from warehouse.shards import shards_dir

_PUBLISHED = "published.json"


@dataclass(frozen=True)
class Layout:
    """The folders of one root; see docs/design.md."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def ablations(self) -> Path:
        return self.root / "ablations"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def labels(self, release: int) -> Path:
        """Attribute labels and opposed captions by row_id, where the source's truth is known."""
        return self.root / "labels" / f"r{release:05d}.parquet"

    def shards(self, release: int) -> Path:
        return shards_dir(self.root, release)

    def crawls(self) -> list[Path]:
        """All crawls, the oldest first per source."""
        return sorted(self.raw.glob("*/g[0-9][0-9][0-9]"))

    def open_crawl(self, source: str, *, refresh: bool) -> Path:
        """The folder of the source's unfinished crawl, else its finished one, else (or with `refresh`) a new one."""
        folder = self.raw / source_key(source)
        generations = sorted(folder.glob("g[0-9][0-9][0-9]"))
        if generations and not (refresh and is_published(generations[-1])):
            return generations[-1]
        crawl = folder / f"g{len(generations):03d}"
        crawl.mkdir(parents=True, exist_ok=True)
        return crawl


def discard_unplanned(crawl: Path) -> None:
    """Remove a crawl that could not read its source, so that a mistyped one leaves no trace.

    What several files have given already is kept: the next run goes on from there.
    """
    if any((crawl / "extract").glob("*_done.json")) or (crawl / "plan" / "done.json").is_file():
        return
    shutil.rmtree(crawl, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty: an earlier crawl of this source
        crawl.parent.rmdir()


def source_key(source: str) -> str:
    """A folder name that a person recognises and that differs between sources."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-")[:48]
    return f"{words}-{content_id(source)[:8]}"


def mark_published(crawl: Path, release: int) -> None:
    """Remember that a release holds this crawl: a later `refresh` starts a new one."""
    write_json(crawl / _PUBLISHED, {"release": release})


def is_published(crawl: Path) -> bool:
    return (crawl / _PUBLISHED).is_file()


def prepare_root(root: Path) -> Layout:
    """Make the root and try to write there, so that a build fails before its first download, not after.

    Raises OSError where the root can't be made or written, DiskFullError where its disk is full.
    """
    layout = Layout(root)
    probe = root / f".probe-{os.getpid()}"
    try:
        for folder in (root, layout.raw, layout.reports):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0" * 65536)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(str(root)) from error
        why = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write the root ({why}), choose another --root", str(root)) from error
    return layout
