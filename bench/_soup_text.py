"""What bench/_soup.py needs besides HTML: addresses, srcset, JSON-LD. Imports nothing of ours."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit, urlunsplit

RULES: dict[str, list[str]] = {}  # names of attributes and file endings, from standard input
OBJECT_TEXTS = {
    "imageobject": ("caption", "name", "headline", "description"),
    "person": ("name", "description"),
    "article": ("headline", "name", "description"),
}
PLACEHOLDER = re.compile(
    r"(?:^|/)(?:1x1|1px|blank|clear|clearpixel|empty|gray|grey|lazy|lazy-?load|loader|loading|ajax-loader|pixel"
    r"|placeholder|shim|spacer|spinner|trans|transparent)\.(?:gif|png|svg|jpe?g|webp)(?:[?#]|$)",
    re.I,
)
BACKGROUND = re.compile(r"""(?:^|[;{\s])background(?:-image)?\s*:[^;]*?url\(\s*["']?([^)"'\s]+)["']?\s*\)""", re.I)
WRAPPERS = re.compile(r"^\s*(?:<!--|(?://)?\s*<!\[CDATA\[)|(?:-->|(?://)?\s*\]\]>)\s*;?\s*$")


def collapse(text: str | None) -> str:
    return " ".join((text or "").replace("\0", " ").split())[:600]


def absolute(reference: str | None, base: str) -> str | None:
    cleaned = re.sub(r"[\t\n\r]", "", (reference or "").strip())
    if not cleaned or len(cleaned) > 8192:
        return None
    try:
        parts = urlsplit(urljoin(base, cleaned))
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return None
    return urlunsplit(parts._replace(path=parts.path or "/", fragment=""))


def is_image_file(reference: str) -> bool:
    path = reference.split("?")[0].split("#")[0]
    return path.lower().endswith(tuple(RULES["image_endings"])) and ":" not in path.rsplit("/", 1)[-1]


def srcset_by_size(srcset: str) -> list[str]:
    found: list[tuple[float, int, str]] = []
    for match in re.finditer(r"[\s,]*([^\s,](?:\S*[^\s,])?)(?:\s+([^,]*))?(?:,|$)", srcset):
        size = re.search(r"([\d.]+)[wx]", match[2] or "")
        found.append((-float(size[1]) if size else -1.0, len(found), match[1]))
    return [url for _, _, url in sorted(found)]


def objects(node: object) -> Iterator[dict[str, object]]:
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key != "logo":
                yield from objects(value)
    elif isinstance(node, list):
        for item in node:
            yield from objects(item)


def kind_of(node: dict[str, object]) -> str:
    declared = node.get("@type")
    for name in declared if isinstance(declared, list) else [declared]:
        bare = name.rsplit("/", 1)[-1].lower() if isinstance(name, str) else ""
        if bare in {"imageobject", "person"}:
            return bare
        if bare.endswith(("article", "posting", "report")):
            return "article"
    return ""


def texts_of(node: dict[str, object], kind: str) -> list[str]:
    values = [node.get(name) for name in OBJECT_TEXTS[kind]]
    texts = [collapse(html.unescape(value)) for value in values if isinstance(value, str)]
    return [text for text in texts if text]
