"""The pictures that elements of a page show: <img>, <picture>, lazy loading and its noscript twins, CSS, links.

The address of an <img>, the first that is one: the largest candidate of its srcset, of the lazy srcset, of the
<source>s of its <picture> (formats that few can decode last), a lazy-loading attribute, src. Placeholders, 1x1
pictures and data: addresses are none. The <img> in a <noscript> is the twin of a lazy one beside it: both are one
picture, with the lazy one's address where it has one. A link to an image file is a picture of its own that shares the
texts of the thumbnail in it: which of the two is larger, and whether they are the same, is for decoding to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crawler.page import Caption, Collection, Origin
from crawler.references import (
    LAZY_BACKGROUNDS,
    LAZY_SOURCES,
    LAZY_SRCSETS,
    Resolver,
    css_backgrounds,
    srcset_by_size,
)
from crawler.surroundings import Box, Boxes, Headings, own_texts, text_of, texts_around
from warehouse.schema import CaptionKind

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

Attributes = Mapping[str, str | None]

_MAX_IMAGES = 20_000  # elements of a page that are looked at
_MAX_SOURCES = 50  # of a <picture>
_SIBLINGS = 4  # how far a noscript may stand from its twin, texts between them included
_RARE_FORMATS = ("avif", "heic", "jxl", "svg")
_SOURCE_SRCSETS = ("srcset", *LAZY_SRCSETS)
_BETTER_THAN_SRC = frozenset({"srcset", *LAZY_SRCSETS, *LAZY_SOURCES})


@dataclass
class _Image:
    """An <img>, its address, and the noscript twin's texts."""

    node: LexborNode
    attributes: Attributes
    chain: list[Box]
    headings: int
    address: tuple[str, Origin] | None
    extra: list[Caption] = field(default_factory=list)


class Images:
    """Gathers the elements of one page in document order, then says which pictures they show."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._boxes, self._headings = Boxes(), Headings()
        self._images: list[_Image] = []
        self._backgrounds: list[tuple[LexborNode, int]] = []
        self._links: list[LexborNode] = []
        self._in_noscript: dict[int, list[_Image]] = {}

    def heading(self, node: LexborNode) -> None:
        self._headings.add(node)

    def image(self, node: LexborNode) -> None:
        if len(self._images) >= _MAX_IMAGES:
            return
        attributes = node.attributes
        if _is_pixel(attributes):
            return
        chain = self._boxes.around(node)
        image = _Image(node, attributes, chain, self._headings.count, self._address(attributes, chain))
        noscript = next((box for box in chain if box.tag == "noscript"), None)
        if noscript is not None:
            self._in_noscript.setdefault(noscript.node.mem_id, []).append(image)
            if image.address is not None:
                image.address = (image.address[0], Origin.NOSCRIPT)
        self._images.append(image)

    def background(self, node: LexborNode) -> None:
        if len(self._backgrounds) < _MAX_IMAGES:
            self._backgrounds.append((node, self._headings.count))

    def link(self, node: LexborNode) -> None:
        """A link to an image file."""
        if len(self._links) < _MAX_IMAGES:
            self._links.append(node)

    def add_to(self, found: Collection) -> None:
        self._join_twins()
        shown = [image for image in self._images if image.address is not None]
        for image in shown:
            for box in image.chain:
                box.hold(image.address[0] if image.address else "")
        by_address: dict[str, list[Caption]] = {}
        for image in shown:
            url, how = image.address or ("", Origin.SRC)
            captions = [*own_texts(image.attributes), *image.extra]
            captions += texts_around(image.chain, url, self._headings.text(image.headings))
            by_address.setdefault(url, []).extend(captions)
            found.add(url, how, captions)
        self._add_backgrounds(found)
        self._add_links(found, by_address)

    def _address(self, attributes: Attributes, chain: list[Box]) -> tuple[str, Origin] | None:
        resolve = self._resolve.picture
        plain = resolve(attributes.get("src"))
        in_picture = bool(chain) and chain[0].tag == "picture"
        if not in_picture and attributes.keys().isdisjoint(_BETTER_THAN_SRC):
            return (plain, Origin.SRC) if plain else None
        for name in ("srcset", *LAZY_SRCSETS):
            if value := attributes.get(name):
                for candidate in srcset_by_size(value):
                    if url := resolve(candidate):
                        return url, Origin.SRCSET if name == "srcset" else Origin.LAZY
        if in_picture and (url := self._of_sources(chain[0].node)):
            return url, Origin.PICTURE
        for name in LAZY_SOURCES:
            if name in attributes and (url := self._resolve.lazy(name, attributes[name])):
                return url, Origin.LAZY
        return (plain, Origin.SRC) if plain else None

    def _of_sources(self, picture: LexborNode) -> str | None:
        """The largest candidate of a <picture>'s sources; of equals the first."""
        sources = [node.attributes for node in picture.css("source")[:_MAX_SOURCES]]
        rare = [any(name in (a.get("type") or "") for name in _RARE_FORMATS) for a in sources]
        for wanted in (False, True):
            lists = [a.get(n) for a, r in zip(sources, rare, strict=True) if r is wanted for n in _SOURCE_SRCSETS]
            for candidate in srcset_by_size(", ".join(value for value in lists if value)):
                if url := self._resolve.picture(candidate):
                    return url
        return None

    def _join_twins(self) -> None:
        """Give the texts, and where it has none the address, of an <img> in <noscript> to the lazy one beside it."""
        if not self._in_noscript:
            return
        by_node = {image.node.mem_id: image for image in self._images}
        for inside in self._in_noscript.values():
            if len(inside) != 1:
                continue
            twin = inside[0]
            box = next(box for box in twin.chain if box.tag == "noscript")
            lazy = next((by_node[n] for n in _beside(box.node) if n in by_node and _is_lazy(by_node[n])), None)
            if lazy is None:
                continue
            lazy.extra += own_texts(twin.attributes)
            lazy.address = lazy.address or twin.address
            twin.address = None

    def _add_backgrounds(self, found: Collection) -> None:
        for node, headings in self._backgrounds:
            attributes = node.attributes
            urls = [url for url in map(self._resolve.picture, css_backgrounds(attributes.get("style") or "")) if url]
            for name in LAZY_BACKGROUNDS:
                value = attributes.get(name) or ""
                urls += [url for url in (self._resolve.lazy(name, v) for v in _urls_in(value)) if url]
            if not urls:
                continue
            captions = list(own_texts(attributes))
            text = text_of(node)
            if text and len(text) <= 400 and node.css_first("img") is None:
                captions.append(Caption(CaptionKind.CARD, text))
            heading = self._headings.text(headings)
            if heading:
                captions.append(Caption(CaptionKind.NEARBY, heading))
            found.add(urls[0], Origin.CSS, captions)

    def _add_links(self, found: Collection, by_address: Mapping[str, list[Caption]]) -> None:
        for node in self._links:
            attributes = node.attributes
            url = self._resolve.picture(attributes.get("href"))
            if url is None:
                continue
            captions = list(own_texts(attributes))
            box = self._boxes.known(node)
            if box is not None and box.only:
                captions += by_address.get(box.only, [])
            elif (box is None or box.only is None) and (text := text_of(node)):
                captions.append(Caption(CaptionKind.CARD, text))
            found.add(url, Origin.LINK, captions)


def _urls_in(value: str) -> Iterator[str]:
    """A lazy background is an address or CSS around one."""
    if "url(" in value:
        yield from css_backgrounds(f"background:{value}")
    elif value:
        yield value


def _is_pixel(attributes: Attributes) -> bool:
    """Whether the page shows it as 1x1 or smaller: a tracker or a spacer."""
    sizes = [(attributes.get(name) or "").strip().removesuffix("px") for name in ("width", "height")]
    return all(size in {"0", "1"} for size in sizes)


def _is_lazy(image: _Image) -> bool:
    return image.address is None or image.address[1] is Origin.LAZY


def _beside(noscript: LexborNode) -> Iterator[int]:
    """mem_id of the images before and after an element, also where one stands alone in a sibling of it."""
    for step in ("prev", "next"):
        node = getattr(noscript, step)
        for _ in range(_SIBLINGS):
            if node is None:
                break
            if node.is_element_node:
                inner = node if node.tag == "img" else node.css_first("img")
                if inner is not None:
                    yield inner.mem_id
                break
            node = getattr(node, step)
