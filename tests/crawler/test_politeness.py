"""The order of asking: turns, bounds, pauses and ends per host, on a clock of its own."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crawler.errors import InputError
from crawler.hostqueues import HostQueues
from crawler.politeness import Effect, Grant, PolitenessConfig, Reply, Row
from crawler.refusals import HostRefusals
from warehouse.schema import Reason

GOOD, NEUTRAL, REFUSAL = Reply(Effect.GOOD), Reply(Effect.NEUTRAL), Reply(Effect.REFUSAL, detail="x-robots-tag: noai")
PART_S = 1000.0


class Line:
    """Host queues over rows named host/number, with a clock that only the test moves."""

    def __init__(self, tmp_path: Path, names: list[str], **changes: float) -> None:
        self.now = 100.0
        config = PolitenessConfig(**changes)  # type: ignore[arg-type]
        rows = [Row(i, name, f"http://{name}", name.split("/")[0], 30.0) for i, name in enumerate(names)]
        self.queues = HostQueues(
            rows, config, 100.0 + PART_S, lambda host: HostRefusals(tmp_path, host, config.refusal_limit), self.clock
        )

    def clock(self) -> float:
        return self.now

    def take(self) -> Grant:
        return self.queues.take()

    def answer(self, grant: Grant, reply: Reply) -> bool:
        return self.queues.answered(grant, reply, grant.row.url)

    def run(self, reply: Reply) -> Grant:
        grant = self.take()
        assert grant.closed is None, grant.closed
        self.answer(grant, reply)
        return grant

    def nothing_ready(self) -> bool:
        return self.queues.try_take() is None


def names(**hosts: int) -> list[str]:
    return [f"{host}/{i}" for host, count in hosts.items() for i in range(count)]


def test_hosts_take_turns_and_begin_one_at_a_time(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=5, b=5, c=5))
    grants = [line.take() for _ in range(3)]
    assert [grant.row.host for grant in grants] == ["a", "b", "c"]
    assert line.nothing_ready()


def test_a_good_answer_opens_the_host_up_to_its_share(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=20), host_concurrency=8, processes=2)
    line.run(GOOD)
    grants = [line.take() for _ in range(4)]
    assert {grant.row.host for grant in grants} == {"a"}
    assert line.nothing_ready()


@pytest.mark.parametrize(("concurrency", "processes", "share"), [(8, 2, 4), (8, 16, 1), (1, 1, 1), (7, 2, 3)])
def test_processes_share_a_host(concurrency: int, processes: int, share: int) -> None:
    assert PolitenessConfig(host_concurrency=concurrency, processes=processes).share == share


def test_refusals_in_a_row_end_the_host_and_no_other(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=6, b=2))
    asked = Counter[str]()
    closed = []
    for _ in range(8):
        grant = line.take()
        if grant.closed is not None:
            closed.append(grant)
            continue
        asked[grant.row.host] += 1
        line.answer(grant, REFUSAL if grant.row.host == "a" else GOOD)
    assert asked == {"a": 3, "b": 2}
    assert {(grant.row.host, grant.closed.reason) for grant in closed if grant.closed} == {("a", Reason.HOST_OPTED_OUT)}
    assert len(closed) == 3


def test_a_good_answer_ends_a_row_of_refusals(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=9))
    for reply in (REFUSAL, REFUSAL, GOOD, REFUSAL, NEUTRAL, REFUSAL, GOOD, GOOD):
        line.run(reply)
    assert line.take().closed is None


def test_an_open_host_is_asked_no_oftener_than_its_bound_when_it_turns(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=50), host_concurrency=5)
    line.run(GOOD)
    under_way = [line.take() for _ in range(5)]
    for grant in under_way:
        line.answer(grant, REFUSAL)
    grant = line.take()
    assert grant.closed is not None
    assert grant.closed.reason is Reason.HOST_OPTED_OUT


def test_workers_of_one_build_count_refusals_together(tmp_path: Path) -> None:
    lines = [Line(tmp_path, [f"a/{worker}{i}" for i in range(9)], refusal_limit=4) for worker in range(2)]
    under_way = [line.take() for line in lines]
    for line, grant in zip(lines, under_way, strict=True):
        line.answer(grant, REFUSAL)
    lines[0].run(REFUSAL)
    lines[1].run(REFUSAL)
    assert [line.take().closed is not None for line in lines] == [True, True]


def test_what_refused_is_remembered_after_a_crash(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=3))
    line.run(REFUSAL)
    line.run(GOOD)
    again = Line(tmp_path, names(a=3))
    grant = again.take()
    assert grant.closed is not None
    assert (grant.closed.reason, grant.row.url) == (Reason.IMAGE_OPTED_OUT, "http://a/0")
    assert "noai" in grant.closed.detail
    assert [again.run(GOOD).row.url for _ in range(2)] == ["http://a/1", "http://a/2"]


def test_half_a_line_of_a_crash_is_no_refusal(tmp_path: Path) -> None:
    refusals = HostRefusals(tmp_path, "a", 3)
    refusals.add("http://a/0", 200, "noai")
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b"r\tabc")
    again = HostRefusals(tmp_path, "a", 3)
    again.look()
    assert again.in_a_row == 1


def limited(retry_after_s: float | None) -> Reply:
    return Reply(Effect.LIMITED, Reason.RATE_LIMITED, "HTTP 429", 429, retry_after_s)


def test_a_host_that_wants_a_pause_gets_it_and_others_go_on(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=3, b=2))
    first = line.take()
    assert line.answer(first, limited(60.0))
    line.queues.again(first.row)
    assert [line.run(GOOD).row.host for _ in range(2)] == ["b", "b"]
    line.now += 59.9
    assert line.nothing_ready()
    line.now += 0.2
    assert line.take().row.host == "a"
    assert line.nothing_ready()  # one at a time after a pause


@pytest.mark.parametrize("pause_s", [121.0, 10.0**6])
def test_a_pause_too_long_leaves_the_host_to_a_later_run(tmp_path: Path, pause_s: float) -> None:
    line = Line(tmp_path, names(a=4))
    assert not line.answer(line.take(), limited(pause_s))
    reasons = [grant.closed.reason for grant in (line.take() for _ in range(3)) if grant.closed]
    assert reasons == [Reason.RATE_LIMITED] * 3


def test_a_host_that_limits_again_and_again_is_left(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=9), limited_limit=3)
    for pause_s in (2, 4, 8):  # without Retry-After the pause doubles
        line.run(limited(None))
        line.now += pause_s
    grant = line.take()
    assert grant.closed is not None
    assert grant.closed.reason is Reason.RATE_LIMITED


def test_several_limits_at_once_are_one(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=9), limited_limit=3)
    line.run(GOOD)
    for grant in [line.take() for _ in range(4)]:
        assert line.answer(grant, limited(5.0))
    line.now += 5.1
    assert line.take().closed is None


def test_crawl_delay_is_kept_over_all_processes(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=4), processes=2)
    line.queues.set_delay("a", 3.0)
    for _ in range(3):
        line.now += 5.9
        assert line.nothing_ready()
        line.now += 0.1
        line.run(GOOD)


def test_a_crawl_delay_beyond_reason_is_cut(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=2))
    line.queues.set_delay("a", 86_400.0)
    line.now += 30.0
    line.run(GOOD)


def test_a_dead_host_is_given_up(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=9), silence_limit=4)
    for _ in range(4):
        line.run(Reply(Effect.SILENCE, Reason.CONNECT, "refused"))
    grant = line.take()
    assert grant.closed is not None
    assert grant.closed.reason is Reason.CONNECT


def test_when_time_is_up_every_row_is_granted_its_end(tmp_path: Path) -> None:
    line = Line(tmp_path, names(a=3, b=2))
    line.answer(line.take(), limited(90.0))
    later = line.take()
    line.answer(later, NEUTRAL)
    line.queues.again(later.row, pause_s=50.0)
    line.now += PART_S
    ends = Counter((grant.row.host, grant.closed.reason) for grant in (line.take() for _ in range(4)) if grant.closed)
    assert ends == {("a", Reason.RATE_LIMITED): 2, ("b", Reason.TIMEOUT): 2}


@pytest.mark.parametrize("name", ["host_concurrency", "refusal_limit", "processes"])
def test_bounds_are_checked(name: str) -> None:
    with pytest.raises(InputError, match=name):
        PolitenessConfig(**{name: 0})


def test_threads_that_wait_are_woken(tmp_path: Path) -> None:
    config = PolitenessConfig(host_concurrency=1)
    rows = [Row(i, str(i), f"http://a/{i}", "a", 30.0) for i in range(200)]
    queues = HostQueues(rows, config, time.monotonic() + 30, lambda host: HostRefusals(tmp_path, host, 3))
    under_way, most = [0], [0]

    def work(_: int) -> int:
        grant = queues.take()
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        under_way[0] -= 1
        queues.answered(grant, GOOD, grant.row.url)
        return grant.row.position

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(work, range(200))) == list(range(200))
    assert most[0] == 1
