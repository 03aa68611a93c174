"""The line to PostgreSQL is cut while a release is being committed: it is there wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.steps.pipeline import build
from tests.cut_proxy import Line, Moment, in_front_of
from tests.flows.small_crawl import config, content, list_of, serving_faces
from tests.flows.test_recrawl_e2e import InlineRunner
from tests.postgres_cluster import Cluster
from warehouse import publish, store

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def second_source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Faces that are not in `small_source`."""
    with serving_faces(first=100) as site:
        yield list_of(site, tmp_path_factory.mktemp("second"))


@pytest.fixture(scope="module")
def uncut(small_source: str, second_source: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both builds make of a root on disk, with nothing in their way."""
    root = tmp_path_factory.mktemp("uncut")
    for source in (small_source, second_source):
        build(config(source, root), InlineRunner())
    return content(root)


@pytest.fixture
def line(postgres_cluster: Cluster) -> Iterator[Line]:
    with in_front_of(postgres_cluster.port) as line:
        yield line


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new root, on disk and on an object store."""
    return str(tmp_path / "root") if request.param == "disk" else str(request.getfixturevalue("store_root"))


def cut_in(line: Line, moment: Moment, patch: pytest.MonkeyPatch) -> None:
    """Cut at the commit of the next release, which is written down just before."""
    record = publish._record

    def armed(*arguments: Any) -> None:
        record(*arguments)
        line.cut_at_commit(moment)

    patch.setattr(publish, "_record", armed)


def test_a_line_that_is_cut_at_the_commit_shows_no_half_release(
    place: str,
    postgres: str,
    line: Line,
    postgres_cluster: Cluster,
    small_source: str,
    second_source: str,
    uncut: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = postgres.replace(f":{postgres_cluster.port}/", f":{line.port}/")
    root = store.find_root(place)
    first, second = config(small_source, root, catalog=address), config(second_source, root)
    build(first, InlineRunner())
    before = content(root)

    moments: tuple[Moment, ...] = ("unsent", "unanswered")
    for moment in moments:
        with monkeypatch.context() as patch:
            cut_in(line, moment, patch)
            with pytest.raises(OSError, match=rf"lake under {place}: the connection to its catalogue .* broke") as told:
                build(second, InlineRunner())
        assert "\n" not in str(told.value)
        assert line.is_cut
        with pytest.raises(ValueError, match="cannot be reached"):
            build(second, InlineRunner())
        line.mend()
        now = content(root)
        if moment == "unsent":
            assert now == before
        else:  # the server had the word: all of the release is there, and only its shards are still to come
            assert now["index"] == before["index"]
            assert {**now, "index": uncut["index"]} == uncut

    done = build(second, InlineRunner())
    assert (done.release, done.is_new) == (2, False)
    assert content(root) == uncut
