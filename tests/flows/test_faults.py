"""What goes wrong with a build from outside: killed workers, damaged files, a second build, a clock that jumps.

Each test counts the rows before and after, and compares all of them with those of a build that nothing disturbed.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from flows.steps import pipeline, shard
from flows.steps.layout import Layout
from flows.steps.runner import LocalRunner, LogSink, WorkerDiedError, WorkerPool
from gptface_core.errors import InputError as CoreInput
from tests.flows.small_crawl import FACES, config, content, list_of, rows_of, serving_faces
from tests.flows.test_recrawl_e2e import InlineRunner, Site
from warehouse.errors import InputError

pytestmark = pytest.mark.e2e
T = TypeVar("T")


class HookedRunner(InlineRunner):
    """Calls `before` with the name of each step as it begins."""

    def __init__(self, before: Callable[[str], None]) -> None:
        self._before = before

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._before(name)
        return super().step(name, fn, *args, **kwargs)

    def map(self, name: str, fn: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        self._before(name)
        return super().map(name, fn, items)


# Killed workers.


def kill_workers() -> None:
    """SIGKILL to the worker processes that this one has started."""
    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()


class KillingSink(LogSink):
    """Kills the workers as soon as one part of `step` is done."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        if name == self._step and done == 1:
            kill_workers()


@pytest.mark.slow
def test_workers_killed_in_mid_download_and_in_mid_detection(
    small_site: Site, small_source: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = small_site.answer, []

    def kill_at_the_tenth(path: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        if path.endswith(".jpg") and sum(one.endswith(".jpg") for one in asked) == 10:
            kill_workers()
        return answer(path)

    monkeypatch.setattr(small_site, "answer", kill_at_the_tenth)
    for sink in (LogSink(), KillingSink("detect")):
        told = pytest.raises(WorkerDiedError, match="start the same command again to go on")
        with WorkerPool(1) as pool, told as caught:
            pipeline.build(config(small_source, tmp_path), LocalRunner(pool, sink))
        assert "\n" not in str(caught.value)
        assert set(rows_of(tmp_path).values()) == {0}
    assert any(tmp_path.glob("raw/*/g000/images/*_stats.json")), "nothing was finished before the second kill"
    pipeline.build(config(small_source, tmp_path), InlineRunner())
    assert content(tmp_path) == content(undisturbed)


# Damaged raw shards.


def flip(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[2000] ^= 255
    tar.write_bytes(data)


def truncate(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])


@pytest.mark.parametrize(("damage", "says"), [(flip, "is damaged"), (truncate, "is cut short")])
def test_a_damaged_raw_shard_of_a_release(
    small_source: str, undisturbed: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    root = tmp_path / "root"
    shutil.copytree(undisturbed, root)
    shutil.rmtree(root / "shards")
    before = rows_of(root)
    [_, tar, _] = tars = sorted(root.glob("raw/*/g000/images/*.tar"))
    whole = tar.read_bytes()
    damage(tar)
    others = {path: path.stat().st_mtime_ns for path in tars if path != tar}
    with pytest.raises(CoreInput, match=rf"00001\.tar {says} .*remove .*00001_stats\.json and run the build") as caught:
        shard.write_shards(Layout(root), 1, 6, InlineRunner())
    assert "\n" not in str(caught.value)
    (tar.parent / "00001_stats.json").unlink()  # as the message says
    pipeline.build(config(small_source, root), InlineRunner())
    assert tar.read_bytes() == whole
    assert {path: path.stat().st_mtime_ns for path in others} == others, "a whole shard was touched"
    assert rows_of(root) == before
    assert content(root) == content(undisturbed)


def test_a_raw_shard_damaged_before_its_faces_were_found(small_source: str, undisturbed: Path, tmp_path: Path) -> None:
    def damage(step: str) -> None:
        if step == "detect":
            flip(next(tmp_path.glob("raw/*/g000/images/00001.tar")))

    with pytest.raises(CoreInput, match=r"00001\.tar is damaged at picture"):
        pipeline.build(config(small_source, tmp_path), HookedRunner(damage))
    assert set(rows_of(tmp_path).values()) == {0}
    next(tmp_path.glob("raw/*/g000/images/00001_stats.json")).unlink()
    pipeline.build(config(small_source, tmp_path), InlineRunner())
    assert content(tmp_path) == content(undisturbed)


# Two builds on one root.


def test_of_two_builds_on_one_root_the_second_is_told_and_both_land(
    small_source: str, undisturbed: Path, tmp_path: Path
) -> None:
    refused: list[str] = []
    with serving_faces(first=FACES) as other_site:
        other = list_of(other_site, tmp_path)

        def build_the_other(step: str) -> None:
            if step in ("download", "publish"):
                with pytest.raises(InputError) as caught:
                    pipeline.build(config(other, tmp_path / "root"), InlineRunner())
                refused.append(str(caught.value))

        root = tmp_path / "root"
        pipeline.build(config(small_source, root), HookedRunner(build_the_other))
        assert len(refused) == 2
        assert all("is being written by process" in line and "wait for it to end" in line for line in refused)
        assert content(root) == content(undisturbed)
        first = content(root)["images"]
        assert pipeline.build(config(other, root), InlineRunner()).release == 2
    assert rows_of(root)["pairs"] == rows_of(root)["decisions"] == 2 * FACES
    assert set(first) < set(content(root)["images"])


# A clock that jumps.


def set_clock(patch: pytest.MonkeyPatch, ahead: dt.timedelta) -> None:
    """Let every module of ours read a time that is `ahead` of the real one. (They read no other clock than this.)"""

    class SameKind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, dt.datetime)

    class Shifted(dt.datetime, metaclass=SameKind):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.now(tz) + ahead

    module = types.SimpleNamespace(**{**vars(dt), "datetime": Shifted})
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] in ("crawler", "warehouse", "flows", "gptface_core"):
            for attribute in ("dt", "datetime"):
                found = getattr(loaded, attribute, None)
                if isinstance(found, types.ModuleType | types.SimpleNamespace):
                    patch.setattr(loaded, attribute, module)
                elif isinstance(found, type):
                    patch.setattr(loaded, attribute, Shifted)


def test_a_clock_that_jumps_before_every_step(
    small_source: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def jump(step: str) -> None:
        seen.append(step)
        set_clock(monkeypatch, dt.timedelta(days=(0, 400, -400)[len(seen) % 3]))

    pipeline.build(config(small_source, tmp_path), HookedRunner(jump))
    assert len(seen) > 8
    assert content(tmp_path) == content(undisturbed)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_build_that_goes_on_after_a_jump(
    small_source: str, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    class StopHereError(Exception):
        pass

    def stop(step: str) -> None:
        if step == "detect":
            raise StopHereError

    with pytest.raises(StopHereError):
        pipeline.build(config(small_source, tmp_path), HookedRunner(stop))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("raw/*/g000/images/*.tar")}
    set_clock(monkeypatch, dt.timedelta(days=days))
    pipeline.build(config(small_source, tmp_path), InlineRunner())
    assert content(tmp_path) == content(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "pictures were downloaded again"
