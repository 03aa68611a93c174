"""Identities of rows and addresses: content, never position.

A re-run, another machine or another part size names the same things alike.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections.abc import Callable

_ID_BYTES = 16  # 128 bits: 1e-19 chance of one collision among 1e9 rows (birthday bound)
_ADDRESS = re.compile(r"https?://[^\s\"<>\\`]{1,8192}")
GONE_LINK = "https://taken-down.invalid"  # in captions, for an address that was taken down (.invalid: RFC 2606)
_MAY_END = re.compile(r"[',;|)\]}]")  # legal in an address, and usual behind one
_MAX_ENDS = 32  # looked at per address


def content_id(*parts: str) -> str:
    """32 hex digits of BLAKE2b over the UTF-8 parts, separated by NUL (which no URL holds)."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).hexdigest()


def row_id(page_url: str, image_url: str) -> str:
    """Identity of a pair: a picture on a page. Its captions are children, so better captions rename nothing."""
    return content_id(page_url, image_url)


def url_id(image_url: str) -> str:
    """Identity of an image address: the unit of consent and download, shared by all pages that show it."""
    return content_id(image_url)


def keyed_id(key: bytes, kind: str, text: str) -> str:
    """32 hex digits of HMAC-SHA256: says nothing about `text` to who does not hold `key`."""
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256").hex()[: 2 * _ID_BYTES]


def host_names(authority: str) -> tuple[str, ...]:
    """What a person may call the host of `scheme://name[:port]`: that itself, `name[:port]`, and `name`."""
    rest = authority.partition("://")[2] or authority
    name = rest.rpartition(":")[0] if rest.rpartition(":")[2].isdigit() and not rest.endswith("]") else rest
    return tuple(dict.fromkeys((authority, rest, name)))


def without_addresses(text: str, goes: Callable[[str], bool], by: str) -> str:
    """`text` with `by` in place of each address that `goes`; the same object where there is none."""
    if "://" not in text:
        return text
    pieces: list[str] = []
    done = start = 0
    while found := _ADDRESS.search(text, start):
        if length := _gone_length(found[0], goes):
            pieces += [text[done : found.start()], by]
            done = start = found.start() + length
        else:
            start = found.start() + 1  # addresses may hold others
    return "".join([*pieces, text[done:]]) if pieces else text


def _gone_length(found: str, goes: Callable[[str], bool]) -> int:
    """How much of what looks like an address is one that `goes` (text often runs on behind it); 0 if none."""
    ends = (mark.start() for mark in itertools.islice(_MAY_END.finditer(found), _MAX_ENDS))
    for end in (*ends, len(found)):
        while end:
            if goes(found[:end]):
                return end
            if found[end - 1].isalnum():
                break
            end -= 1
    return 0


def masked_look(key: bytes, nonce: str, phash: str) -> str:
    """A perceptual hash (16 hex digits) XORed with a pad of `key` and `nonce`; done twice it is the hash again."""
    pad = int(keyed_id(key, "look", nonce)[:16], 16)
    return f"{int(phash, 16) ^ pad:016x}"
