"""What goes in a takedown: ids of rows, addresses, pictures and hosts, and how they are found in any text.

Ids alone (hashes of addresses and bytes): that is what a takedown writes down to find its way after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warehouse.schema import GONE_LINK, content_id, host_names, without_addresses

_ID = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{32})\b")
HOST = r"^https?://[^/?#]+"  # scheme and authority of an address
GONE = "[taken down]"
# Columns of free text that may name an address: cleared of it where the row stays. Captions get another link for it,
# which cleaning takes out of them as it did the first: what was chosen from them stays the same.
CAPTION_TEXTS = frozenset({"text", "caption"})
TEXTS = CAPTION_TEXTS | {"evidence", "error", "final_url", "robots_txt", "tdmrep_json", "warning", "unit", "source"}
TEXTS |= {"config", "inputs", "result"}


@dataclass(frozen=True)
class Removal:
    """Ids of what goes. `address_ids` and `host_ids` are content ids of addresses and of hosts as they were named."""

    row_ids: frozenset[str] = frozenset()
    url_ids: frozenset[str] = frozenset()
    image_ids: frozenset[str] = frozenset()
    address_ids: frozenset[str] = frozenset()  # those of pictures (url_ids) included
    host_ids: frozenset[str] = frozenset()
    folder_ids: frozenset[str] = frozenset()  # folders below raw/ whose source is on a host that goes

    def as_dict(self) -> dict[str, list[str]]:
        return {name: sorted(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Iterable[str]]) -> Removal:
        return cls(**{name: frozenset(values[name]) for name in cls.__dataclass_fields__})

    def is_within(self, other: Removal) -> bool:
        """Whether `other` names all that this one does."""
        return all(getattr(self, name) <= getattr(other, name) for name in self.__dataclass_fields__)

    def has_host(self, authority: str) -> bool:
        """Whether the host `scheme://name[:port]` goes."""
        return bool(self.host_ids) and any(content_id(name) in self.host_ids for name in host_names(authority))

    def has_address(self, url: str) -> bool:
        """Whether an address goes, by itself or with its host."""
        if content_id(url) in self.address_ids:
            return True
        found = re.match(HOST, url) if self.host_ids else None
        return found is not None and self.has_host(found[0].lower())

    def scrubbed(self, text: str, column: str = "") -> str:
        """`text` (of this column) without the addresses that go; the same object where there is none."""
        return without_addresses(text, self.has_address, GONE_LINK if column in CAPTION_TEXTS else GONE)

    def scrubbed_ids(self, text: str) -> str:
        """`text` without the ids that go."""
        gone = self.row_ids | self.url_ids | self.image_ids
        return _ID.sub(lambda m: GONE if m[0] in gone else m[0], text) if _ID.search(text) else text
