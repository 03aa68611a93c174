"""What was taken down and must not come back: keyed hashes, laid beside the catalogue by every takedown.

    lake/tombstones.json   kinds and hashes (warehouse.schema.TOMBSTONES), from the lake's table
    lake/tombstone.key     the key, readable by its owner alone

A crawl leaves out tombstoned addresses, pages and hosts before anything of them is written; a download drops a
tombstoned picture before its bytes are written, at whatever address it now stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crawler.errors import InputError
from warehouse.schema import GONE_LINK, host_names, keyed_id, masked_look, without_addresses

if TYPE_CHECKING:
    import pyarrow as pa

KEY_FILE = "tombstone.key"
_MAX_HOSTS = 500_000  # answers remembered


@dataclass(frozen=True)
class Tombstones:
    """Keyed hashes by kind, and perceptual hashes in clear with the distance in bits that counts (in memory only)."""

    key: bytes = b""
    addresses: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()
    looks: tuple[tuple[int, int], ...] = ()
    faces: tuple[tuple[int, int], ...] = ()
    _known_hosts: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.addresses or self.hosts or self.pictures or self.looks or self.faces)

    def bars_address(self, url: str) -> bool:
        """Whether this address, the page it lies on (without fragment) or its host was taken down."""
        if self.hosts and self.bars_host(_authority(url)):
            return True
        return bool(self.addresses) and any(
            keyed_id(self.key, "address", text) in self.addresses for text in {url, url.partition("#")[0]}
        )

    def bars_host(self, authority: str) -> bool:
        """Whether `scheme://name[:port]` was taken down, under any of its names."""
        known = self._known_hosts.get(authority)
        if known is None:
            known = any(keyed_id(self.key, "host", name) in self.hosts for name in host_names(authority))
            if len(self._known_hosts) < _MAX_HOSTS:
                self._known_hosts[authority] = known
        return known

    def bars_picture(self, sha256: str) -> bool:
        return bool(self.pictures) and keyed_id(self.key, "picture", sha256) in self.pictures

    def bars_look(self, phash: str | None) -> bool:
        """Whether a perceptual hash (16 hex digits) lies near one that was taken down."""
        return _is_near(phash, self.looks)

    def bars_face(self, phash: str | None) -> bool:
        """The same for the hash of a picture's largest face."""
        return _is_near(phash, self.faces)

    def allowed(self, found: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch (crawler.rows.FOUND) whose page and picture were not taken down, and in their captions no
        address that was."""
        import pyarrow as pa

        if not (self.addresses or self.hosts):
            return found
        columns = (found.column("page_url").to_pylist(), found.column("image_url").to_pylist())
        barred = {url: self.bars_address(url) for urls in columns for url in set(urls)}
        return self._told(
            found.filter(pa.array([not (barred[page] or barred[image]) for page, image in zip(*columns, strict=True)]))
        )

    def _told(self, found: pa.RecordBatch) -> pa.RecordBatch:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = found.column("captions")
        texts = pc.struct_field(pc.list_flatten(column), "text")
        if not pc.any(pc.match_substring(texts, "://")).as_py():
            return found
        rows = [
            [{**each, "text": without_addresses(each["text"], self.bars_address, GONE_LINK)} for each in captions]
            for captions in column.to_pylist()
        ]
        return found.set_column(found.schema.get_field_index("captions"), "captions", pa.array(rows, column.type))


def load_tombstones(path: Path | str) -> Tombstones:
    """Read a tombstones file; "" or a missing file gives none. Raises InputError where it or its key cannot be read."""
    path = Path(path)
    if not path.name or not path.is_file():
        return Tombstones()
    try:
        rows = [tuple(row) for row in json.loads(path.read_text("utf-8"))["tombstones"]]
        key = bytes.fromhex((path.parent / KEY_FILE).read_text("ascii").strip()) if rows else b""
    except FileNotFoundError as error:
        raise InputError(f"{path.parent / KEY_FILE} is missing, no takedown can be honoured: restore it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} or its key cannot be read ({error}): run gptface takedown again") from error
    return of_rows(key, rows)


def of_rows(key: bytes, rows: Iterable[tuple[str, str, int | None]]) -> Tombstones:
    """Tombstones from `(kind, hash, bits)`; kinds that no crawl needs are passed over."""
    by_kind: dict[str, set[str]] = {}
    hashes: dict[str, list[tuple[int, int]]] = {"look": [], "face": []}
    for kind, value, bits in rows:
        if kind in hashes:
            hashes[kind].append((int(masked_look(key, value[:16], value[16:]), 16), int(bits or 0)))
        else:
            by_kind.setdefault(kind, set()).add(value)
    addresses, hosts, pictures = (frozenset(by_kind.get(kind, ())) for kind in ("address", "host", "picture"))
    return Tombstones(key, addresses, hosts, pictures, tuple(hashes["look"]), tuple(hashes["face"]))


def _is_near(phash: str | None, stones: tuple[tuple[int, int], ...]) -> bool:
    return phash is not None and any((int(phash, 16) ^ value).bit_count() <= bits for value, bits in stones)


def _authority(url: str) -> str:
    from crawler.address import authority_of

    return authority_of(url)
