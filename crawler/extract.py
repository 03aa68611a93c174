"""HTML bytes -> pictures with their texts, links and directives.

What a picture's address is stands in crawler/images.py, what its texts are in crawler/surroundings.py, the pictures
that metadata name in crawler/structured.py, the ranking of texts in crawler/page.py. Texts come as found, white space
collapsed; which of them is boilerplate is for the curating rules to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from crawler.images import Images
from crawler.markup import cut_where_too_deep, decode_html
from crawler.page import MAX_PICTURES, MAX_TEXT_CHARS, Caption, Collection, Origin, Page, Picture, collapse
from crawler.references import LAZY_BACKGROUNDS, Resolver, absolute, is_image_file, largest_of_srcset
from crawler.structured import add_json_ld_pictures, add_og_pictures

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = (
    "MAX_HTML_BYTES",
    "MAX_PICTURES",
    "MAX_TEXT_CHARS",
    "Caption",
    "Origin",
    "Page",
    "Picture",
    "absolute",
    "collapse",
    "extract_page",
    "largest_of_srcset",
    "page_directives",
)

MAX_HTML_BYTES = 10_000_000
MAX_LINKS = 10_000  # per page
_MAX_METAS = 1_000

_PAGE_METAS = frozenset({"robots", "gptface", "tdm-reservation"})
# All elements that a page is asked for, in one selector, so that the tree is walked once.
_ELEMENTS = 'img, meta, base[href], h1, h2, h3, h4, h5, h6, a[href], area[href], [style*="url("], ' + ", ".join(
    f"[{name}]" for name in LAZY_BACKGROUNDS
)
_JSON_LD = "ld+json"


def extract_page(
    html: bytes, page_url: str, headers: Sequence[tuple[str, str]] = (), *, with_links: bool = True
) -> Page:
    """Pictures, links and directives of one page; `headers` are the answer's, names in any case.

    Never raises, whatever the bytes. `with_links=False` saves the time for links that nobody follows.
    """
    from selectolax.lexbor import LexborHTMLParser

    lower = [(name.lower(), value) for name, value in headers]
    text = cut_where_too_deep(decode_html(html[:MAX_HTML_BYTES], dict(lower).get("content-type", "")))
    tree = LexborHTMLParser(text)
    scripts = _json_ld(tree) if _JSON_LD in text else []
    if tree.root is not None:
        tree.root.strip_tags(["script", "style"])
    reader = _Reader(tree, page_url, with_links)
    found = Collection()
    reader.images.add_to(found)
    add_json_ld_pictures(scripts, reader.resolve, found)
    add_og_pictures(reader.metas, reader.resolve, found)
    directives = page_directives(lower, (meta for meta in reader.metas if meta[0] in _PAGE_METAS))
    return Page(found.pictures(_title(tree)), tuple(reader.links()) if with_links else (), directives)


def page_directives(headers: Iterable[tuple[str, str]], metas: Iterable[tuple[str, str]]) -> str:
    """Join X-Robots-Tag and tdm-reservation headers (lower-case names) and metas, one "name: value" a line."""
    lines = [f"{name}: {value}" for name, value in headers if name in {"x-robots-tag", "tdm-reservation"}]
    for name, value in metas:
        lines.append(f"tdm-reservation: {value}" if name == "tdm-reservation" else f"meta {name}: {value}")
    return "\n".join(dict.fromkeys(" ".join(line.lower().split()) for line in lines))


def _json_ld(tree: LexborHTMLParser) -> list[str]:
    nodes = tree.css("script[type]")
    return [node.text() for node in nodes if _JSON_LD in (node.attributes.get("type") or "").lower()]


def _title(tree: LexborHTMLParser) -> str:
    """What the page's <title> says: it may speak of children where no text at a picture does."""
    node = tree.head.css_first("title") if tree.head is not None else None
    return collapse(node.text()) if node is not None else ""


class _Reader:
    """One walk over the elements of a page, in document order."""

    def __init__(self, tree: LexborHTMLParser, page_url: str, with_links: bool) -> None:
        nodes = _distinct(tree.css(_ELEMENTS))
        self.resolve = Resolver(_base(nodes, page_url))
        self.images = Images(self.resolve)
        self.metas: list[tuple[str, str]] = []
        self._links: list[str] = []
        self._with_links = with_links
        for node, tag in nodes:
            self._read(node, tag)

    def _read(self, node: LexborNode, tag: str) -> None:
        if tag in {"a", "area"}:
            self._link(node, tag)
        elif tag == "img":
            self.images.image(node)
        elif tag == "meta":
            self._meta(node)
        elif len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.images.heading(node)
        elif tag != "base":
            self.images.background(node)

    def _link(self, node: LexborNode, tag: str) -> None:
        attributes = node.attrs
        href = attributes.get("href") or ""
        shows = tag == "a" and is_image_file(href)
        if (shows or self._with_links) and "nofollow" not in (attributes.get("rel") or "").lower().split():
            self._links.append(href)
            if shows:
                self.images.link(node)
        if "url(" in (attributes.get("style") or ""):
            self.images.background(node)

    def _meta(self, node: LexborNode) -> None:
        attributes = node.attributes
        content = attributes.get("content")
        if content is None or len(self.metas) >= _MAX_METAS:
            return
        for key in ("name", "property"):
            if name := attributes.get(key):
                self.metas.append((name.strip().lower(), content))

    def links(self) -> Iterator[str]:
        """Addresses of <a> and <area>, each once, in page order; rel=nofollow is heeded."""
        addresses = dict.fromkeys(url for url in map(self.resolve, self._links) if url is not None)
        for _, url in zip(range(MAX_LINKS), addresses, strict=False):
            yield url


def _distinct(nodes: Iterable[LexborNode]) -> list[tuple[LexborNode, str]]:
    """Nodes with their tags; one that several selectors match comes once."""
    distinct: list[tuple[LexborNode, str]] = []
    last = 0
    for node in nodes:
        if node.mem_id != last:
            last = node.mem_id
            distinct.append((node, node.tag or ""))
    return distinct


def _base(nodes: Iterable[tuple[LexborNode, str]], page_url: str) -> str:
    """The page's base address: of the first <base href>, wherever it stands, if it names something on the web."""
    for node, tag in nodes:
        if tag == "base":
            return absolute(node.attributes.get("href") or "", page_url) or page_url
    return page_url
