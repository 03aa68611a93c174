"""/.well-known/tdmrep.json: what a host reserves under the TDM Reservation Protocol, as pure functions.

Source: TDM Reservation Protocol (TDMRep), final report of the W3C community group, 2024, "TDM File on the Origin
Server": an array of rules, each with a `location` (a path pattern as in robots.txt), `tdm-reservation` 0 or 1, and
optionally `tdm-policy`. The first rule whose location matches counts; where none does, nothing is reserved.

We read it in the owner's favour where the intent is plain: one rule without the array, "1" or true for 1, an absolute
address of the same host for a path, a comma too many. A rule that cannot be read is passed over, and the rest of the
file counts; of a file that breaks off, what comes before the break.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

TDMREP_PATH: Final = "/.well-known/tdmrep.json"
MAX_RULES: Final = 10_000
MAX_LOCATION_CHARS: Final = 2048

_ESCAPE = re.compile("%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED: Final = "%:/?#[]@!&'()+,;="  # without "*" and "$", which have a meaning in patterns


def normalised_path(path: str) -> str:
    """`path` for comparison: unreserved characters plain, all others percent-encoded, escapes in upper case.

    "*" and "$" become escapes, so that a pattern's `%24` matches a "$" in an address (RFC 9309 2.2.3).
    """

    def unescaped(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else f"%{match[1].upper()}"

    return quote(_ESCAPE.sub(unescaped, path), safe=_RESERVED, errors="replace")


@dataclass(frozen=True)
class TdmRule:
    """One rule. `pieces` are the normalised parts of the location between its "*"; `is_whole`: it ended with "$"."""

    location: str
    reserved: bool
    policy: str
    pieces: tuple[str, ...]
    is_whole: bool

    def matches(self, path: str) -> bool:
        """True where the location matches `path` (normalised path and query) from its beginning; linear in time."""
        first, *rest = self.pieces
        if not path.startswith(first):
            return False
        if not rest:
            return not self.is_whole or path == first
        at = len(first)
        for piece in rest[:-1] if self.is_whole else rest:
            found = path.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return not self.is_whole or (len(path) - len(rest[-1]) >= at and path.endswith(rest[-1]))


@dataclass(frozen=True)
class TdmFile:
    """The rules of one file in its order. `note` says what of it could not be read, "" where all could."""

    rules: tuple[TdmRule, ...] = ()
    note: str = ""

    @property
    def reserves(self) -> bool:
        """True where any rule reserves anything."""
        return any(rule.reserved for rule in self.rules)

    def reservation(self, path: str) -> TdmRule | None:
        """The rule that reserves `path` (path and query, as requested), or None."""
        if not self.reserves:
            return None
        path = normalised_path(path)
        rule = next((rule for rule in self.rules if rule.matches(path)), None)
        return rule if rule is not None and rule.reserved else None


def parse_tdmrep(text: str, host: str = "") -> TdmFile:
    """Read the file of `host` (scheme://authority); whatever it holds, this gives a TdmFile and never raises."""
    text = text.removeprefix("\ufeff").strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        rules = [rule for item in _whole_objects(text) if (rule := _rule(item, host)) is not None]
        return TdmFile(tuple(rules), f"not JSON, but for {len(rules)} rules" if rules else "not JSON")
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return TdmFile(note="not an array of rules")
    rules = [rule for item in content[:MAX_RULES] if (rule := _rule(item, host)) is not None]
    unread = len(content) - len(rules)
    return TdmFile(tuple(rules), f"{unread} of {len(content)} rules not readable" if unread else "")


def _whole_objects(text: str) -> Iterator[Any]:
    """The objects in a broken array up to where it breaks: a comma too many, a file that was cut."""
    decoder = json.JSONDecoder()
    at = text.find("{") if text.startswith(("[", "{")) else -1
    for _ in range(MAX_RULES):
        if at < 0:
            return
        try:
            item, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield item
        at = text.find("{", end)


def _rule(item: Any, host: str) -> TdmRule | None:
    if not isinstance(item, dict):
        return None
    location, policy = item.get("location"), item.get("tdm-policy")
    reserved = _reservation(item.get("tdm-reservation"))
    if not isinstance(location, str) or len(location) > MAX_LOCATION_CHARS or reserved is None:
        return None
    pattern = _path_pattern(location.strip(), host)
    if pattern is None:
        return None
    is_whole = pattern.endswith("$")
    pieces = tuple(map(normalised_path, pattern.removesuffix("$").split("*")))
    shown = policy[:200] if isinstance(policy, str) else ""
    return TdmRule(location.strip()[:200], reserved, "".join(filter(str.isprintable, shown)), pieces, is_whole)


def _reservation(value: Any) -> bool | None:
    """True for 1, False for 0 (also as text or boolean), None for anything else: a protocol error."""
    if isinstance(value, str):
        value = value.strip()
        return {"1": True, "0": False}.get(value)
    if isinstance(value, (bool, int, float)) and value in {0, 1}:
        return bool(value)
    return None


def _path_pattern(location: str, host: str) -> str | None:
    """A location as pattern of paths: an absolute address of `host` loses scheme and host, of another is no rule."""
    if location.lower().startswith(("http://", "https://")):
        own = host.partition("://")[2].lower()
        authority, slash, path = location.partition("://")[2].partition("/")
        return f"/{path}" if slash and authority.lower() == own else "/" if authority.lower() == own else None
    if not location:
        return None
    return location if location.startswith(("/", "*")) else f"/{location}"
