"""What pages and answers say about automated use: the grammar of their directives, as pure functions.

X-Robots-Tag and meta robots as search engines publish them (RFC 9309 leaves them open): comma-separated rules, names in
any case, the most restrictive wins, a user-agent prefix holds for the rules after it up to the next prefix. `noai` and
`noimageai` as DeviantArt defined them. `tdm-reservation` as header or meta: TDM Reservation Protocol, final report of
the W3C community group, 2024. What is unclear is read as refusal where it names a directive that refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from crawler.fetch import USER_AGENT_TOKEN

REFUSING = frozenset({"noai", "noimageai", "none", "noindex", "noimageindex"})

# Rules that say nothing about our use. Known by name, because only before a rule is `name:` a user-agent prefix.
_HARMLESS = frozenset(
    {"all", "index", "follow", "nofollow", "archive", "noarchive", "cache", "nocache", "snippet", "nosnippet"}
    | {"imageindex", "notranslate", "indexifembedded", "nositelinkssearchbox", "nopagereadaloud", "noodp", "noydir"}
)
_UNAVAILABLE_AFTER = frozenset({"unavailable_after", "unavailable-after"})
_PREVIEWS = frozenset({"max-snippet", "max-image-preview", "max-video-preview"})
_RULES = REFUSING | _HARMLESS | _UNAVAILABLE_AFTER | _PREVIEWS

_FIRST_NAME = re.compile(r"\s*([a-z_-]*)")
_PREVIEW_RULE = re.compile(rf"(?:{'|'.join(sorted(_PREVIEWS))})\s*(?::\s*)?[^\s;|:]*")
_BETWEEN_WORDS = re.compile(r"[\s;|]+")
_TOKEN = re.compile(r"[a-z_-]+")
_ZONE_NAME = re.compile(r"\s*[A-Z]{1,5}$")
_PAGE_LINE = re.compile(r"^(x-robots-tag|tdm-reservation|meta [^:]{1,64}):(.*)$")


def _is_prefix(name: str, rest: str) -> bool:
    """True where `name:` before `rest` names a user agent: what follows is a rule, and the name is none itself."""
    match = _FIRST_NAME.match(rest)
    return bool(name) and name not in _RULES and (not rest.strip() or (match is not None and match[1] in _RULES))


def _is_ours(agent: str, token: str) -> bool:
    """True where a prefix names everybody, or the product token `token` (with or without a version)."""
    match = _TOKEN.match(agent)
    return agent in {"*", "robots"} or (match is not None and match[0] == token)


def _segments(value: str, token: str) -> Iterator[str]:
    """What stands between the commas of `value`, in lower case and without prefix, where it holds for `token`."""
    applies = True
    for segment in value.lower().split(","):
        directive = segment.strip()
        name, colon, rest = directive.partition(":")
        if colon and _is_prefix(name.strip(), rest):
            applies = _is_ours(name.strip(), token)
            directive = rest.strip()
        if applies and directive:
            yield directive


def parse_date(text: str) -> datetime | None:
    """A date in RFC 822, RFC 850, asctime or ISO 8601 form, the time optional; UTC where no known zone is named."""
    text = text.strip().upper()
    for parse, form in (
        (datetime.fromisoformat, text),
        (parsedate_to_datetime, text),
        (parsedate_to_datetime, f"{text} 00:00:00"),
        (datetime.fromisoformat, _ZONE_NAME.sub("", text)),
    ):
        try:
            date = parse(form)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


def _has_passed(text: str, following: str, now: datetime) -> bool:
    """Dates of RFC 822 and 850 may hold a comma ("Friday, 25-Jun-10 15:00:00 GMT"): `following` is what comes after."""
    date = parse_date(text) or parse_date(f"{text}, {following}")
    try:
        return date is not None and date < now
    except OverflowError:  # a date at the end of the calendar, in another zone
        return False


def refusing_directive(value: str, now: datetime, token: str = USER_AGENT_TOKEN) -> str | None:
    """The first rule in an X-Robots-Tag or meta robots value that refuses `token`, or None."""
    segments = list(_segments(value, token))
    for index, segment in enumerate(segments):
        name, _, date = segment.partition(":")
        if name.strip() in _UNAVAILABLE_AFTER:
            if _has_passed(date, segments[index + 1] if index + 1 < len(segments) else "", now):
                return "unavailable_after"
            continue
        for word in _BETWEEN_WORDS.split(_PREVIEW_RULE.sub(" ", segment)):
            if word in REFUSING:
                return word
    return None


def reserves_tdm(value: str) -> bool:
    """True for a `tdm-reservation` value of 1 (rights reserved), also as one of several."""
    return any(part.strip(" \t\"'") == "1" for part in value.split(","))


def refused_by_headers(headers: Iterable[tuple[str, str]], now: datetime) -> str | None:
    """What in an answer's headers (lower-case names) refuses the picture: "name: directive", or None."""
    for name, value in headers:
        if name == "x-robots-tag":
            directive = refusing_directive(value, now)
            if directive is not None:
                return f"x-robots-tag: {directive}"
        elif name == "tdm-reservation" and reserves_tdm(value):
            return "tdm-reservation: 1"
    return None


def _line_directives(page_directives: str) -> Iterator[tuple[str, str]]:
    """(kind, value) of each line: x-robots-tag, meta robots or meta <our token>, tdm-reservation."""
    for line in page_directives.lower().splitlines():
        match = _PAGE_LINE.match(line.strip())
        if match:
            yield match[1].strip(), match[2].strip()


_ROBOTS_KINDS = frozenset({"x-robots-tag", "meta robots", f"meta {USER_AGENT_TOKEN}"})


def refused_by_page(page_directives: str, now: datetime) -> str | None:
    """What in a page's directives (PAIRS.page_directives, one "name: value" a line) refuses its pictures, or None."""
    for kind, value in _line_directives(page_directives):
        if kind in {"tdm-reservation", "meta tdm-reservation"}:
            if reserves_tdm(value):
                return "tdm-reservation: 1"
        elif kind in _ROBOTS_KINDS:
            directive = refusing_directive(value, now)
            if directive is not None:
                return f"{kind}: {directive}"
    return None


def forbids_following(page_directives: str) -> bool:
    """True where a page asks that its links not be followed (nofollow, none)."""
    return any(
        word in {"nofollow", "none"}
        for kind, value in _line_directives(page_directives)
        if kind in _ROBOTS_KINDS
        for segment in _segments(value, USER_AGENT_TOKEN)
        for word in _BETWEEN_WORDS.split(_PREVIEW_RULE.sub(" ", segment))
    )
