"""WARC, ARC and WAT files made in a test."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from crawler.sources import open_source
from crawler.sources.base import Candidate, Damage, Found, PageVisit, StoredPicture

PAGE = "https://example.org/people/"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
HTML_TYPE = "Content-Type: text/html; charset=utf-8"


def http(body: bytes, *headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(headers or (HTML_TYPE,))]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def warc(block: bytes, url: str = PAGE, kind: str = "response", **fields: str) -> bytes:
    """One record; more header fields by name, underscores for hyphens."""
    lines = ["WARC/1.0", f"WARC-Type: {kind}", f"WARC-Target-URI: {url}", "WARC-Date: 2024-02-21T10:11:12Z"]
    lines += ["WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    lines += [f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"


def arc(block: bytes, url: str = PAGE) -> bytes:
    return f"{url} 192.0.2.1 20080430204825 text/html {len(block)}\n".encode() + block + b"\n"


def arc_head() -> bytes:
    text = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    return f"filedesc://x.arc 0.0.0.0 20080430204825 text/plain {len(text)}\n".encode() + text + b"\n"


def wat(
    links: Iterable[Mapping[str, Any]],
    url: str = PAGE,
    headers: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    status: str = "200",
) -> bytes:
    """One record of a WAT file, written as Common Crawl does."""
    return warc(wat_document(links, url, headers, head, status), url, "metadata", Content_Type="application/json")


def wat_document(
    links: Iterable[Mapping[str, Any]],
    url: str = PAGE,
    headers: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    status: str = "200",
) -> bytes:
    answer = {
        "Response-Message": {"Status": status, "Version": "HTTP/1.1", "Reason": "OK"},
        "Headers": {"Content-Type": "text/html", **(headers or {})},
        "HTML-Metadata": {"Head": {"Title": "Ada }] {", **(head or {})}, "Links": list(links)},
        "Entity-Length": "1",
    }
    envelope = {
        "Payload-Metadata": {"Actual-Content-Type": "application/http", "HTTP-Response-Metadata": answer},
        "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
    }
    document = {"Container": {"Filename": "x.warc.gz", "Offset": "0"}, "Envelope": envelope}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def write(path: Path, *records: bytes, compress: Callable[[bytes], bytes] = gzip.compress) -> Path:
    """Each record a member of its own."""
    path.write_bytes(b"".join(map(compress, records)))
    return path


def read(kind: str, path: Path) -> list[Found]:
    source = open_source(f"{kind}:{path}")
    [unit] = source.units()
    return list(source.read(unit))


def pairs(found: Iterable[Found]) -> list[tuple[str, str]]:
    return [(item.page_url, item.image_url) for item in found if isinstance(item, Candidate)]


def visits(found: Iterable[Found]) -> list[PageVisit]:
    return [item for item in found if isinstance(item, PageVisit)]


def stored(found: Iterable[Found]) -> list[StoredPicture]:
    return [item for item in found if isinstance(item, StoredPicture)]


def damage(found: Iterable[Found]) -> list[Damage]:
    return [item for item in found if isinstance(item, Damage)]
