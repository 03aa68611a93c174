"""What an answer means for its row: a picture, or a reason why not. Pure functions."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from crawler.fetch import Headers
from crawler.known import Known, validator
from crawler.rawshard import Outcome
from crawler.sniff import image_kind
from warehouse.schema import PASSING, Reason, Status

REFUSALS = frozenset(
    {
        Reason.ROBOTS_TXT,
        Reason.ROBOTS_UNREACHABLE,
        Reason.PAGE_OPTED_OUT,
        Reason.IMAGE_OPTED_OUT,
        Reason.TDM_RESERVED,
        Reason.HOST_OPTED_OUT,
        Reason.TAKEN_DOWN,
    }
)
_WHOLE_RANGE = re.compile(r"bytes 0-(\d+)/(\d+)")
_ERROR_CHARS = 300


def ended(reason: Reason, error: str, at: datetime, attempts: int, http_status: int | None = None) -> Outcome:
    """The outcome of an address that gave no picture."""
    status = Status.REFUSED if reason in REFUSALS else Status.FAILED
    return Outcome(status, reason, error[:_ERROR_CHARS], http_status, attempts, at)


def accumulated(outcome: Outcome, known: Known | None) -> Outcome:
    """`outcome` with the attempts of earlier runs; a known picture survives what may pass by itself."""
    if known is None or outcome.kept is not None:
        return outcome
    attempts = known.row["attempts"] + outcome.attempts
    if known.is_ok and outcome.reason in PASSING:
        return kept(known, attempts=attempts)
    return replace(outcome, attempts=attempts)


def kept(known: Known, **changes: object) -> Outcome:
    """The outcome of an address whose known row stays as it is, but for `changes`."""
    row = {**known.row, **changes}
    reason = Reason(row["reason"]) if row["reason"] else None
    status = Status(row["status"])
    return Outcome(status, reason, row["error"], row["http_status"], row["attempts"], row["fetched_at"], kept=row)


def judged(body: bytes, status: int, headers: Headers, at: datetime, attempts: int) -> tuple[Outcome, bytes | None]:
    """The outcome of a complete answer, with its bytes where it is a picture."""
    reason, error = _fault(body, status, headers)
    if reason is not None:
        return ended(reason, error, at, attempts, status), None
    kind = image_kind(body)
    if kind is None:
        return ended(Reason.NOT_AN_IMAGE, f"begins with {body[:12]!r}", at, attempts, status), None
    etag, modified = (validator(_value(headers, name)) for name in ("etag", "last-modified"))
    return Outcome(Status.OK, None, None, status, attempts, at, kind, etag=etag, last_modified=modified), body


def _fault(body: bytes, status: int, headers: Headers) -> tuple[Reason | None, str]:
    """Why an answer is no good before its bytes are looked at, or (None, "")."""
    said = f"HTTP {status}"
    if status == 429 or (status == 503 and _value(headers, "retry-after") is not None):
        return Reason.RATE_LIMITED, said
    if status >= 500:
        return Reason.HTTP_SERVER_ERROR, said
    if status // 100 != 2:
        return Reason.HTTP_CLIENT_ERROR, said
    if not body:
        return Reason.EMPTY_BODY, f"{said} without bytes"
    if status == 206 and not _is_whole(_value(headers, "content-range") or "", len(body)):
        return Reason.BROKEN_TRANSFER, f"{said}: a part that was not asked for"
    return None, ""


def _is_whole(content_range: str, size: int) -> bool:
    match = _WHOLE_RANGE.fullmatch(content_range.strip())
    return match is not None and int(match[1]) + 1 == int(match[2]) == size


def _value(headers: Headers, wanted: str) -> str | None:
    return next((value for name, value in headers if name == wanted), None)


def retry_after_s(headers: Headers, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); None where it says nothing."""
    text = (_value(headers, "retry-after") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
