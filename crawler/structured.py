"""Pictures that a page names in its metadata: og:image and twitter:image, and JSON-LD.

Of JSON-LD the types ImageObject, Person and the articles (NewsArticle, Article, BlogPosting, ...) are read, wherever
they are nested; `@id` references are followed within the page; logos are left out. The texts of a picture are those
of its own object, then those of the object that it is the image of.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from crawler.page import Caption, Collection, Origin, collapse
from crawler.references import Resolver
from warehouse.schema import CaptionKind

MAX_JSON_CHARS = 1_000_000  # of one script
_MAX_NODES = 5_000  # objects and lists looked at per script
_MAX_PER_OBJECT = 8  # pictures of one object
_JSON_WRAPPERS = re.compile(r"^\s*(?:<!--|(?://)?\s*<!\[CDATA\[)|(?:-->|(?://)?\s*\]\]>)\s*;?\s*$")

_OG_IMAGES = (
    ("og:image", "og:image:url", "og:image:secure_url"),
    ("twitter:image", "twitter:image:src"),
)
_OG_TEXTS = (
    "og:image:alt",
    "twitter:image:alt",
    "og:title",
    "og:description",
    "twitter:title",
    "twitter:description",
)
_OBJECT_TEXTS = {
    "imageobject": ("caption", "name", "headline", "description"),
    "person": ("name", "description"),
    "article": ("headline", "name", "description"),
}


def add_og_pictures(metas: Iterable[tuple[str, str]], resolve: Resolver, found: Collection) -> None:
    """Add og:image and twitter:image; `metas` are (lower-case name or property, content) in page order.

    og:image:url and og:image:secure_url name the same picture as og:image and stand in where that is missing.
    """
    values: dict[str, list[str]] = {}
    for name, content in metas:
        values.setdefault(name, []).append(content)
    texts = [collapse(text) for name in _OG_TEXTS for text in values.get(name, [])]
    captions = [Caption(CaptionKind.META, text) for text in texts if text]
    for names in _OG_IMAGES:
        for name in names:
            urls = [url for url in map(resolve.picture, values.get(name, [])[:_MAX_PER_OBJECT]) if url]
            for url in urls:
                found.add(url, Origin.OG, captions)
            if urls:
                break


def add_json_ld_pictures(scripts: Sequence[str], resolve: Resolver, found: Collection) -> None:
    """Add the pictures of JSON-LD scripts; what is no JSON, too large or of unexpected types is passed over."""
    for script in scripts:
        nodes = list(_objects(_parsed(script)))
        by_id = {str(node["@id"]): node for node in reversed(nodes) if "@id" in node and len(node) > 1}
        for node in nodes:
            _add_object(node, by_id, resolve, found)


def _parsed(script: str) -> object:
    if len(script) > MAX_JSON_CHARS:
        return None
    try:
        return json.loads(_JSON_WRAPPERS.sub("", script), strict=False)
    except (ValueError, RecursionError):
        return None


def _objects(document: object) -> Iterator[Mapping[str, object]]:
    """All objects in it, outer ones first, in document order; without recursion; logos are left out."""
    stack, seen = [document], 0
    while stack and seen < _MAX_NODES:
        node = stack.pop()
        seen += 1
        if isinstance(node, dict):
            yield node
            stack.extend(
                value for key, value in reversed(node.items()) if key != "logo" and isinstance(value, dict | list)
            )
        elif isinstance(node, list):
            stack.extend(item for item in reversed(node[:_MAX_NODES]) if isinstance(item, dict | list))


def _kind(node: Mapping[str, object]) -> str:
    """Which of _OBJECT_TEXTS an object is; "" for another."""
    declared = node.get("@type")
    for name in declared if isinstance(declared, list) else [declared]:
        if isinstance(name, str):
            bare = name.rsplit("/", 1)[-1].lower()
            if bare in {"imageobject", "person"}:
                return bare
            if bare.endswith(("article", "posting", "report")):
                return "article"
    return ""


def _texts(node: Mapping[str, object], kind: str) -> list[str]:
    values = (node.get(name) for name in _OBJECT_TEXTS.get(kind, ()))
    texts = (collapse(html.unescape(value[:10_000])) for value in values if isinstance(value, str))
    return [text for text in texts if text]


def _add_object(
    node: Mapping[str, object], by_id: Mapping[str, Mapping[str, object]], resolve: Resolver, found: Collection
) -> None:
    kind = _kind(node)
    if not kind:
        return
    texts = _texts(node, kind)
    if kind == "imageobject":
        _add_image(node, [], by_id, resolve, found)
        return
    images = node.get("image")
    for image in images[:_MAX_PER_OBJECT] if isinstance(images, list) else [images]:
        _add_image(image, texts, by_id, resolve, found)


def _add_image(
    image: object,
    texts: list[str],
    by_id: Mapping[str, Mapping[str, object]],
    resolve: Resolver,
    found: Collection,
) -> None:
    """`image` is an address, an ImageObject or a reference to one."""
    urls: list[object] = [image]
    if isinstance(image, dict):
        reference = image.get("@id")
        if len(image) == 1 and isinstance(reference, str):
            image = by_id.get(reference, image)
        texts = _texts(image, "imageobject") + texts
        urls = [image.get("contentUrl"), image.get("url")]
    for value in urls:
        url = resolve.picture(html.unescape(value.strip())) if isinstance(value, str) else None
        if url:
            found.add(url, Origin.JSON_LD, [Caption(CaptionKind.JSON_LD, text) for text in texts])
            return
