"""Erasing what was made from pictures: shards, tokens, figures, logs of training."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawler.files import replacing
from flows.steps.layout import Layout
from warehouse.removal import Removal

# Release (as text) -> samples per shard (as text) -> split -> shard's index (as text) -> samples that go.
Gaps = dict[str, dict[str, dict[str, dict[str, int]]]]


@dataclass(frozen=True)
class Derived:
    """What was made from what goes. `shards`: tars by release; `models`: trained or measured on such a release."""

    shards: dict[str, list[str]]
    gaps: Gaps
    models: list[str]


def find_derived(layout: Layout, removal: Removal) -> Derived:
    """Shards that hold samples which go, how many of them by shard, and the models that saw these releases."""
    shards: dict[str, list[str]] = {}
    gaps: Gaps = {}
    pruned: set[int] = set()
    for folder in _shard_folders(layout):
        counted = {tar: count for tar in sorted(folder.glob("*.tar")) if (count := _count(tar, removal))}
        if not counted:
            if _lists(folder, removal):
                pruned.add(_release(folder))
            continue
        release = str(_release(folder))
        shards[release] = [tar.name for tar in counted]
        size = str(_config(folder).get("samples_per_shard", ""))
        for tar, count in counted.items():
            split, _, index = tar.stem.rpartition("-")
            gaps.setdefault(release, {}).setdefault(size, {}).setdefault(split, {})[str(int(index))] = count
    return Derived(shards, gaps, _models(layout, pruned | {int(release) for release in shards}))


def _lists(folder: Path, removal: Removal) -> bool:
    """Whether the manifest names samples that go: it stays where the tars were pruned."""
    import pyarrow.parquet as pq

    from warehouse.manifest import TABLE_FILE

    table = folder / TABLE_FILE
    return table.is_file() and not removal.row_ids.isdisjoint(
        pq.read_table(table, columns=["row_id"])["row_id"].to_pylist()
    )


def _shard_folders(layout: Layout) -> Iterator[Path]:
    yield from sorted((layout.root / "shards").glob("r[0-9]*"))


def _release(folder: Path) -> int:
    return int(folder.name[1:])


def _config(folder: Path) -> dict[str, Any]:
    """The index's config; empty where the shards were never finished."""
    from warehouse.shards import INDEX_FILE, read_index

    return dict(read_index(folder)["config"]) if (folder / INDEX_FILE).is_file() else {}


def _keys(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in tar:
        yield member.name.partition(".")[0], member


def _count(path: Path, removal: Removal) -> int:
    """Samples of a tar that go."""
    with tarfile.open(path) as tar:
        return len({key for key, _ in _keys(tar) if key in removal.row_ids})


def _models(layout: Layout, releases: set[int]) -> list[str]:
    """Names of models that were trained or measured on these releases, by their own files and by the lake, and of those
    that went on from them."""
    import warehouse
    from warehouse.lake import has_lake

    found = set()
    for done in layout.models.glob("*/training.json"):
        if json.loads(done.read_text("utf-8")).get("release") in releases:
            found.add(done.parent.name)
    for note in layout.models.glob("*/checkpoints/release"):  # not finished: it has logs and pictures all the same
        if int(note.read_text("utf-8")) in releases:
            found.add(note.parent.parent.name)
    if has_lake(layout.root):
        with warehouse.connect(layout.root) as con:
            rows = con.execute(
                "SELECT model, release FROM models UNION SELECT model, release FROM evaluations"
            ).fetchall()
            parents = con.execute("SELECT model, parent FROM models WHERE parent IS NOT NULL").fetchall()
        found |= {str(model) for model, release in rows if release in releases}
        while heirs := {str(model) for model, parent in parents if parent in found} - found:
            found |= heirs  # who goes on from a model has what that one saw
    return sorted(found)


def erase_samples(layout: Layout, removal: Removal, shards: Mapping[str, list[str]]) -> None:
    """Write the shards (files by release) that hold such samples anew without them; others are not touched.

    What stays is as if the samples had never been there; index, notes, manifest and the lake's table follow.
    """
    from warehouse.manifest import refresh

    for folder in _shard_folders(layout):
        for leftover in folder.glob(".*.part"):
            leftover.unlink()
        if str(_release(folder)) in shards:
            _erase_samples(layout, folder, removal)
            _register(layout, folder, shards[str(_release(folder))])
            refresh(folder, _provenance(layout, folder))
        elif not any(folder.glob("*.tar")):  # pruned: the manifest's table has been cleared with all others
            _tell_readers(layout, folder)
            refresh(folder, _provenance(layout, folder))


def _erase_samples(layout: Layout, folder: Path, removal: Removal) -> None:
    from warehouse.shards import INDEX_FILE, ShardRecord, file_sha256, write_index

    for tar in sorted(folder.glob("*.tar")):
        if _count(tar, removal):
            _rewrite(tar, removal)
    _tell_readers(layout, folder)
    if not (folder / INDEX_FILE).is_file():
        return
    index = json.loads((folder / INDEX_FILE).read_text("utf-8"))
    records: list[ShardRecord] = []
    for split, listed in index["splits"].items():
        for shard in listed["shards"]:
            path = folder / shard["file"]
            record = ShardRecord(split, **shard)
            if not path.is_file() or file_sha256(path) != record.sha256:
                record = _recorded(path, split)
            records.append(record)
    if any(record.samples for record in records):
        write_index(folder, index["release"], records, index["crop_px"], index["config"])
    else:
        for path in (*folder.glob("*.tar"), *folder.glob(".*.note"), folder / INDEX_FILE):
            path.unlink(missing_ok=True)
    _write_notes(layout, folder, index["config"], records)


def _register(layout: Layout, folder: Path, files: list[str]) -> None:
    """Bring the lake's table `shards` to what now lies there."""
    from warehouse.erase import replace_shards

    rows: list[tuple[str, Mapping[str, Any] | None]] = []
    for file in files:
        record = _recorded(folder / file, "")
        values = {"sha256": record.sha256, "samples": record.samples, "bytes": record.bytes}
        rows.append(((folder / file).relative_to(layout.root).as_posix(), values if record.samples else None))
    replace_shards(layout.root, rows)


def _provenance(layout: Layout, folder: Path) -> dict[str, Any] | None:
    """How the release came to be, as the lake tells it now; None where this root's lake does not know it."""
    import warehouse
    from warehouse.errors import InputError
    from warehouse.manifest import release_provenance

    try:
        with warehouse.connect(layout.root, at=_release(folder)) as con:
            return release_provenance(con, _release(folder))
    except InputError:
        return None


def _tell_readers(layout: Layout, folder: Path) -> None:
    """Tombstones for who reads an older copy of these shards."""
    import warehouse
    from warehouse.tombstones import export_for_readers

    with warehouse.connect(layout.root) as con:
        export_for_readers(con, layout.root, folder)


def _rewrite(path: Path, removal: Removal) -> None:
    """The same tar without the samples that go: members as they were written, in their order."""
    with (
        replacing(path) as temporary,
        tarfile.open(path) as old,
        temporary.open("wb") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for key, member in _keys(old):
            if key not in removal.row_ids:
                new.addfile(member, old.extractfile(member))


def _recorded(path: Path, split: str) -> Any:
    from warehouse.shards import ShardRecord, file_sha256

    if not path.is_file():
        return ShardRecord(split, path.name, "", 0, 0)
    with tarfile.open(path) as tar:
        samples = len({key for key, _ in _keys(tar)})
    return ShardRecord(split, path.name, file_sha256(path), samples, path.stat().st_size)


def _write_notes(layout: Layout, folder: Path, config: Mapping[str, Any], records: list[Any]) -> None:
    """Tell the next run of `gptface shard` that the shards are finished as they are."""
    import warehouse
    from warehouse.errors import InputError
    from warehouse.shards import plan_shards, write_note

    try:
        with warehouse.connect(layout.root, at=_release(folder)) as con:
            plans = {plan.file: plan for plan in plan_shards(con, int(config["samples_per_shard"]), config)}
    except (InputError, KeyError):  # nothing is left of the release, or it was cut by other means
        return
    for record in records:
        if record.samples and record.file in plans:
            write_note(plans[record.file], record, folder)


def erase_from_models(layout: Layout, removal: Removal, models: list[str]) -> None:
    """Delete token files that hold such rows, and pictures and logs of training of the named models.

    Weights stay: the takedown names the models, and what becomes of them is for people to decide.
    """
    for tokens in layout.models.glob("*/tokens/*.arrow"):
        if _holds_rows(tokens, removal):
            tokens.unlink()
    for work in layout.ablations.glob("*/work"):  # arms under way: they begin anew
        shutil.rmtree(work)
    for name in models:
        folder = layout.models / name
        for pattern in ("*.png", "*.jpg", "events.out.tfevents*", "*.wandb", "*.html", "rows.npz"):
            for path in folder.rglob(pattern):
                path.unlink()
        shutil.rmtree(folder / "evaluation" / "kept", ignore_errors=True)  # values by face, edited faces


def _holds_rows(path: Path, removal: Removal) -> bool:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            rows = pa.ipc.open_file(source).read_all()["row_id"].to_pylist()
    except (pa.ArrowInvalid, KeyError):
        return True  # nobody can tell; it is made again
    return not removal.row_ids.isdisjoint(rows)


def from_dict(values: Mapping[str, Any]) -> Derived:
    return Derived(**{field.name: values[field.name] for field in dataclasses.fields(Derived)})
