"""How often a site may be asked: Crawl-delay, pauses that it asks for, and when to leave it alone.

Scrapy's throttle spaces requests by its delay and the answers' latency; what stands here comes on top.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_PAUSE_S = 300.0  # a host that wants more is left alone
DEFAULT_PAUSE_S = 30.0  # after a 429 without Retry-After
_MAX_PAUSES = 3
_MAX_FAILURES = 10  # in a row: the host has stopped answering
SPACING_S = 1.0  # after the first pause, however fast one's own site may be asked


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date), None where it says nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


class Pace:
    """When each authority (scheme://host[:port]) may be asked next. For one event loop."""

    def __init__(
        self,
        crawl_delay_s: Callable[[str], float | None],
        deadline: float = math.inf,
        slower_s: float = SPACING_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.closed: dict[str, str] = {}  # authority -> why it is not asked any more
        self._crawl_delay_s = crawl_delay_s
        self._deadline = deadline  # on `clock`
        self._slower_s = slower_s
        self._clock = clock
        self._sleep = sleep
        self._spacing: dict[str, float] = {}
        self._ready: dict[str, float] = {}
        self._resumes: dict[str, float] = {}
        self._pauses: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    async def turn(self, authority: str) -> bool:
        """Wait until `authority` may be asked; False where it is left alone."""
        if authority not in self._spacing:
            self._spacing[authority] = self._crawl_delay_s(authority) or 0.0
        ready = max(self._clock(), self._ready.get(authority, 0.0), self._resumes.get(authority, 0.0))
        self._ready[authority] = ready + self._spacing[authority]
        # A pause may begin while this one waits.
        while (wait := max(ready, self._resumes.get(authority, 0.0)) - self._clock()) > 0:
            if self._clock() + wait > self._deadline:
                self.closed.setdefault(
                    authority, f"{authority} may be asked again in {wait:.0f} s, after the time budget"
                )
            if authority in self.closed:
                return False
            await self._sleep(wait)
        return authority not in self.closed

    def pause(self, authority: str, seconds: float | None) -> None:
        """The host asked to come back later: wait as long as it says, and go on more slowly."""
        wanted = DEFAULT_PAUSE_S if seconds is None else seconds
        if self._resumes.get(authority, 0.0) <= self._clock():  # else answers of the same burst
            self._pauses[authority] += 1
        if wanted > MAX_PAUSE_S or self._pauses[authority] > _MAX_PAUSES:
            self.closed.setdefault(authority, f"{authority} asks to come back later (Retry-After {wanted:.0f} s)")
            return
        resumes = self._clock() + wanted
        self._resumes[authority] = max(resumes, self._resumes.get(authority, 0.0))
        self._spacing[authority] = max(self._spacing.get(authority, 0.0), self._slower_s)

    def answered(self, authority: str) -> None:
        self._failures[authority] = 0

    def failed(self, authority: str) -> None:
        """No answer, or that of a broken server."""
        self._failures[authority] += 1
        if self._failures[authority] >= _MAX_FAILURES:
            self.closed.setdefault(authority, f"{authority} has stopped answering")
