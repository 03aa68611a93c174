"""Deterministic WebDataset shards of a release: which rows lie in which tar, how a tar is written, and the index.

The plan is by content: rows of a split in order of `row_id`, cut every `samples_per_shard`, none empty. A tar is the
same bytes on every machine: members in order, no time, no owner. Pictures come from the caller, which may write the
shards of a plan in as many processes as it likes; `write_index` then closes the set. What is there and verifies is not
written again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from warehouse.errors import InputError
from warehouse.files import replacing
from warehouse.schema import Split

INDEX_FILE = "index.json"
INDEX_VERSION = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardPlan:
    """One tar to be written: `row_ids` in order. `fingerprint` names rows, release and config, for resuming."""

    release: int
    split: str
    index: int
    row_ids: tuple[str, ...]
    fingerprint: str

    @property
    def file(self) -> str:
        return f"{self.split}-{self.index:05d}.tar"


@dataclass(frozen=True)
class Sample:
    """One sample: `<row_id>.jpg`, `<row_id>.json`, `<row_id>.txt`."""

    row_id: str
    jpeg: bytes
    metadata: Mapping[str, Any]
    caption: str


@dataclass(frozen=True)
class ShardRecord:
    """A written tar as the index lists it; `file` is relative to the index."""

    split: str
    file: str
    sha256: str
    samples: int
    bytes: int


def shards_dir(root: Path | str, release: int) -> Path:
    """Folder of a release's shards."""
    return Path(root) / "shards" / f"r{release:05d}"


def plan_shards(
    con: duckdb.DuckDBPyConnection, samples_per_shard: int, config: Mapping[str, Any] | None = None
) -> list[ShardPlan]:
    """The shards of the release that `con` shows (`warehouse.connect(root, at=N)`), train first, then val and test.

    `config` is what else decides the bytes (crop size, quality): it goes into the fingerprints and should be the one
    given to `write_index`. Raises InputError for an empty corpus or a non-positive shard size.
    """
    if samples_per_shard < 1:
        raise InputError(f"samples_per_shard={samples_per_shard}: choose 1 or more")
    release = shown_release(con)
    plans = []
    gaps = shard_gaps(con, release, samples_per_shard)
    for split in Split:
        rows = con.execute("SELECT row_id FROM corpus WHERE split = ? ORDER BY row_id", [split.value]).fetchall()
        index = start = -1
        end = 0
        while end < len(rows):
            index, start = index + 1, end
            end = start + samples_per_shard - gaps.get((split.value, index), 0)
            row_ids = tuple(row[0] for row in rows[start:end])
            if not row_ids:
                continue
            text = json.dumps([release, split.value, index, row_ids, config or {}], sort_keys=True)
            fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            plans.append(ShardPlan(release, split.value, index, row_ids, fingerprint))
    if not plans:
        raise InputError(f"release {release} keeps no picture: see `gptface funnel` for the reasons")
    return plans


def shard_gaps(con: duckdb.DuckDBPyConnection, release: int, samples_per_shard: int) -> dict[tuple[str, int], int]:
    """How many samples takedowns have left out of each shard (split, index) of a release that was cut to this size.

    Those that stay keep their shard: the others' bytes remain as they are.
    """
    gaps: dict[tuple[str, int], int] = {}
    for (text,) in con.execute("SELECT gaps FROM takedowns").fetchall():
        for split, shards in json.loads(text).get(str(release), {}).get(str(samples_per_shard), {}).items():
            for index, count in shards.items():
                gaps[split, int(index)] = gaps.get((split, int(index)), 0) + int(count)
    return gaps


def shown_release(con: duckdb.DuckDBPyConnection) -> int:
    """Number of the release whose rows the connection's views show. Raises InputError where there is none."""
    row = con.execute("SELECT coalesce(getvariable('release'), (SELECT max(release) FROM releases))").fetchone()
    if row is None or row[0] is None:
        raise InputError("this lake has no release yet: run `gptface build ...` first")
    return int(row[0])


def plan_rows(con: duckdb.DuckDBPyConnection, plan: ShardPlan) -> list[dict[str, Any]]:
    """The corpus rows of a plan in its order, each a dict by column name (see schema.CORPUS)."""
    cursor = con.execute(
        "SELECT * FROM corpus WHERE split = ? AND row_id BETWEEN ? AND ? ORDER BY row_id",
        [plan.split, plan.row_ids[0], plan.row_ids[-1]],
    )
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if tuple(row["row_id"] for row in rows) != plan.row_ids:
        raise InputError(f"shard {plan.file} was planned from another release than the lake shows now: plan again")
    return rows


def finished_shard(plan: ShardPlan, out_dir: Path) -> ShardRecord | None:
    """The record of a shard that an earlier run wrote for the same plan and whose bytes verify, else None."""
    note, path = _note_path(out_dir, plan.file), out_dir / plan.file
    if not note.is_file() or not path.is_file():
        return None
    try:
        found = json.loads(note.read_text("utf-8"))
        record = ShardRecord(**found["record"])
        same = found["fingerprint"] == plan.fingerprint
    except (ValueError, KeyError, TypeError):
        return None
    same = same and path.stat().st_size == record.bytes and file_sha256(path) == record.sha256
    return record if same else None


def write_shard(plan: ShardPlan, samples: Iterable[Sample], out_dir: Path) -> ShardRecord:
    """Write one tar (temporary name, then renamed) and a hidden note beside it for resuming.

    `samples` come in the plan's order; one that is not in the plan, or out of order, is a ValueError, a missing one
    allowed (a crop that could not be made): the record's count says so. The caller may run this in any process.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / plan.file
    planned = iter(plan.row_ids)
    count = 0
    with replacing(path) as part:
        with part.open("wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                if sample.row_id not in planned:  # consumes the iterator up to it: order is checked as well
                    raise ValueError(f"sample {sample.row_id} is not next in {plan.file}")
                _add_sample(tar, sample)
                count += 1
        record = ShardRecord(plan.split, plan.file, file_sha256(part), count, part.stat().st_size)
    write_note(plan, record, out_dir)
    return record


def write_note(plan: ShardPlan, record: ShardRecord, out_dir: Path) -> None:
    """Note beside a tar that it is what `plan` asks for."""
    _write_json(_note_path(out_dir, plan.file), {"fingerprint": plan.fingerprint, "record": asdict(record)})


def write_index(
    out_dir: Path, release: int, records: Sequence[ShardRecord], crop_px: int, config: Mapping[str, Any] | None = None
) -> Path:
    """Write `index.json`, last, and remove tars that an earlier plan left behind. Shards without a sample are left out.

    Raises InputError where nothing would be left.
    """
    held = sorted((r for r in records if r.samples), key=lambda r: r.file)
    if not held:
        raise InputError(f"no sample could be written to {out_dir}: see the log for the reasons")
    splits = {}
    for split in Split:
        mine = [r for r in held if r.split == split.value]
        shards = [{"file": r.file, "sha256": r.sha256, "samples": r.samples, "bytes": r.bytes} for r in mine]
        splits[split.value] = {"samples": sum(r.samples for r in mine), "shards": shards}
    index = {
        "version": INDEX_VERSION,
        "release": release,
        "crop_px": crop_px,
        "splits": splits,
        "config": dict(config or {}),
    }
    keep = {r.file for r in held}
    for path in out_dir.glob("*.tar"):
        if path.name not in keep:
            path.unlink()
    path = out_dir / INDEX_FILE
    _write_json(path, index)
    for leftover in out_dir.glob(".*"):
        if leftover.name.endswith((".note", ".part")) and leftover.name[1:].removesuffix(".note") not in keep:
            leftover.unlink()
    return path


def read_index(out_dir: Path) -> dict[str, Any]:
    """The index of a shards folder. Raises InputError where there is none or it is of another version."""
    path = out_dir / INDEX_FILE
    if not path.is_file():
        raise InputError(f"no shards in {out_dir} ({INDEX_FILE} is missing): run `gptface shard` first")
    try:
        index = json.loads(path.read_text("utf-8"))
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): run `gptface shard` again") from error
    if version != INDEX_VERSION:
        raise InputError(f"{path} has version {version}, this version of gptface reads {INDEX_VERSION}")
    return dict(index)


def verify_index(out_dir: Path) -> list[str]:
    """What is wrong with a shards folder, one line each; empty where every tar is there with its size and sha256."""
    problems = []
    for split in read_index(out_dir)["splits"].values():
        for shard in split["shards"]:
            path = out_dir / shard["file"]
            if not path.is_file():
                problems.append(f"{shard['file']} is missing")
            elif path.stat().st_size != shard["bytes"]:
                problems.append(f"{shard['file']} has {path.stat().st_size} bytes, the index says {shard['bytes']}")
            elif file_sha256(path) != shard["sha256"]:
                problems.append(f"{shard['file']} has other bytes than the index says (sha256)")
    return problems


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _add_sample(tar: tarfile.TarFile, sample: Sample) -> None:
    metadata = json.dumps(dict(sample.metadata), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    members = (("jpg", sample.jpeg), ("json", metadata.encode()), ("txt", sample.caption.encode()))
    for suffix, data in members:
        member = tarfile.TarInfo(f"{sample.row_id}.{suffix}")  # mtime, uid, gid are 0 and names empty by default
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))


def _note_path(out_dir: Path, file: str) -> Path:
    return out_dir / f".{file}.note"


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")
