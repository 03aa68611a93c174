"""What an HTML page holds, as data: pictures with their texts, and the one ranking of texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from warehouse.schema import CAPTION_RANKING, CaptionKind

MAX_TEXT_CHARS = 600
MAX_PICTURES = 2000  # per page; what comes later in the page is left out
MAX_CAPTIONS = 32  # per picture
_MAX_RAW_CHARS = 20_000  # of a text before white space is collapsed


class Origin(StrEnum):
    """How the address of a picture was found."""

    SRC = "src"
    SRCSET = "srcset"
    LAZY = "lazy"
    NOSCRIPT = "noscript"
    PICTURE = "picture"  # srcset of a <source> of <picture>
    CSS = "css"
    LINK = "link"
    JSON_LD = "json_ld"
    OG = "og"  # og:image and twitter:image


@dataclass(frozen=True)
class Caption:
    """A text that belongs to a picture."""

    kind: CaptionKind
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture on a page: absolute address, caption candidates in rank order, and how the address was found."""

    image_url: str
    captions: tuple[Caption, ...]
    how: Origin | None = None


@dataclass(frozen=True)
class Page:
    """What one HTML page holds. `directives`: "name: value" a line, lower case (warehouse.schema.PAIRS)."""

    pictures: tuple[Picture, ...]
    links: tuple[str, ...]
    directives: str


_RANK = {kind: rank for rank, kind in enumerate(CAPTION_RANKING)}


def collapse(text: str | None) -> str:
    """White space collapsed, cut to MAX_TEXT_CHARS; NUL and surrogates never get into a table."""
    if not text:
        return ""
    joined = " ".join(text[:_MAX_RAW_CHARS].replace("\0", " ").split())[:MAX_TEXT_CHARS]
    return joined if joined.isascii() else joined.encode("utf-8", "replace").decode("utf-8")


def ranked(captions: Iterable[Caption]) -> tuple[Caption, ...]:
    """By kind, then page order; a text that a better kind already has is left out; MAX_CAPTIONS at most."""
    unique: dict[str, Caption] = {}
    for caption in sorted(captions, key=lambda c: _RANK[c.kind]):
        unique.setdefault(caption.text, caption)
    return tuple(unique.values())[:MAX_CAPTIONS]


@dataclass
class Collection:
    """The pictures of one page, one per address, in the order in which they were added."""

    _found: dict[str, tuple[Origin, list[Caption]]] = field(default_factory=dict)

    def add(self, image_url: str, how: Origin, captions: Iterable[Caption]) -> None:
        """A second sighting of an address adds its texts; how it was found first stands."""
        known = self._found.get(image_url)
        if known is None:
            if len(self._found) >= MAX_PICTURES:
                return
            known = self._found[image_url] = (how, [])
        if len(known[1]) < 2 * MAX_CAPTIONS:
            known[1].extend(captions)

    def pictures(self, page_title: str = "") -> tuple[Picture, ...]:
        """All of them; `page_title` comes last among the texts of each, however many there are."""
        title = (Caption(CaptionKind.PAGE_TITLE, page_title),) if page_title else ()
        return tuple(Picture(url, (*ranked(captions), *title), how) for url, (how, captions) in self._found.items())
