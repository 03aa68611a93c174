"""How bench.soak judges: a leak is told from a plateau, and a lock, a file left over or a descriptor is seen."""

from __future__ import annotations

import dataclasses
import math
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench._soak_state import Growth, State, growth, is_locked, judge, leftovers, observe

CALM = State(5.0, 100.0, 200.0, 3, 17, 0, 7, False, [], 300, 90)


def _states(count: int, **curves: Callable[[int], Any]) -> list[State]:
    """`curves`: a function of the build's number each."""
    made = []
    for build in range(count):
        changed = {name: curve(build) for name, curve in curves.items()}
        made.append(dataclasses.replace(CALM, **changed))
    return made


def _noise(build: int) -> float:
    return 3.0 * math.sin(7.3 * build)  # MiB


def test_a_steady_loss_is_growth_and_a_plateau_is_none() -> None:
    leaking = judge(_states(60, rss_mib=lambda b: 100 + 0.3 * b + _noise(b)))
    assert leaking["grew"] == ["rss_mib"] and not leaking["ok"]
    assert leaking["rss_slope_mib_per_build"] == pytest.approx(0.3, abs=0.1)
    plateau = judge(_states(60, rss_mib=lambda b: 150 - 50 * math.exp(-b / 5) + _noise(b)))
    assert plateau["ok"], plateau
    assert abs(plateau["rss_slope_mib_per_build"]) < 0.1


def test_one_build_that_holds_more_does_not_move_the_slope() -> None:
    assert growth([100.0] * 20 + [900.0] + [100.0] * 19).slope == 0
    assert growth([100.0] * 35 + [120.0] * 5) == Growth(100.0, 120.0, 0.0), "a step that few pairs span"


def test_descriptors_count_one_by_one() -> None:
    told = judge(_states(40, fds=lambda b: 17 + b // 10))
    assert told["grew"] == ["fds"] and (told["fds_start"], told["fds_end"]) == (18, 20)
    assert judge(_states(40, sockets=lambda b: b % 3))["ok"]
    assert judge(_states(24, threads=lambda b: 7 + (b >= 17)))["ok"], "a library's thread that started late"


def test_a_single_lock_or_leftover_file_fails() -> None:
    assert judge(_states(40))["ok"]
    locked = judge(_states(40, locked=lambda b: b == 3))
    assert locked["locks_held"] == 1 and not locked["ok"]
    left = judge(_states(40, leftovers=lambda b: ["a.tmp"] if b > 30 else []))
    assert left["leftovers"] == 1 and not left["ok"]


def test_a_lock_of_this_process_is_seen(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalog.sqlite"
    con = sqlite3.connect(catalogue, isolation_level=None)
    con.execute("CREATE TABLE t (x)")
    assert not is_locked(catalogue)
    con.execute("BEGIN IMMEDIATE")
    assert is_locked(catalogue)
    con.execute("ROLLBACK")
    con.close()
    assert not is_locked(catalogue)


def test_what_lies_about_is_found_and_what_belongs_is_not(tmp_path: Path) -> None:
    root, temporary = tmp_path / "root", tmp_path / "tmp"
    for folder in (root / "lake" / "tmp", root / "shards", temporary):
        folder.mkdir(parents=True)
    for name in ("lake/catalog.sqlite", "shards/.train-0.tar.note", "shards/train-0.tar"):
        (root / name).touch()
    assert leftovers(root, temporary) == []
    wrong = [root / "lake/catalog.sqlite-journal", root / "shards/.x.tar.12.part", root / "plan.json.tmp"]
    wrong += [root / "lake/tmp/spilled", temporary / "gptface-site-1"]
    for path in wrong:
        path.touch()
    assert sorted(leftovers(root, temporary)) == sorted(map(str, wrong))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc, which only Linux has")
def test_an_open_file_and_a_socket_are_seen(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    before = observe(tmp_path, tmp_path / "lake", 1.0)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with socket.socket():
        after = observe(tmp_path, tmp_path / "lake", 1.0)
    os.close(descriptor)
    assert (after.fds, after.sockets) == (before.fds + 1, before.sockets + 1)
    assert after.rss_mib > 1
