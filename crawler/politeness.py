"""The terms of politeness: what a host is asked under, and what its answers mean. The queues are in hostqueues."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from crawler.errors import InputError
from warehouse.schema import Reason

MAX_CRAWL_DELAY_S = 30.0


class Effect(Enum):
    """What an answer means for the host that gave it."""

    GOOD = auto()  # a picture, or "not modified"
    NEUTRAL = auto()  # any other answer
    REFUSAL = auto()  # an opt-out in the headers
    LIMITED = auto()  # "too many requests", or 503 with Retry-After
    SILENCE = auto()  # no answer, or none in time
    UNASKED = auto()  # the address was not asked after all


@dataclass(frozen=True)
class PolitenessConfig:
    """host_concurrency, host_delay_s: per host over all `processes` of the build, which share them.

    pause_s: where a host limits without saying for how long; doubled each time. pause_max_s: a host that asks for more
    is left for a later run. silence_limit: so many failures to answer in a row end the asking in this part.
    """

    host_concurrency: int = 8
    host_delay_s: float = 0.0
    processes: int = 1
    refusal_limit: int = 3
    pause_s: float = 2.0
    pause_max_s: float = 120.0
    limited_limit: int = 3
    silence_limit: int = 16

    def __post_init__(self) -> None:
        for name in ("host_concurrency", "processes", "refusal_limit", "limited_limit", "silence_limit"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("host_delay_s", "pause_s", "pause_max_s"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)}")

    @property
    def share(self) -> int:
        """Requests at a time to one host from this process."""
        return max(1, self.host_concurrency // self.processes)


@dataclass(eq=False, slots=True)
class Row:
    """One address on its way: where it began, where redirects have led it, and what it has spent."""

    position: int
    url_id: str
    url: str
    host: str
    left_s: float  # of the time that one attempt may take
    redirects: int = 0
    attempts: int = 0
    is_moved: bool = False  # the attempt goes on at another host


@dataclass(frozen=True)
class Closed:
    """A host that is not asked any more in this part, and why."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A row that the caller owns now: to be asked, or, with `closed`, to be ended without being asked."""

    row: Row
    closed: Closed | None = None
    asked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a host is judged by. `reason` and `detail` are those of the row where it was no good one."""

    effect: Effect
    reason: Reason | None = None
    detail: str = ""
    http_status: int | None = None
    retry_after_s: float | None = None
