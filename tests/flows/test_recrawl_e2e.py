"""A site that changes between builds: what is asked again, what is not, and what the releases say about it."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image
from typer.testing import CliRunner

import warehouse
from flows.cli.app import app
from flows.steps.config import BuildConfig
from flows.steps.pipeline import BuildSummary, build
from sample_web.render import render_face, sample_attributes
from warehouse.diff import diff

pytestmark = pytest.mark.e2e
A, T = TypeVar("A"), TypeVar("T")
AT_ONCE = 1e-9  # days after which a picture is asked for again: all of them


class InlineRunner:
    """All steps here: no worker has to be started for a dozen pictures."""

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return fn(*args, **kwargs)

    def map(self, name: str, fn: Callable[[A], T], items: Sequence[A]) -> list[T]:
        return [fn(item) for item in items]

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        pass


@dataclass
class Site:
    """Pages and pictures by path; `asked` holds (path, whether it was asked conditionally, status) in order."""

    url: str = ""
    pages: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> picture -> alt text
    pictures: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, bool, int]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path in self.pages:
            shown = "".join(f'<img src="/{name}.jpg" alt="{alt}">' for name, alt in self.pages[path].items())
            links = "".join(f'<a href="{other}">more</a>' for other in self.pages) if path == "/" else ""
            return (
                200,
                {"Content-Type": "text/html; charset=utf-8"},
                f"<html><body>{shown}{links}</body></html>".encode(),
            )
        name = path.strip("/").removesuffix(".jpg")
        return self.pictures.get(name, (404, {"Content-Type": "text/plain"}, b"nothing here"))

    def put(self, name: str, face: int, status: int = 200, **headers: str) -> None:
        out = io.BytesIO()
        Image.fromarray(render_face(sample_attributes(face, 0), face)).save(out, "JPEG", quality=92)
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        self.pictures[name] = (status, {"Content-Type": "image/jpeg", **names}, out.getvalue())

    def requests(self, name: str) -> list[tuple[bool, int]]:
        """(asked conditionally, status) of each request for a picture since `forget`."""
        return [(conditional, status) for path, conditional, status in self.asked if path == f"/{name}.jpg"]


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = site.answer(self.path)
            etag = f'"{hash(body):x}"'
            wanted = self.headers.get("If-None-Match")
            if status == 200 and wanted == etag and "X-Robots-Tag" not in headers:
                status, body = 304, b""
            site.asked.append((self.path, wanted is not None, status))
            self.send_response(status)
            for name, value in {**headers, "ETag": etag, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    caption = "A smiling woman with brown hair"
    pages = {
        "/": ["home"],
        "/moving.html": ["stays", "leaves", "told"],
        "/quiet.html": ["same", "rots", "turns", "flaky", "opted_out", "withdrawn"],
        "/going.html": ["orphan"],
    }
    with serving(Site(pages={path: dict.fromkeys(names, caption) for path, names in pages.items()})) as site:
        for face, name in enumerate(name for names in pages.values() for name in names):
            site.put(name, face)
        site.put("flaky", 40, 500)
        site.put("opted_out", 41, X_Robots_Tag="noai")
        yield site


def run(site: Site, root: Path, **settings: Any) -> BuildSummary:
    site.asked.clear()
    quick: dict[str, Any] = {"detector": "cascade", "allow_private": True, "page_delay_s": 0.0, "retries": 0}
    return build(BuildConfig(f"site:{site.url}/", str(root), **quick, **settings), InlineRunner())


def change(site: Site) -> None:
    moving = site.pages["/moving.html"]
    del moving["leaves"], site.pages["/going.html"]
    moving["told"] = "An older man with glasses and a beard"
    moving["fresh"] = "A young man with short black hair"
    site.put("fresh", 50)
    del site.pictures["rots"]
    site.put("turns", 51)
    site.put("flaky", 40)
    site.put("withdrawn", 52, X_Robots_Tag="noai")


def names(root: Path, kind: str) -> set[str]:
    from warehouse.diff import write_diff

    stream = io.StringIO()
    write_diff(root, 1, 2, kind, "csv", stream)
    lines = stream.getvalue().splitlines()
    column = lines[0].split(",").index("image_url")
    return {line.split(",")[column].rsplit("/", 1)[1].removesuffix(".jpg") for line in lines[1:]}


def test_a_site_that_changes_between_builds(site: Site, tmp_path: Path) -> None:
    first = run(site, tmp_path)
    assert (first.release, first.pairs) == (1, 11)
    assert site.requests("opted_out") == [(False, 200)]

    change(site)
    second = run(site, tmp_path, refresh=True, recheck_days=AT_ONCE)
    assert (second.release, second.is_new) == (2, True)
    assert names(tmp_path, "new_pairs") == {"fresh"}
    assert names(tmp_path, "gone_pairs") == {"leaves", "orphan"}
    assert names(tmp_path, "link_rot") == {"rots"}
    assert names(tmp_path, "changed_bytes") == {"turns"}
    assert names(tmp_path, "withdrawn_consent") == {"withdrawn"}
    assert names(tmp_path, "regained") == {"flaky"}
    assert names(tmp_path, "changed_captions") == {"told"}
    told = CliRunner().invoke(app, ["diff", "1", "2", "--root", str(tmp_path), "--format", "json"])
    assert json.loads(told.stdout)["counts"]["link_rot"] == 1
    shown = CliRunner().invoke(app, ["diff", "1", "2", "--root", str(tmp_path), "--list", "withdrawn_consent"])
    assert "image_opted_out" in shown.stdout
    assert site.requests("opted_out") == [], "an address that refused was asked again"
    assert site.requests("same") == [(True, 304)]
    assert site.requests("fresh") == [(False, 200)]
    assert ("/quiet.html", True, 304) in site.asked

    third = run(site, tmp_path, refresh=True)
    assert (third.release, third.is_new) == (2, False)
    pictures = [path for path, _, _ in site.asked if path.endswith(".jpg")]
    assert pictures == [], "a quiet night asks for no picture"
    with contextlib.closing(warehouse.connect(tmp_path)) as con:
        units = con.execute("SELECT count(*), count(DISTINCT crawl) FROM sources").fetchone()
    assert units == (3, 3)


def test_a_host_that_is_down_for_a_night_undoes_nothing(site: Site, tmp_path: Path) -> None:
    first = run(site, tmp_path)
    for name in list(site.pictures):
        site.put(name, 60, 503)
    second = run(site, tmp_path, refresh=True, recheck_days=AT_ONCE)
    assert (second.release, second.is_new, second.kept) == (1, False, first.kept)
    assert site.requests("same")[0] == (True, 503)
    with contextlib.closing(warehouse.connect(tmp_path)) as con:
        flaky = con.execute("SELECT attempts FROM images WHERE image_url LIKE '%/flaky.jpg'").fetchone()
    assert flaky == (2,)
    with pytest.raises(ValueError, match="no release 2"):
        diff(tmp_path, 1, 2)
