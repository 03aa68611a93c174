"""HTTP answers as crawl files store them: status, headers, body without transfer and content encoding.

Crawlers store what a server sent, or what they made of it while keeping its headers: a body is chunked or compressed
only where it looks so, whatever the headers say.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from typing import Any

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MAX_HEADER_BYTES = 64 << 10
_STEP_BYTES = 4 << 10  # deflate gives back 1032 times as much at the worst
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<title", b"<!--")
_HTML_TYPES = ("text/html", "application/xhtml")
_UNTOLD_TYPES = ("", "application/octet-stream", "unknown/unknown", "application/unknown", "*/*")


@dataclass(frozen=True)
class Answer:
    """A stored answer; header names in lower case. `whole` is False where body or decoding broke off or was capped."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool

    def header(self, name: str) -> str:
        """The first value, "" where there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def is_html(self) -> bool:
        """By the header; by the body where no header tells."""
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind.startswith(_HTML_TYPES):
            return True
        start = self.body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n\f").lower()
        return kind in _UNTOLD_TYPES and start.startswith(_HTML_STARTS)


def parse_answer(block: bytes, max_body_bytes: int) -> Answer | None:
    """An HTTP answer, its body decoded up to `max_body_bytes`; None where `block` is none."""
    status = _STATUS.match(block)
    if status is None:
        return None
    ends = [(place, mark) for mark in (b"\r\n\r\n", b"\n\n") if (place := block.find(mark, 0, _MAX_HEADER_BYTES)) >= 0]
    if not ends:
        return None
    place, mark = min(ends)
    headers = _headers(block[:place])
    body = block[place + len(mark) :]
    named = dict(reversed(headers))
    whole = True
    length = named.get("content-length", "")
    if "chunked" in named.get("transfer-encoding", "").lower():
        body, whole = _unchunked(body)
    elif length.isdigit():
        whole = len(body) >= int(length)
    for coding in reversed(named.get("content-encoding", "").lower().split(",")):
        body, complete = _decoded(body, coding.strip(), max_body_bytes)
        whole = whole and complete
    capped = len(body) > max_body_bytes
    return Answer(int(status[1]), headers, body[:max_body_bytes], whole and not capped)


def _headers(block: bytes) -> tuple[tuple[str, str], ...]:
    """Names in lower case; a line that begins with white space goes on with the one before (RFC 9112, 5.2)."""
    found: list[tuple[str, str]] = []
    for line in block.decode("utf-8", "replace").splitlines()[1:]:
        if line[:1] in {" ", "\t"} and found:
            name, value = found[-1]
            found[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if colon and name.strip():
            found.append((name.strip().lower(), value.strip()))
    return tuple(found)


def _unchunked(body: bytes) -> tuple[bytes, bool]:
    """Chunks put together; the body as it is where it was stored without them; what there is of a broken one."""
    parts: list[bytes] = []
    place = 0
    while size := _CHUNK_SIZE.match(body, place):
        length = int(size[1], 16)
        if length == 0:
            return b"".join(parts), True
        start = size.end()
        parts.append(body[start : start + length])
        place = start + length
        if place > len(body):
            break
        place += 2 if body[place : place + 2] == b"\r\n" else 1 if body[place : place + 1] == b"\n" else 0
    return (b"".join(parts), False) if parts else (body, True)


def _decoded(body: bytes, coding: str, max_bytes: int) -> tuple[bytes, bool]:
    """(Plain body up to just over `max_bytes`, whole?); the body as it is where it is not of that coding."""
    if not body or coding in {"", "identity"}:
        return body, True
    if coding in {"gzip", "x-gzip"}:
        if not body.startswith(b"\x1f\x8b"):
            return body, True
        return _inflated(zlib.MAX_WBITS | 16, body, max_bytes)
    if coding == "deflate":
        for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
            plain, whole = _inflated(bits, body, max_bytes)
            if plain:
                return plain, whole
        return body, True
    if coding in {"br", "zstd"}:
        from fastwarc.stream_io import BrotliReader, ZstdReader

        reader = (BrotliReader if coding == "br" else ZstdReader)(io.BytesIO(body))
        plain, whole = _read(reader, max_bytes)
        return (plain, whole) if plain else (body, True)
    return body, False


def _inflated(bits: int, body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """In steps, so that what precedes damage is kept."""
    decoder = zlib.decompressobj(bits)
    parts: list[bytes] = []
    count = 0
    for start in range(0, len(body), _STEP_BYTES):
        try:
            part = decoder.decompress(body[start : start + _STEP_BYTES])
        except zlib.error:
            return b"".join(parts), False
        parts.append(part)
        count += len(part)
        if decoder.eof or count > max_bytes:
            break
    return b"".join(parts), decoder.eof and count <= max_bytes


def _read(reader: Any, max_bytes: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    count = 0
    while count <= max_bytes:
        try:
            part = reader.read(_STEP_BYTES)
        except OSError:
            return b"".join(parts), False
        if not part:
            return b"".join(parts), True
        parts.append(part)
        count += len(part)
    return b"".join(parts), False
