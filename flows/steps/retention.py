"""What may go: shards of old releases, raw shards that no release needs, checkpoints, models, the lake's own snapshots.

Nothing goes that cannot be spared:
- shards stay of the newest releases, and of those that champion, previous champion and challenger were trained on; of
  the others the tars go while index and manifest stay, from which `gptface shard` or `rebuild` makes them again;
- a raw shard stays while a current row or a kept release needs one of its pictures;
- unfinished trainings, folders that the lake does not know and crawls that no release holds are left alone.
`plan` changes nothing. The lake forgets first and the files go after, so a prune that was killed is done again.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps import model
from flows.steps.config import RetentionConfig
from flows.steps.layout import Layout, is_published
from flows.steps.runner import Runner

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)
_GOING = ".going-"
SHARDS, RAW, CHECKPOINTS, MODELS, LAKE = "shards", "raw shards", "checkpoints", "models", "lake files"


@dataclass(frozen=True)
class Item:
    """A file or folder (path below the root) that goes."""

    kind: str
    path: str
    bytes: int
    why: str


@dataclass(frozen=True)
class PruneSummary:
    """What went, or with `dry_run` would go."""

    items: tuple[Item, ...]
    snapshots: int  # of DuckLake that end
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """kind -> how many and how many bytes."""
        counts = Counter(item.kind for item in self.items)
        return {kind: (n, sum(i.bytes for i in self.items if i.kind == kind)) for kind, n in counts.items()}

    def sentence(self) -> str:
        """For people: "Pruned 3 shards, 1 model: 12.4 MB"."""
        if not self.items:
            return "Nothing was there to prune."
        parts = ", ".join(f"{count:,} {kind}" for kind, (count, _) in self.by_kind().items())
        return f"{'Would prune' if self.dry_run else 'Pruned'} {parts}: {self.bytes / 1e6:,.1f} MB."

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(layout: Layout, config: RetentionConfig) -> PruneSummary:
    """What `prune` would remove. Raises InputError where there is no lake."""
    from warehouse.lake import root_lock

    with root_lock(layout.root):
        return _plan(layout, config)


def prune(layout: Layout, config: RetentionConfig, runner: Runner) -> PruneSummary:
    """Remove what `config` does not keep. Raises InputError where there is no lake or another process has the root."""
    from warehouse.expire import expire
    from warehouse.lake import root_lock

    with root_lock(layout.root):
        found = _plan(layout, config)
        runner.step("prune", _remove, layout, found)
        ended = expire(layout.root, config.lake_days, dry_run=False)
    summary = PruneSummary(found.items, ended.snapshots, dry_run=False)
    logger.info("%s", summary.sentence())
    return summary


def _plan(layout: Layout, config: RetentionConfig) -> PruneSummary:
    import warehouse
    from warehouse.expire import expire

    with contextlib.closing(warehouse.connect(layout.root)) as con:
        held = _held_models(con)
        releases = _kept_releases(con, config.keep_releases, held)
        items = [*_shards(layout, con, releases), *_models(layout, con, held, config.keep_models)]
        items += _raw(layout, con, releases) if config.raw else []
    gone = {item.path for item in items}
    items += [i for i in _checkpoints(layout) if Path(i.path).parents[1].as_posix() not in gone and config.checkpoints]
    ended = expire(layout.root, config.lake_days, dry_run=True)
    if ended.files:
        items.append(Item(LAKE, "lake/data", ended.bytes, f"{ended.files} files that no snapshot of the lake needs"))
    return PruneSummary(tuple(items), ended.snapshots, dry_run=True)


def _held_models(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of champion, previous champion and challenger."""
    from warehouse.champions import previous_champion

    held = {row[0] for row in con.execute("SELECT model FROM models WHERE alias IS NOT NULL").fetchall()}
    earlier = previous_champion(con)
    return held | ({earlier} if earlier else set())


def _kept_releases(con: duckdb.DuckDBPyConnection, keep: int, held: set[str]) -> set[int]:
    newest = con.execute("SELECT release FROM releases ORDER BY release DESC LIMIT ?", [keep]).fetchall()
    trained = con.execute("SELECT release FROM models WHERE model IN (SELECT unnest(?))", [sorted(held)]).fetchall()
    return {int(row[0]) for row in (*newest, *trained) if row[0] is not None}


def _shards(layout: Layout, con: duckdb.DuckDBPyConnection, kept: set[int]) -> Iterator[Item]:
    """Tars of releases that the lake knows and that have a manifest to be made again from."""
    from warehouse.manifest import is_current

    known = {int(row[0]) for row in con.execute("SELECT release FROM releases").fetchall()}
    for release in sorted(known - kept):
        folder = layout.shards(release)
        tars = sorted(folder.glob("*.tar"))
        if tars and is_current(folder):
            for tar in tars:
                yield _item(layout, SHARDS, tar, f"release {release} is not among those kept")


def _raw(layout: Layout, con: duckdb.DuckDBPyConnection, kept: set[int]) -> Iterator[Item]:
    """Raw shards of published crawls of the lake in which nothing is needed."""
    shown = " OR ".join(f"(release_from <= {n} AND (release_to IS NULL OR release_to > {n}))" for n in sorted(kept))
    needed = {
        row[0]
        for row in con.execute(
            "SELECT raw_shard FROM images WHERE raw_shard IS NOT NULL UNION "
            f"SELECT raw_shard FROM history.corpus WHERE {shown or 'false'}"
        ).fetchall()
    }
    crawls = {row[0] for row in con.execute("SELECT DISTINCT crawl FROM sources").fetchall()}
    for crawl in layout.crawls():
        if crawl.relative_to(layout.root).as_posix() in crawls and is_published(crawl):
            for tar in sorted((crawl / "images").glob("*.tar")):
                if tar.relative_to(layout.root).as_posix() not in needed:
                    yield _item(layout, RAW, tar, "no current row and no release kept needs a picture of it")


def _models(layout: Layout, con: duckdb.DuckDBPyConnection, held: set[str], keep: int) -> Iterator[Item]:
    """Folders of finished models of the lake beyond the newest `keep`."""
    rows = con.execute("SELECT model FROM models ORDER BY created_at DESC, model").fetchall()
    others = [name for (name,) in rows if name not in held and model.is_whole(layout, name)]
    for name in others[keep:]:
        yield _item(layout, MODELS, layout.models / name, f"not among the newest {keep} beside the champions")


def _checkpoints(layout: Layout) -> Iterator[Item]:
    """What only an unfinished training needs, of the finished ones."""
    for folder in model.trained_models(layout):
        for path in sorted((*folder.glob("checkpoints/*.safetensors"), *folder.glob("tokens/*.arrow"))):
            yield _item(layout, CHECKPOINTS, path, "its training has ended")


def _item(layout: Layout, kind: str, path: Path, why: str) -> Item:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return Item(kind, path.relative_to(layout.root).as_posix(), sum(p.stat().st_size for p in files), why)


def _remove(layout: Layout, found: PruneSummary) -> None:
    from warehouse.erase import replace_shards

    replace_shards(layout.root, [(item.path, None) for item in found.items if item.kind == SHARDS])
    for item in found.items:
        path = layout.root / item.path
        if item.kind == MODELS:
            path.rename(path.with_name(f"{_GOING}{path.name}"))  # at once: half a folder is no model
        elif item.kind != LAKE:
            path.unlink(missing_ok=True)
            if item.kind == SHARDS:
                path.with_name(f".{path.name}.note").unlink(missing_ok=True)
    for leftover in layout.models.glob(f"{_GOING}*"):
        shutil.rmtree(leftover)
