"""One row after another from the host queues to an outcome, in the threads of img2dataset's Downloader."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from urllib.parse import urlsplit

from crawler.address import AddressError, parse_address
from crawler.directives import refused_by_headers
from crawler.fetch import Answer, Fetcher, FetchError, Headers, Hooks
from crawler.hostqueues import HostQueues
from crawler.known import Known
from crawler.outcomes import accumulated, ended, judged, kept, retry_after_s
from crawler.politeness import Effect, Grant, Reply, Row
from crawler.rawshard import Outcome
from crawler.robots import RobotsGate
from warehouse.schema import Reason

logger = logging.getLogger(__name__)

# Asked again at once, after a pause. A timeout has had its time, and a name without address stays so for minutes.
# What a later run asks again is warehouse.schema.PASSING.
RETRIED_AT_ONCE = frozenset({Reason.CONNECT, Reason.HTTP_SERVER_ERROR, Reason.BROKEN_TRANSFER})
_SILENCES = frozenset({Reason.DNS, Reason.CONNECT, Reason.TIMEOUT})


def host_of(url: str) -> str:
    """What politeness takes for one host: the name, with a port that is not the scheme's own; "" for no address."""
    try:
        return parse_address(url).host_header
    except AddressError:
        return ""


class _ElsewhereError(Exception):
    """A redirect leads to another host, which has a queue of its own."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


@dataclass(frozen=True)
class _Turn:
    """What came of one grant: an outcome, with the bytes of a picture, or another address to go on with."""

    reply: Reply
    outcome: Outcome | None = None
    data: bytes | None = None
    moved_to: str | None = None


@dataclass(frozen=True)
class AskConfig:
    """`retries` at once, `backoff_s` doubling with each; no attempt begins after `deadline` (time.monotonic())."""

    retries: int
    backoff_s: float
    total_s: float
    max_redirects: int
    deadline: float


class Asking:
    """`next_ended` is img2dataset's fetch: it asks for whatever row the queues grant until one has an outcome."""

    def __init__(
        self,
        fetcher: Fetcher,
        gate: RobotsGate,
        queues: HostQueues,
        known: Mapping[str, Known],
        config: AskConfig,
        save: Callable[[str, Outcome], None],
    ) -> None:
        self._fetcher = fetcher
        self._gate = gate
        self._queues = queues
        self._known = known
        self._config = config
        self._save = save
        self._paced: set[str] = set()  # hosts whose Crawl-delay has been looked up

    def next_ended(self) -> tuple[int, BytesIO | None, str | None]:
        """(position, bytes, None) of a row that is a picture, else (position, None, reason)."""
        while True:
            grant = self._queues.take()
            result = self._ask(grant)
            if result is not None:
                outcome, data = result
                self._save(grant.row.url_id, accumulated(outcome, self._known.get(grant.row.url_id)))
                return (grant.row.position, None if data is None else BytesIO(data), None if data else "no picture")

    def _ask(self, grant: Grant) -> tuple[Outcome, bytes | None] | None:
        """Ask for a granted row; None where it has been put back."""
        row = grant.row
        if grant.closed is not None:
            return ended(grant.closed.reason, grant.closed.detail, datetime.now(UTC), row.attempts), None
        asked_url = [row.url]
        turn = self._turn(row, asked_url)
        is_open = self._queues.answered(grant, turn.reply, asked_url[0])
        if turn.moved_to is not None:
            row.url, row.host = turn.moved_to, host_of(turn.moved_to)
            self._queues.again(row)
            return None
        assert turn.outcome is not None
        pause_s = self._pause_s(row, turn, is_open)
        if pause_s is None:
            return turn.outcome, turn.data
        row.left_s = self._config.total_s
        self._queues.again(row, pause_s)
        return None

    def _pause_s(self, row: Row, turn: _Turn, is_open: bool) -> float | None:
        """Seconds until the next attempt, or None where there is none. What a rate limit asks for, the queues know."""
        reason = turn.reply.reason
        if row.attempts > self._config.retries or turn.reply.effect is Effect.UNASKED or not is_open:
            return None
        if reason is Reason.RATE_LIMITED:
            return 0.0
        pause_s: float = self._config.backoff_s * 2 ** (row.attempts - 1)
        if reason not in RETRIED_AT_ONCE or time.monotonic() + pause_s > self._config.deadline:
            return None
        return pause_s

    def _turn(self, row: Row, asked_url: list[str]) -> _Turn:
        """One attempt, or the rest of one after a redirect. Never raises. `asked_url` follows the redirects."""
        now, started = datetime.now(UTC), time.monotonic()
        refused = self._refused(row, now)
        if refused is not None:
            return refused
        row.attempts += not row.is_moved
        row.is_moved = False
        known = self._known.get(row.url_id)
        try:
            hooks = Hooks(hop=self._hop_check(row, asked_url), headers=_refuse_by_headers)
            until = min(self._config.deadline, started + row.left_s)
            answer = self._fetcher.get(row.url, hooks, until, known.validators if known is not None else ())
        except _ElsewhereError as elsewhere:
            row.is_moved = True
            row.left_s -= time.monotonic() - started
            return _Turn(Reply(Effect.NEUTRAL), moved_to=elsewhere.url)
        except FetchError as error:
            effect = Effect.REFUSAL if error.reason is Reason.IMAGE_OPTED_OUT else Effect.NEUTRAL
            effect = Effect.SILENCE if error.reason in _SILENCES else effect
            reply = Reply(effect, error.reason, error.detail, error.http_status)
            return _Turn(reply, ended(error.reason, error.detail, now, row.attempts, error.http_status))
        except Exception as error:  # the row boundary: one bad row must not end the part
            logger.exception("unexpected error at %s", row.url)
            detail = f"{type(error).__name__}: {error}"
            reply = Reply(Effect.NEUTRAL, Reason.INTERNAL_ERROR)
            return _Turn(reply, ended(Reason.INTERNAL_ERROR, detail, now, row.attempts))
        return self._answered(row, answer, known, now)

    def _answered(self, row: Row, answer: Answer, known: Known | None, now: datetime) -> _Turn:
        if answer.status == 304 and known is not None and known.validators:
            attempts = known.row["attempts"] + row.attempts
            return _Turn(Reply(Effect.GOOD), kept(known, fetched_at=now, attempts=attempts))
        outcome, data = judged(answer.body, answer.status, answer.headers, now, row.attempts)
        if data is not None and (row.redirects or answer.url != row.url):
            outcome = replace(outcome, final_url=answer.url)
        reason = outcome.reason
        effect = Effect.GOOD if data is not None else Effect.NEUTRAL
        effect = Effect.LIMITED if reason is Reason.RATE_LIMITED else effect
        pause_s = retry_after_s(answer.headers, now) if effect is Effect.LIMITED else None
        reply = Reply(effect, reason, outcome.error or "", answer.status, pause_s)
        return _Turn(reply, outcome, data)

    def _refused(self, row: Row, now: datetime) -> _Turn | None:
        """Consent is looked at again before each request; a host's Crawl-delay is learnt from the same record."""
        try:
            verdict = self._gate.verdict(row.url)
            if verdict.allowed:
                self._pace(row)
                return None
        except Exception as error:  # the row boundary
            logger.exception("unexpected error at the rules for %s", row.url)
            detail = f"{type(error).__name__}: {error}"
            return _Turn(Reply(Effect.UNASKED), ended(Reason.INTERNAL_ERROR, detail, now, row.attempts))
        said = f"redirect to {row.url[:200]}: {verdict.evidence}" if row.redirects else verdict.evidence
        reason = verdict.reason or Reason.ROBOTS_TXT
        return _Turn(Reply(Effect.UNASKED), ended(reason, said, now, row.attempts))

    def _pace(self, row: Row) -> None:
        if row.host not in self._paced:
            self._paced.add(row.host)
            delay_s = self._gate.crawl_delay_s(parse_address(row.url).authority)
            if delay_s:
                self._queues.set_delay(row.host, delay_s)

    def _hop_check(self, row: Row, asked_url: list[str]) -> Callable[[str], None]:
        """Redirects obey the rules of whatever host they lead to, and another host has a queue of its own."""

        def check(target: str) -> None:
            row.redirects += 1
            if row.redirects > self._config.max_redirects:
                raise FetchError(Reason.TOO_MANY_REDIRECTS, f"over {self._config.max_redirects} redirects")
            if urlsplit(target).scheme in {"http", "https"} and host_of(target) not in {"", row.host}:
                raise _ElsewhereError(target)
            verdict = self._gate.verdict(target)
            if not verdict.allowed:
                raise FetchError(verdict.reason or Reason.ROBOTS_TXT, f"redirect to {target[:200]}: {verdict.evidence}")
            said = self._queues.refusal(row.host, target)
            if said is not None:  # no answer of the host: it counts for nothing but this row
                raise FetchError(Reason.HOST_OPTED_OUT, f"redirect to {target[:200]}, which refused before: {said}")
            asked_url[0] = target

        return check


def _refuse_by_headers(_url: str, status: int, headers: Headers) -> None:
    """An opt-out in the headers ends the request before the body is read."""
    refusal = refused_by_headers(headers, datetime.now(UTC))
    if refusal is not None:
        raise FetchError(Reason.IMAGE_OPTED_OUT, refusal, status)
