"""Names to addresses: cached, asked once, checked, and never waited for beyond the deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from crawler.address import AddressError, parse_address
from crawler.resolver import Resolver, ResolverConfig
from warehouse.schema import Reason

PUBLIC = "93.184.216.34"


class Names:
    """A name server with a clock: counts what it was asked, hangs until let go."""

    def __init__(self, **answers: list[str] | OSError) -> None:
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.now = 0.0
        self.open = threading.Event()
        self.open.set()

    def lookup(self, host: str) -> list[str]:
        self.asked[host] += 1
        self.open.wait(5)
        answer = self.answers[host.split(".")[0]]
        if isinstance(answer, OSError):
            raise answer
        return answer

    def resolver(self, **changes: int) -> Resolver:
        return Resolver(ResolverConfig(**changes), self.lookup, lambda: self.now)  # type: ignore[arg-type]


def ask(resolver: Resolver, host: str, within_s: float = 5.0) -> list[str]:
    return resolver.ips(parse_address(f"http://{host}/"), time.monotonic() + within_s)


def reason(resolver: Resolver, host: str, within_s: float = 5.0) -> Reason:
    with pytest.raises(AddressError) as caught:
        ask(resolver, host, within_s)
    return caught.value.reason


def test_answers_are_kept_for_their_time() -> None:
    names = Names(a=[PUBLIC])
    with names.resolver() as resolver:
        assert [ask(resolver, "a.example") for _ in range(3)] == [[PUBLIC]] * 3
        assert names.asked["a.example"] == 1
        names.now = 301.0
        ask(resolver, "a.example")
        assert names.asked["a.example"] == 2


@pytest.mark.parametrize(("errno", "kept_s"), [(socket.EAI_NONAME, 60), (socket.EAI_AGAIN, 5)])
def test_failures_are_kept_too_but_shorter(errno: int, kept_s: int) -> None:
    names = Names(a=socket.gaierror(errno, "no"))
    with names.resolver() as resolver:
        assert {reason(resolver, "a.example") for _ in range(3)} == {Reason.DNS}
        names.now = kept_s - 0.1
        reason(resolver, "a.example")
        assert names.asked["a.example"] == 1
        names.now, names.answers["a"] = kept_s + 0.1, [PUBLIC]
        assert ask(resolver, "a.example") == [PUBLIC]


def test_many_threads_ask_once() -> None:
    names = Names(a=[PUBLIC])
    names.open.clear()
    with names.resolver() as resolver, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, resolver, "a.example") for _ in range(8)]
        time.sleep(0.05)
        names.open.set()
        assert [answer.result() for answer in answers] == [[PUBLIC]] * 8
    assert names.asked == {"a.example": 1}


def test_nobody_waits_beyond_the_deadline_and_other_names_go_on() -> None:
    names = Names(slow=[PUBLIC], quick=["93.184.216.35"])
    with names.resolver() as resolver:
        names.open.clear()
        started = time.monotonic()
        assert reason(resolver, "slow.example", within_s=0.1) is Reason.DNS
        assert time.monotonic() - started < 1
        names.open.set()
        assert ask(resolver, "quick.example") == ["93.184.216.35"]
        assert ask(resolver, "slow.example") == [PUBLIC]


def test_every_answer_is_checked() -> None:
    names = Names(mixed=["127.0.0.1", PUBLIC, "169.254.169.254"], inside=["10.0.0.1"], empty=[])
    with names.resolver() as resolver:
        assert ask(resolver, "mixed.example") == [PUBLIC]
        assert reason(resolver, "inside.example") is Reason.PRIVATE_ADDRESS
        assert reason(resolver, "empty.example") is Reason.DNS
        assert reason(resolver, "127.0.0.1") is Reason.PRIVATE_ADDRESS
        assert reason(resolver, "[::ffff:169.254.169.254]") is Reason.PRIVATE_ADDRESS
        assert ask(resolver, PUBLIC) == [PUBLIC]
    assert set(names.asked) == {"mixed.example", "inside.example", "empty.example"}
    with Names().resolver(allow_private=True) as resolver:
        assert ask(resolver, "127.0.0.1") == ["127.0.0.1"]
        assert reason(resolver, "169.254.169.254") is Reason.PRIVATE_ADDRESS


def test_an_answer_that_changes_within_its_time_is_not_seen() -> None:
    """DNS rebinding: the second answer would be loopback, but the checked one is connected to."""
    names = Names(a=[PUBLIC])
    with names.resolver() as resolver:
        ask(resolver, "a.example")
        names.answers["a"] = ["127.0.0.1"]
        assert ask(resolver, "a.example") == [PUBLIC]
        names.now = 301.0
        assert reason(resolver, "a.example") is Reason.PRIVATE_ADDRESS


def test_the_cache_is_bounded() -> None:
    names = Names(a=[PUBLIC])
    with names.resolver(max_names=10) as resolver:
        for i in range(30):
            ask(resolver, f"a.example{i}")
        ask(resolver, "a.example29")
        ask(resolver, "a.example0")
    assert names.asked["a.example29"] == 1
    assert names.asked["a.example0"] == 2


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost"])
def test_other_spellings_of_loopback_are_loopback(host: str) -> None:
    with Resolver() as resolver:
        assert reason(resolver, host) is Reason.PRIVATE_ADDRESS
