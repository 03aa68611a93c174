"""A small web and a lake built from it, shared by the tests of the flows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sample_web.server import SampleWeb

if TYPE_CHECKING:
    from tests.flows.test_recrawl_e2e import Site

IMAGES = 150
Gptface = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*words: object) -> list[str]:
    """The `gptface` command line as a list, whatever is on PATH."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *map(str, words)]


def build_command(url: str, root: Path) -> list[str]:
    """A build of the small web in several parts and shards, so that there is something to interrupt.

    Which three pictures of a host refuse first is a matter of time, so here all of them may.
    """
    options = ["--root", root, "--detector", "cascade", "--allow-private", "--page-delay-s", 0, "--part-urls", 30]
    options += ["--refusal-limit", 1000]
    return command("build", f"site:{url}", *options, "--samples-per-shard", 25)


@pytest.fixture(scope="session")
def gptface() -> Gptface:
    """Run `gptface WORDS` and return what it printed and its exit code."""

    def run(*words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
        return subprocess.run(
            command(*words), capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )

    return run


@pytest.fixture(scope="session")
def small_web() -> Iterator[SampleWeb]:
    with SampleWeb(images=IMAGES) as web:
        yield web


@pytest.fixture(scope="session")
def built_root(small_web: SampleWeb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that one undisturbed `gptface build` made."""
    root = tmp_path_factory.mktemp("built")
    done = subprocess.run(build_command(small_web.url, root), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="session")
def small_site() -> Iterator[Site]:
    """Two dozen faces that lists name."""
    from tests.flows.small_crawl import serving_faces

    with serving_faces() as site:
        yield site


@pytest.fixture(scope="session")
def small_source(small_site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.flows.small_crawl import list_of

    return list_of(small_site, tmp_path_factory.mktemp("list"))


@pytest.fixture(scope="session")
def undisturbed(small_source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that one build of `small_source` made, in this process and with nothing in its way."""
    from flows.steps.pipeline import build
    from tests.flows.small_crawl import config
    from tests.flows.test_recrawl_e2e import InlineRunner

    root = tmp_path_factory.mktemp("undisturbed")
    build(config(small_source, root), InlineRunner())
    return root
