"""The baseline of bench/extract.py: warcio + BeautifulSoup, in an environment of its own; imports nothing of ours.

A straightforward reading of pages by the rules that crawler/images.py, surroundings.py, structured.py and page.py
state. Reads commands from standard input, one a line (JSON lists of words): `rules JSON` gives the names of attributes
and file endings that count; `time FILE...` reads the files once and answers with the seconds
of processor time and the number of pages; `dump PATH FILE...` writes what each page gives as JSON.

    python -m bench._soup lxml | html.parser
"""

from __future__ import annotations

import html
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup  # type: ignore[import-not-found]
from bs4.dammit import EncodingDetector  # type: ignore[import-not-found]
from bs4.element import Tag  # type: ignore[import-not-found]
from warcio.archiveiterator import ArchiveIterator  # type: ignore[import-not-found]

from bench._soup_text import (
    BACKGROUND,
    PLACEHOLDER,
    RULES,
    WRAPPERS,
    absolute,
    collapse,
    is_image_file,
    kind_of,
    objects,
    srcset_by_size,
    texts_of,
)

RANKING = ("alt", "figcaption", "aria_label", "title", "json_ld", "card", "table_row", "meta", "nearby")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
TOP = {"body", "html", "main", "[document]"}
OG_IMAGES = (("og:image", "og:image:url", "og:image:secure_url"), ("twitter:image", "twitter:image:src"))
OG_TEXTS = (
    "og:image:alt",
    "twitter:image:alt",
    "og:title",
    "og:description",
    "twitter:title",
    "twitter:description",
)


def text_of(tag: Tag) -> str:
    return collapse(tag.get_text(" ", strip=True))


class PageReader:
    """One page; `pictures` is {address: [(kind, text), ...]} in rank order."""

    def __init__(self, body: bytes, url: str, charset: str | None, parser: str) -> None:
        self.soup = BeautifulSoup(body, parser, from_encoding=charset)
        base = self.soup.find("base", href=True)
        self.base = (absolute(base["href"], url) or url) if base else url
        self.found: dict[str, list[tuple[str, str]]] = {}
        scripts = [s.get_text() for s in self.soup.find_all("script", type=re.compile("ld\\+json", re.I))]
        for tag in self.soup.find_all(["script", "style", "template"]):
            tag.decompose()
        self.read_images()
        self.read_backgrounds()
        self.read_links()
        self.read_json_ld(scripts)
        self.read_metas()
        self.pictures = {url: self.ranked(captions) for url, captions in self.found.items()}

    def picture(self, reference: str | None) -> str | None:
        url = absolute(reference, self.base)
        if url is None or "{" in url or PLACEHOLDER.search(url) or (reference or "").lstrip().startswith("#"):
            return None
        return url

    def lazy(self, name: str, value: str | None) -> str | None:
        if not value or not ("/" in value or "." in value):
            return None
        return None if name in RULES["ambiguous"] and not is_image_file(value.strip()) else self.picture(value)

    def add(self, url: str, captions: list[tuple[str, str]]) -> None:
        known = self.found.setdefault(url, [])
        if len(known) < 64:
            known.extend(captions)

    @staticmethod
    def ranked(captions: list[tuple[str, str]]) -> list[tuple[str, str]]:
        unique: dict[str, tuple[str, str]] = {}
        for kind, text in sorted(captions, key=lambda c: RANKING.index(c[0])):
            unique.setdefault(text, (kind, text))
        return list(unique.values())[:32]

    def largest(self, srcset: str) -> str | None:
        return next((url for url in map(self.picture, srcset_by_size(srcset)) if url), None)

    def address(self, tag: Tag) -> tuple[str, bool] | None:
        """Address, and whether it came from a lazy loader's attribute."""
        for name in ("srcset", *RULES["lazy_srcsets"]):
            url = self.largest(tag.get(name, ""))
            if url:
                return url, name != "srcset"
        if tag.parent is not None and tag.parent.name == "picture":
            sources = tag.parent.find_all("source")
            for rare in (False, True):
                chosen = [s for s in sources if bool(re.search("avif|heic|jxl|svg", s.get("type", ""))) is rare]
                lists = [s.get(name) for s in chosen for name in ("srcset", *RULES["lazy_srcsets"])]
                url = self.largest(", ".join(value for value in lists if value))
                if url:
                    return url, False
        for name in RULES["lazy_sources"]:
            url = self.lazy(name, tag.get(name))
            if url:
                return url, True
        url = self.picture(tag.get("src"))
        return (url, False) if url else None

    @staticmethod
    def chain(tag: Tag) -> list[Tag]:
        chain: list[Tag] = []
        for parent in tag.parents:
            if parent.name in TOP or len(chain) == 8:
                break
            chain.append(parent)
        return chain

    @staticmethod
    def own_texts(tag: Tag) -> list[tuple[str, str]]:
        pairs = (("alt", "alt"), ("aria_label", "aria-label"), ("title", "title"))
        texts = [(kind, collapse(tag.get(name))) for kind, name in pairs]
        return [(kind, text) for kind, text in texts if text]

    def read_images(self) -> None:
        self.held: dict[int, set[str]] = {}
        self.shown: dict[str, list[tuple[str, str]]] = {}
        images = [tag for tag in self.soup.find_all("img") if not self.is_pixel(tag)]
        addresses = {id(tag): self.address(tag) for tag in images}
        extra = self.join_twins(images, addresses)
        for tag in images:
            address = addresses[id(tag)]
            if address is not None:
                for parent in self.chain(tag):
                    self.held.setdefault(id(parent), set()).add(address[0])
        for tag in images:
            address = addresses[id(tag)]
            if address is not None:
                captions = self.own_texts(tag) + extra.get(id(tag), []) + self.around(tag, address[0])
                self.shown.setdefault(address[0], []).extend(captions)
                self.add(address[0], captions)

    @staticmethod
    def is_pixel(tag: Tag) -> bool:
        return all(tag.get(name, "").strip().removesuffix("px") in {"0", "1"} for name in ("width", "height"))

    def join_twins(
        self, images: list[Tag], addresses: dict[int, tuple[str, bool] | None]
    ) -> dict[int, list[tuple[str, str]]]:
        extra: dict[int, list[tuple[str, str]]] = {}
        for noscript in self.soup.find_all("noscript"):
            inside = [tag for tag in noscript.find_all("img") if id(tag) in addresses]
            if len(inside) != 1:
                continue
            twin = inside[0]
            for sibling in (noscript.find_previous_sibling(), noscript.find_next_sibling()):
                if sibling is None:
                    continue
                lazy = sibling if sibling.name == "img" else sibling.find("img")
                if lazy is None or id(lazy) not in addresses:
                    continue
                address = addresses[id(lazy)]
                if address is None or address[1]:
                    extra.setdefault(id(lazy), []).extend(self.own_texts(twin))
                    addresses[id(lazy)] = address or addresses[id(twin)]
                    addresses[id(twin)] = None
                    break
        return extra

    def around(self, tag: Tag, url: str) -> list[tuple[str, str]]:
        captions: list[tuple[str, str]] = []
        chain = self.chain(tag)
        figure = next((parent for parent in chain if parent.name == "figure"), None)
        caption = figure.find("figcaption") if figure is not None else None
        if caption is not None and text_of(caption):
            captions.append(("figcaption", text_of(caption)))
        link = next((parent for parent in chain if parent.name == "a" and self.held[id(parent)] == {url}), None)
        if link is not None:
            captions += self.own_texts(link)
        captions += self.card(chain, url)
        return captions + self.heading_before(tag)

    def card(self, chain: list[Tag], url: str) -> Iterator[tuple[str, str]]:
        card = False
        for level, parent in enumerate(chain):
            if self.held[id(parent)] != {url}:
                return
            if parent.name == "tr" or (level < 4 and not card):
                text = text_of(parent)
                if parent.name == "tr":
                    if 0 < len(text) <= 400:
                        yield "table_row", text
                    return
                if len(text) > 400:
                    return
                card = bool(text)
                if card:
                    yield "card", text

    @staticmethod
    def heading_before(tag: Tag) -> list[tuple[str, str]]:
        for nth, heading in enumerate(tag.find_all_previous(HEADINGS, limit=9)):
            if nth < 9 and text_of(heading):
                return [("nearby", text_of(heading))]
        return []

    def read_backgrounds(self) -> None:
        def shows(tag: Tag) -> bool:
            return tag.name not in {"img", "meta", "base", *HEADINGS} and (
                "url(" in tag.get("style", "") or any(name in tag.attrs for name in RULES["lazy_backgrounds"])
            )

        for tag in self.soup.find_all(shows):
            urls = [self.picture(reference) for reference in BACKGROUND.findall(tag.get("style", ""))]
            for name in RULES["lazy_backgrounds"]:
                value = tag.get(name, "")
                values = BACKGROUND.findall(f"background:{value}") if "url(" in value else [value]
                urls += [self.lazy(name, reference) for reference in values]
            known = [url for url in urls if url]
            if known:
                captions = self.own_texts(tag)
                text = text_of(tag)
                if 0 < len(text) <= 400 and tag.find("img") is None:
                    captions.append(("card", text))
                self.add(known[0], captions + self.heading_before(tag))

    def read_links(self) -> None:
        for tag in self.soup.find_all("a", href=True):
            url = self.picture(tag["href"]) if is_image_file(tag["href"]) else None
            if url is None or "nofollow" in [word.lower() for word in tag.get("rel", [])]:
                continue
            captions = self.own_texts(tag)
            held = self.held.get(id(tag), set())
            if len(held) == 1:
                captions += self.shown.get(next(iter(held)), [])
            elif not held and text_of(tag):
                captions.append(("card", text_of(tag)))
            self.add(url, captions)

    def read_metas(self) -> None:
        values: dict[str, list[str]] = {}
        for tag in self.soup.find_all("meta", content=True):
            for key in ("name", "property"):
                if tag.get(key):
                    values.setdefault(tag[key].strip().lower(), []).append(tag["content"])
        texts = [collapse(text) for name in OG_TEXTS for text in values.get(name, [])]
        captions = [("meta", text) for text in texts if text]
        for names in OG_IMAGES:
            for name in names:
                urls = [url for url in map(self.picture, values.get(name, [])) if url]
                for url in urls:
                    self.add(url, captions)
                if urls:
                    break

    def read_json_ld(self, scripts: list[str]) -> None:
        for script in scripts:
            try:
                document = json.loads(WRAPPERS.sub("", script), strict=False)
            except ValueError:
                continue
            nodes = list(objects(document))
            by_id = {str(node["@id"]): node for node in reversed(nodes) if "@id" in node and len(node) > 1}
            for node in nodes:
                kind = kind_of(node)
                if kind == "imageobject":
                    self.add_image(node, [], by_id)
                elif kind:
                    images = node.get("image")
                    for image in images[:8] if isinstance(images, list) else [images]:
                        self.add_image(image, texts_of(node, kind), by_id)

    def add_image(self, image: object, texts: list[str], by_id: dict[str, dict[str, object]]) -> None:
        urls = [image]
        if isinstance(image, dict):
            if len(image) == 1 and isinstance(image.get("@id"), str):
                image = by_id.get(image["@id"], image)
            texts = texts_of(image, "imageobject") + texts
            urls = [image.get("contentUrl"), image.get("url")]
        for value in urls:
            url = self.picture(html.unescape(value.strip())) if isinstance(value, str) else None
            if url:
                self.add(url, [("json_ld", text) for text in texts])
                return


def pages(file: str, parser: str) -> Iterator[tuple[str, dict[str, list[tuple[str, str]]]]]:
    """(address, pictures) of every HTML answer in a WARC file."""
    with Path(file).open("rb") as stream:
        for record in ArchiveIterator(stream):
            if record.rec_type != "response" or record.http_headers is None:
                continue  # dns: answers have no HTTP headers
            if not (record.http_headers.get_statuscode() or "").startswith("2"):
                continue
            content_type = record.http_headers.get_header("Content-Type") or ""
            if "html" not in content_type.lower():
                continue
            url = record.rec_headers.get_header("WARC-Target-URI").strip("<> ")
            body = record.content_stream().read()
            if body:
                charset = re.search(r"charset=[\"']?([^\s\"';]+)", content_type, re.I)
                known = charset[1] if charset else EncodingDetector.find_declared_encoding(body, is_html=True)
                yield absolute(url, url) or url, PageReader(body, absolute(url, url) or url, known, parser).pictures


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    parser = sys.argv[1]
    for line in sys.stdin:
        command, *words = json.loads(line)
        if command == "rules":
            RULES.update(json.loads(words[0]))
            print("{}", flush=True)
        elif command == "time":
            started = time.process_time()
            count = sum(1 for file in words for _ in pages(file, parser))
            print(json.dumps({"seconds": time.process_time() - started, "pages": count}), flush=True)
        else:
            found = {file: list(pages(file, parser)) for file in words[1:]}
            Path(words[0]).write_text(json.dumps(found), "utf-8")
            print(json.dumps({"pages": sum(map(len, found.values()))}), flush=True)


if __name__ == "__main__":
    main()
