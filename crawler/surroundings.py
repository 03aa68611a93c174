"""The texts that belong to a picture: its element's own, those of its figure, card, table row and heading.

A *card* is the smallest box that holds this picture alone and says something; a table row that does so is a TABLE_ROW.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from crawler.page import Caption, collapse
from warehouse.schema import CaptionKind

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

MAX_CARD_CHARS = 400  # a longer text is an article, not a card
_CARD_LEVELS = 4  # how far up a card is looked for
_LEVELS = 8  # how far up a figure, a table row, a link or a noscript is looked for
_TOP = frozenset({"body", "html", "main", "-undef", "-document"})
_SEVERAL = ""  # in place of the one picture of a box


def text_of(node: LexborNode) -> str:
    """The text in a node, white space collapsed."""
    return collapse(node.text(deep=True, separator=" ", strip=True))


class Box:
    """An ancestor of pictures: its tag, its identity in the tree, and whether it holds one picture alone."""

    __slots__ = ("node", "only", "tag", "text")

    def __init__(self, node: LexborNode, tag: str) -> None:
        self.node, self.tag = node, tag
        self.only: str | None = None  # address of the one picture in it
        self.text: str | None = None  # computed once

    def hold(self, image_url: str) -> None:
        self.only = image_url if self.only in (None, image_url) else _SEVERAL

    def words(self) -> str:
        """Its text; of a figure its figcaption's."""
        if self.text is None:
            caption = self.node.css_first("figcaption") if self.tag == "figure" else self.node
            self.text = text_of(caption) if caption is not None else ""
        return self.text


class Boxes:
    """The ancestors of all pictures of a page, each made once."""

    def __init__(self) -> None:
        self._known: dict[int, Box] = {}

    def around(self, node: LexborNode) -> list[Box]:
        """The nearest ancestors, inner ones first, below the body."""
        chain: list[Box] = []
        parent = node.parent
        while parent is not None and len(chain) < _LEVELS:
            box = self._known.get(parent.mem_id)
            if box is None:
                tag = parent.tag or "-undef"
                if tag in _TOP:
                    break
                box = self._known[parent.mem_id] = Box(parent, tag)
            chain.append(box)
            parent = box.node.parent
        return chain

    def known(self, node: LexborNode) -> Box | None:
        """The box that an element is, if pictures stand in it."""
        return self._known.get(node.mem_id)


class Headings:
    """The headings of a page in document order; a picture belongs to the nearest before it that says something."""

    def __init__(self) -> None:
        self._nodes: list[LexborNode] = []
        self._texts: dict[int, str] = {}

    def add(self, node: LexborNode) -> None:
        self._nodes.append(node)

    @property
    def count(self) -> int:
        return len(self._nodes)

    def text(self, count: int) -> str:
        """Text of the last of the first `count` headings that has one; "" for none."""
        for position in range(count - 1, max(-1, count - 10), -1):
            if position not in self._texts:
                self._texts[position] = text_of(self._nodes[position])
            if self._texts[position]:
                return self._texts[position]
        return ""


def own_texts(attributes: Mapping[str, str | None]) -> Iterator[Caption]:
    """alt, aria-label and title of one element."""
    for name, kind in (
        ("alt", CaptionKind.ALT),
        ("aria-label", CaptionKind.ARIA_LABEL),
        ("title", CaptionKind.TITLE),
    ):
        text = collapse(attributes.get(name))
        if text:
            yield Caption(kind, text)


def texts_around(chain: list[Box], image_url: str, heading: str) -> Iterator[Caption]:
    """Captions from the boxes around a picture and from the heading before it."""
    figure = next((box for box in chain if box.tag == "figure"), None)
    if figure is not None and figure.words():
        yield Caption(CaptionKind.FIGCAPTION, figure.words())
    link = next((box for box in chain if box.tag == "a" and box.only == image_url), None)
    if link is not None:
        yield from own_texts(link.node.attributes)
    yield from _card(chain, image_url)
    if heading:
        yield Caption(CaptionKind.NEARBY, heading)


def _card(chain: list[Box], image_url: str) -> Iterator[Caption]:
    card = False
    for level, box in enumerate(chain):
        if box.only != image_url:
            return
        if box.tag == "tr":
            text = text_of(box.node)
            if text and len(text) <= MAX_CARD_CHARS:
                yield Caption(CaptionKind.TABLE_ROW, text)
            return
        if level < _CARD_LEVELS and not card:
            text = text_of(box.node) if box.tag == "figure" else box.words()
            if len(text) > MAX_CARD_CHARS:
                return
            card = bool(text)
            if card:
                yield Caption(CaptionKind.CARD, text)
