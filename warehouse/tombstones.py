"""Tombstones of takedowns: the key, the hashes, and the two files that carry them to crawls and to readers of shards.

The lake's table `tombstones` is the truth; `lake/tombstones.json` repeats it for crawls (crawler.tombstones), and
`tombstones.json` in a folder of shards names samples for who reads an older copy of them. The key is 32 random bytes in
`lake/tombstone.key`, mode 600. Readers of shards get another key, made from it: what they hold opens no address.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import duckdb

from warehouse.schema import host_names, keyed_id, masked_look

TOMBSTONES_FILE = "tombstones.json"
Tombstone = tuple[str, str, int | None]  # kind, hash, bits


def tombstones_path(root: Path) -> Path:
    return root / "lake" / TOMBSTONES_FILE


def key_path(root: Path) -> Path:
    return root / "lake" / "tombstone.key"


def ensure_key(root: Path) -> bytes:
    """The root's key, made at the first takedown."""
    path = key_path(root)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    return bytes.fromhex(path.read_text("ascii").strip())


def address_stones(key: bytes, urls: Iterable[str]) -> list[Tombstone]:
    return [("address", keyed_id(key, "address", url), None) for url in sorted(set(urls))]


def host_stones(key: bytes, hosts: Iterable[str]) -> list[Tombstone]:
    return [("host", keyed_id(key, "host", host), None) for host in sorted(set(hosts))]


def picture_stones(key: bytes, sha256s: Iterable[str]) -> list[Tombstone]:
    return [("picture", keyed_id(key, "picture", value), None) for value in sorted(set(sha256s))]


def sample_stones(key: bytes, row_ids: Iterable[str]) -> list[Tombstone]:
    salt = readers_key(key)
    return [("sample", keyed_id(salt, "sample", row_id), None) for row_id in sorted(set(row_ids))]


def look_stones(key: bytes, phashes: Iterable[str], bits: int, kind: str = "look") -> list[Tombstone]:
    """Of hashes of pictures, or (`kind` "face") of their faces. The pad's nonce comes from the hash itself, so that the
    same one makes the same tombstone."""
    stones: list[Tombstone] = []
    for phash in sorted(set(phashes)):
        nonce = keyed_id(key, "nonce", phash)[:16]
        stones.append((kind, nonce + masked_look(key, nonce, phash), bits))
    return stones


def readers_key(key: bytes) -> bytes:
    """The key that readers of shards are given."""
    return bytes.fromhex(keyed_id(key, "readers", ""))


def names_host(wanted: Iterable[str], authority: str) -> bool:
    """Whether `scheme://name[:port]` is one of the wanted hosts, however they are written."""
    return not set(wanted).isdisjoint(host_names(authority))


def export(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Write the lake's tombstones to lake/tombstones.json, whole or not at all; no file where there are none."""
    rows = con.execute("SELECT kind, hash, bits FROM tombstones WHERE kind <> 'sample' ORDER BY ALL").fetchall()
    path = tombstones_path(root)
    if rows or path.is_file():
        _write(path, {"version": 1, "tombstones": [list(row) for row in rows]})


def export_for_readers(con: duckdb.DuckDBPyConnection, root: Path, folder: Path) -> None:
    """Lay what must not be read any more beside the shards of `folder`: for copies made before a takedown."""
    rows = con.execute("SELECT hash FROM tombstones WHERE kind = 'sample' ORDER BY hash").fetchall()
    if rows:
        key = readers_key(ensure_key(root)).hex()
        _write(folder / TOMBSTONES_FILE, {"version": 1, "key": key, "samples": [row[0] for row in rows]})


def _write(path: Path, value: object) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
