"""HTML bytes -> pictures with their texts, links and directives.

Address of a picture: the largest candidate of srcset (its own or of the sources of its <picture>), else a lazy-loading
attribute, else src. Ranking of captions (0 is the first choice): alt, figcaption, aria-label, title, the text of
the card that holds this picture alone, the heading before it. Texts come as found, white space collapsed; which of them
is boilerplate is for the curating rules to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from crawler.markup import cut_where_too_deep, decode_html
from warehouse.schema import CaptionKind

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_HTML_BYTES = 10_000_000
MAX_TEXT_CHARS = 600
_MAX_URL_CHARS = 8192
_CARD_LEVELS = 4  # how far up a card is looked for
_MAX_CARD_CHARS = 400  # a longer text is an article, not a card

_SRCSETS = ("srcset", "data-srcset", "data-lazy-srcset")
_LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-url", "data-hi-res-src")
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_PAGE_METAS = frozenset({"robots", "gptface", "tdm-reservation"})


@dataclass(frozen=True)
class Caption:
    """A text that belongs to a picture."""

    kind: CaptionKind
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture on a page: absolute address, caption candidates in rank order."""

    image_url: str
    captions: tuple[Caption, ...]


@dataclass(frozen=True)
class Page:
    """What one HTML page holds. `directives`: "name: value" a line, lower case (warehouse.schema.PAIRS)."""

    pictures: tuple[Picture, ...]
    links: tuple[str, ...]
    directives: str


def extract_page(html: bytes, page_url: str, headers: Sequence[tuple[str, str]] = ()) -> Page:
    """Pictures, links and directives of one page; `headers` are the answer's, names in any case."""
    from selectolax.lexbor import LexborHTMLParser

    lower = [(name.lower(), value) for name, value in headers]
    text = decode_html(html[:MAX_HTML_BYTES], dict(lower).get("content-type", ""))
    tree = LexborHTMLParser(cut_where_too_deep(text))
    directives = page_directives(lower, _metas(tree))
    tree.root.strip_tags(["script", "style", "template"]) if tree.root is not None else None
    base = _base(tree, page_url)
    return Page(tuple(_pictures(tree, base)), tuple(_links(tree, base)), directives)


def page_directives(headers: Iterable[tuple[str, str]], metas: Iterable[tuple[str, str]]) -> str:
    """Join X-Robots-Tag and tdm-reservation headers (lower-case names) and metas, one "name: value" a line."""
    lines = [f"{name}: {value}" for name, value in headers if name in {"x-robots-tag", "tdm-reservation"}]
    for name, value in metas:
        lines.append(f"tdm-reservation: {value}" if name == "tdm-reservation" else f"meta {name}: {value}")
    return "\n".join(dict.fromkeys(" ".join(line.lower().split()) for line in lines))


def _metas(tree: LexborHTMLParser) -> Iterator[tuple[str, str]]:
    for node in tree.css("meta[name][content]"):
        name = (node.attributes.get("name") or "").strip().lower()
        if name in _PAGE_METAS:
            yield name, node.attributes.get("content") or ""


def _base(tree: LexborHTMLParser, page_url: str) -> str:
    node = tree.css_first("base[href]")
    return (absolute(node.attributes.get("href") or "", page_url) or page_url) if node is not None else page_url


def absolute(reference: str, base: str) -> str | None:
    """The http(s) address that `reference` names on a page with base `base`, or None.

    Without fragment, and with "/" for an empty path, so that a front page has one address.
    """
    cleaned = reference.strip().translate({9: None, 10: None, 13: None})
    if not cleaned or len(cleaned) > _MAX_URL_CHARS:
        return None
    try:
        parts = urlsplit(urljoin(base, cleaned))
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return None
    return urlunsplit(parts._replace(path=parts.path or "/", fragment=""))


def largest_of_srcset(srcset: str) -> str | None:
    """The candidate with the largest width or density (HTML standard, 4.8.4.3.8); the first among equals."""
    best: tuple[float, str] | None = None
    rest = srcset.strip()
    while rest := rest.lstrip(" \t\n\r\f,"):
        parts = rest.split(None, 1)
        url, rest = parts[0], parts[1] if len(parts) > 1 else ""
        size = 1.0
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            descriptor, _, rest = rest.partition(",")
            size = _descriptor(descriptor)
        if url and (best is None or size > best[0]):
            best = (size, url)
    return best[1] if best else None


def _descriptor(text: str) -> float:
    """Of "640w", "2x" or "640w 480h" the width or density; 1 where there is none."""
    for word in text.split():
        if word[-1:] in "wx":
            try:
                return float(word[:-1])
            except ValueError:
                return 1.0
    return 1.0


def _address(node: LexborNode, base: str) -> str | None:
    """The best address of one <img>; see the module's docstring."""
    parent = node.parent
    sources = parent.css("source") if parent is not None and parent.tag == "picture" else []
    for owner in (node, *sources):
        attributes = owner.attributes
        for name in _SRCSETS:
            url = absolute(largest_of_srcset(attributes.get(name) or "") or "", base)
            if url:
                return url
    attributes = node.attributes
    for name in (*_LAZY, "src"):
        url = absolute(attributes.get(name) or "", base)
        if url:
            return url
    return None


def collapse(text: str | None) -> str:
    """White space collapsed, cut to MAX_TEXT_CHARS; NUL and surrogates never get into a table."""
    joined = " ".join((text or "").replace("\0", " ").split())[:MAX_TEXT_CHARS]
    return joined.encode("utf-8", "replace").decode("utf-8")


def _text(node: LexborNode) -> str:
    return collapse(node.text(deep=True, separator=" ", strip=True))


def _ancestors(node: LexborNode, levels: int) -> Iterator[LexborNode]:
    current = node.parent
    for _ in range(levels):
        if current is None or current.tag in {"body", "html", "-undef", None}:
            return
        yield current
        current = current.parent


def _pictures(tree: LexborHTMLParser, base: str) -> Iterator[Picture]:
    """One picture per address, in page order; texts of a second <img> with the same address are added."""
    images = tree.css("img")
    counts: dict[int, int] = {}
    for node in images:
        for ancestor in _ancestors(node, _CARD_LEVELS):
            counts[ancestor.mem_id] = counts.get(ancestor.mem_id, 0) + 1
    headings = _headings_before(tree)
    found: dict[str, list[Caption]] = {}
    for node in images:
        url = _address(node, base)
        if url is not None:
            found.setdefault(url, []).extend(_captions(node, counts, headings.get(node.mem_id, "")))
    for url, captions in found.items():
        yield Picture(url, _ranked(captions))


_RANKING = {
    kind: rank
    for rank, kind in enumerate(
        (
            CaptionKind.ALT,
            CaptionKind.FIGCAPTION,
            CaptionKind.ARIA_LABEL,
            CaptionKind.TITLE,
            CaptionKind.CARD,
            CaptionKind.NEARBY,
        )
    )
}


def _ranked(captions: list[Caption]) -> tuple[Caption, ...]:
    """By kind, then page order; a text that a better kind already has is left out."""
    unique: dict[str, Caption] = {}
    for caption in sorted(captions, key=lambda c: _RANKING[c.kind]):
        unique.setdefault(caption.text, caption)
    return tuple(unique.values())


def _captions(node: LexborNode, counts: dict[int, int], heading: str) -> Iterator[Caption]:
    attributes = node.attributes
    figcaption = card = ""
    for ancestor in _ancestors(node, _CARD_LEVELS):
        if ancestor.tag == "figure" and not figcaption:
            caption = ancestor.css_first("figcaption")
            figcaption = _text(caption) if caption is not None else ""
        if not card and counts.get(ancestor.mem_id) == 1:
            text = _text(ancestor)
            card = text if len(text) <= _MAX_CARD_CHARS else ""
    texts = (
        (CaptionKind.ALT, collapse(attributes.get("alt"))),
        (CaptionKind.FIGCAPTION, figcaption),
        (CaptionKind.ARIA_LABEL, collapse(attributes.get("aria-label"))),
        (CaptionKind.TITLE, collapse(attributes.get("title"))),
        (CaptionKind.CARD, card),
        (CaptionKind.NEARBY, heading),
    )
    for kind, text in texts:
        if text:
            yield Caption(kind, text)


def _headings_before(tree: LexborHTMLParser) -> dict[int, str]:
    """mem_id of each <img> -> text of the nearest heading before it in document order."""
    last = ""
    before: dict[int, str] = {}
    if tree.body is None:
        return before
    for node in tree.body.traverse(include_text=False):
        if node.tag in _HEADINGS:
            last = _text(node) or last
        elif node.tag == "img":
            before[node.mem_id] = last
    return before


def _links(tree: LexborHTMLParser, base: str) -> Iterator[str]:
    """Addresses of <a> and <area>, each once, in page order; rel=nofollow is heeded."""
    seen: set[str] = set()
    for node in tree.css("a[href], area[href]"):
        attributes = node.attributes
        if "nofollow" in (attributes.get("rel") or "").lower().split():
            continue
        url = absolute(attributes.get("href") or "", base)
        if url is not None and url not in seen:
            seen.add(url)
            yield url
