"""Pairs of a WARC or ARC file read by other means: stdlib framing, a tree of html5lib, urllib; nothing of the crawler.

Only the vocabulary is shared (which attributes lazy loaders use). The rules are those that crawler/images.py,
crawler/structured.py and crawler/references.py state, written down once more.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import html5lib
import lz4.frame

from crawler.references import AMBIGUOUS, IMAGE_ENDINGS, LAZY_BACKGROUNDS, LAZY_SOURCES, LAZY_SRCSETS

NAMES = "1x1|1px|blank|clear|clearpixel|empty|gray|grey|lazy|lazy-?load|loader|loading|ajax-loader|pixel|placeholder"
NAMES += "|shim|spacer|spinner|trans|transparent"
PLACEHOLDER = re.compile(rf"(^|/)({NAMES})\.(gif|png|svg|jpe?g|webp)([?#]|$)", re.I)
BACKGROUND = re.compile(
    r"""(?:^|[;{\s])background(?:-image)?\s*:[^;]*?url\(\s*(?:"([^"]*)"|'([^']*)'|([^)"'\s]+))\s*\)""", re.I
)
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")

Records = Iterator[tuple[str, int, dict[str, str], bytes]]


def plain_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b'\x04"M\x18'):
        with lz4.frame.open(io.BytesIO(data)) as file:
            return bytes(file.read())
    return data


def answers(path: Path) -> Records:
    """(address, status, headers, body) of stored answers and resources, up to the first broken record."""
    data = plain_bytes(path)
    return _arc_answers(data) if data.startswith(b"filedesc:") else _warc_answers(data)


def _warc_answers(data: bytes) -> Records:
    place = 0
    while match := re.compile(rb"WARC/[01]\.\d+\r?\n").match(data, place):
        end = re.compile(rb"\r?\n\r?\n").search(data, match.end())
        if end is None:
            return
        fields = _fields(data[match.end() : end.start()])
        length = int(fields["content-length"])
        block = data[end.end() : end.end() + length]
        place = end.end() + length
        if len(block) < length:
            return
        while data[place : place + 1] in {b"\r", b"\n"}:
            place += 1
        url = fields.get("warc-target-uri", "").strip("<> ")
        if fields.get("warc-type") == "response" and block.startswith(b"HTTP/"):
            yield url, *_answer(block)
        elif fields.get("warc-type") == "resource":
            yield url, 200, fields, block


def _arc_answers(data: bytes) -> Records:
    file = io.BytesIO(data)
    while line := file.readline():
        words = line.split()
        if not words:
            continue
        if not words[-1].isdigit():
            return
        block = file.read(int(words[-1]))
        if block.startswith(b"HTTP/"):
            yield words[0].decode(), *_answer(block)


def _fields(block: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.decode("utf-8", "replace").splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _answer(block: bytes) -> tuple[int, dict[str, str], bytes]:
    end = re.compile(rb"\r?\n\r?\n").search(block)
    assert end is not None
    head, body = block[: end.start()], block[end.end() :]
    fields = _fields(head.partition(b"\n")[2])
    if fields.get("transfer-encoding", "").lower() == "chunked" and re.match(rb"[0-9A-Fa-f]+ *\r\n", body):
        body = b"".join(_chunks(io.BytesIO(body)))
    if fields.get("content-encoding", "").lower() == "gzip" and body.startswith(b"\x1f\x8b"):
        body = zlib.decompressobj(31).decompress(body)
    return int(head.split()[1]), fields, body


def _chunks(file: io.BytesIO) -> Iterator[bytes]:
    while size := int(file.readline().strip() or b"0", 16):
        yield file.read(size)
        file.readline()


def is_picture(body: bytes) -> bool:
    return body.startswith(PICTURE_STARTS)


def pages(path: Path) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """(address, headers, body) of HTML answers 2xx that are no pictures."""
    for url, status, fields, body in answers(path):
        kind = fields.get("content-type", "").lower()
        if (
            200 <= status < 300
            and body
            and kind.startswith(("text/html", "application/xhtml"))
            and not is_picture(body)
        ):
            yield address(url, url) or url, fields, body


def pairs(path: Path) -> set[tuple[str, str]]:
    """(page, picture) of every picture on every page."""
    return {(url, image) for url, fields, body in pages(path) for image in OtherPage(url, fields, body).images}


def address(reference: str | None, base: str) -> str | None:
    if not reference or not (cleaned := reference.strip().translate(dict.fromkeys([9, 10, 13]))):
        return None
    if re.search(r"[\x00-\x1f\x7f]", cleaned):
        return None
    try:
        parts = urlsplit(urljoin(base, cleaned))
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return None
    except ValueError:
        return None
    return parts._replace(path=parts.path or "/", fragment="").geturl()


def picture(reference: str | None, base: str) -> str | None:
    url = address(reference, base)
    odd = url is None or "{" in url or PLACEHOLDER.search(url) or (reference or "").strip().startswith("#")
    return None if odd else url


def is_image_file(reference: str) -> bool:
    path = re.split("[?#]", reference)[0]
    return path.lower().endswith(IMAGE_ENDINGS) and ":" not in path.rpartition("/")[2]


def candidates(srcset: str) -> list[str]:
    """Of a srcset, by width or density, the largest first."""
    found = []
    for url, descriptor in re.findall(r"([^\s,]\S*[^\s,])(?:,|\s+([^,]*),?|\s*$)", srcset.strip()):
        sizes = re.findall(r"([\d.]+)[wx]\b", descriptor)
        found.append((-float(sizes[0]) if sizes else -1.0, url))
    return [url for _, url in sorted(found, key=lambda pair: pair[0])]


class OtherPage:
    """The addresses of the pictures of one page, in `images`."""

    def __init__(self, url: str, fields: dict[str, str], body: bytes) -> None:
        charset = re.search(r"charset=[\"']?([\w-]+)", fields.get("content-type", ""), re.I)
        try:
            named = {"transport_encoding": charset[1]} if charset else {"override_encoding": "utf-8"}
            if not charset:
                body.decode("utf-8")
        except UnicodeDecodeError:
            named = {}
        parser = html5lib.HTMLParser(html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
        self.tree: Any = parser.parse(body, **named)
        self.parents = {child: parent for parent in self.tree.iter() for child in parent}
        base = next((e.get("href") for e in self._all("base") if e.get("href") is not None), None)
        self.base = (address(base, url) or url) if base is not None else url
        self.images: set[str] = set()
        self._read_images()
        self._read_backgrounds()
        self._read_links()
        self._read_metas()
        for script in self._all("script"):
            if "ld+json" in (script.get("type") or "").lower():
                self._read_json_ld(script.text or "")

    def _all(self, tag: str) -> list[Any]:
        return [element for element in self.tree.iter(tag) if self._above(element, "template") is None]

    def _above(self, element: Any, tag: str) -> Any:
        while (element := self.parents.get(element)) is not None:
            if element.tag == tag:
                return element
        return None

    def _picture(self, reference: str | None) -> str | None:
        return picture(reference, self.base)

    def _lazy(self, name: str, value: str | None) -> str | None:
        if not value or not ("/" in value or "." in value) or (name in AMBIGUOUS and not is_image_file(value.strip())):
            return None
        return self._picture(value)

    def _first(self, srcset: str | None) -> str | None:
        return next((url for url in map(self._picture, candidates(srcset or "")) if url), None)

    def _address(self, image: Any) -> tuple[str, bool] | None:
        """Address of an <img>, and whether lazy loading gave it."""
        if url := self._first(image.get("srcset")):
            return url, False
        if url := next((url for name in LAZY_SRCSETS if (url := self._first(image.get(name)))), None):
            return url, True
        parent = self.parents.get(image)
        if parent is not None and parent.tag == "picture":
            sources = list(parent.iter("source"))
            for rare in (False, True):
                chosen = [s for s in sources if bool(re.search("avif|heic|jxl|svg", s.get("type") or "")) is rare]
                lists = [s.get(name) for s in chosen for name in ("srcset", *LAZY_SRCSETS) if s.get(name)]
                if url := self._first(", ".join(lists)):
                    return url, False
        if url := next((url for name in LAZY_SOURCES if (url := self._lazy(name, image.get(name)))), None):
            return url, True
        url = self._picture(image.get("src"))
        return (url, False) if url else None

    def _read_images(self) -> None:
        def tiny(image: Any) -> bool:
            return all((image.get(n) or "").strip().removesuffix("px") in {"0", "1"} for n in ("width", "height"))

        shown = {image: self._address(image) for image in self._all("img") if not tiny(image)}
        for noscript in self._all("noscript"):
            inside = [image for image in noscript.iter("img") if image in shown]
            for beside in self._beside(noscript) if len(inside) == 1 else ():
                if beside in shown and (shown[beside] is None or (shown[beside] or ("", False))[1]):
                    shown[beside] = shown[beside] or shown[inside[0]]
                    shown[inside[0]] = None
                    break
        self.images |= {found[0] for found in shown.values() if found}

    def _beside(self, noscript: Any) -> Iterator[Any]:
        siblings = [e for e in self.parents[noscript] if isinstance(e.tag, str)]
        place = siblings.index(noscript)
        for other in siblings[max(place - 1, 0) : place] + siblings[place + 1 : place + 2]:
            yield from [other] if other.tag == "img" else list(other.iter("img"))[:1]

    def _read_backgrounds(self) -> None:
        headings = {f"h{n}" for n in range(1, 7)}
        for element in self.tree.iter():
            if not isinstance(element.tag, str) or element.tag in {"img", "meta", "base"} | headings:
                continue
            found = [self._picture("".join(groups)) for groups in BACKGROUND.findall(element.get("style") or "")]
            for name in LAZY_BACKGROUNDS:
                value = element.get(name) or ""
                inner = ["".join(groups) for groups in BACKGROUND.findall(f"background:{value}")]
                found += [self._lazy(name, reference) for reference in (inner if "url(" in value else [value])]
            self.images |= set([url for url in found if url][:1])

    def _read_links(self) -> None:
        for link in self._all("a"):
            reference = link.get("href") or ""
            if is_image_file(reference) and "nofollow" not in (link.get("rel") or "").lower().split():
                self.images |= {url for url in [self._picture(reference)] if url}

    def _read_metas(self) -> None:
        values: dict[str, list[str]] = {}
        for meta in self._all("meta"):
            for key in ("name", "property"):
                if meta.get(key) and meta.get("content") is not None:
                    values.setdefault(meta.get(key).strip().lower(), []).append(meta.get("content"))
        for names in (("og:image", "og:image:url", "og:image:secure_url"), ("twitter:image", "twitter:image:src")):
            lists = ([url for url in map(self._picture, values.get(name, [])[:8]) if url] for name in names)
            self.images |= set(next((found for found in lists if found), []))

    def _read_json_ld(self, script: str) -> None:
        try:
            document = json.loads(
                re.sub(r"^\s*(<!--|(//)?\s*<!\[CDATA\[)|(-->|(//)?\s*\]\]>)\s*;?\s*$", "", script), strict=False
            )
        except ValueError:
            return
        nodes = list(_objects(document))
        by_id = {node["@id"]: node for node in reversed(nodes) if isinstance(node.get("@id"), str) and len(node) > 1}
        for node in nodes:
            kinds = node.get("@type") if isinstance(node.get("@type"), list) else [node.get("@type")]
            names = [kind.rsplit("/", 1)[-1].lower() for kind in kinds if isinstance(kind, str)]
            if "imageobject" in names:
                self._add_json_image(node, by_id)
            elif any(name == "person" or name.endswith(("article", "posting", "report")) for name in names):
                images = node.get("image")
                for image in images[:8] if isinstance(images, list) else [images]:
                    self._add_json_image(image, by_id)

    def _add_json_image(self, image: Any, by_id: dict[str, Any]) -> None:
        if isinstance(image, dict) and len(image) == 1:
            image = by_id.get(image.get("@id", ""), image)
        values = [image.get("contentUrl"), image.get("url")] if isinstance(image, dict) else [image]
        found = [self._picture(html.unescape(value.strip())) for value in values if isinstance(value, str)]
        self.images |= set([url for url in found if url][:1])


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for key, value in document.items():
            if key != "logo":
                yield from _objects(value)
    elif isinstance(document, list):
        for value in document:
            yield from _objects(value)
