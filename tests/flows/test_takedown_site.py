"""Takedowns from a small site: captions that name an address, cropped copies, cards, and what was shown beforehand."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import warehouse
from flows.cli.app import app
from flows.steps.card import write_card
from flows.steps.rebuild import rebuild
from flows.steps.rebuild_crawl import RebuildConfig
from flows.steps.report import write_report
from flows.steps.takedown import TakedownConfig, plan, take_down
from tests.flows.takedown_root import chunks_of, residue
from tests.flows.test_recrawl_e2e import InlineRunner, Site, run, serving
from warehouse import captions
from warehouse.report.card import Naming
from warehouse.shards import file_sha256

pytestmark = pytest.mark.e2e
CAPTION = "A smiling woman with brown hair"


@pytest.fixture(scope="module")
def pictured() -> Iterator[Site]:
    """Four pictures; the captions of two name the address of the first, one of them in a way that older versions took
    for no link."""
    with serving(Site()) as site:
        gone = f"{site.url}/gone.jpg"
        texts = {"gone": CAPTION, "named": f"A man with a beard, {gone}, smiling", "glued": f"{CAPTION}{gone} today"}
        site.pages["/"] = {**texts, "other": "A young woman with glasses"}
        for face, name in zip((2, 4, 5, 1), site.pages["/"], strict=True):
            site.put(name, face)
        yield site


@pytest.fixture
def site(pictured: Site) -> Iterator[Site]:
    """Whatever a test does to the site is undone."""
    pages, pictures = {path: dict(shown) for path, shown in pictured.pages.items()}, dict(pictured.pictures)
    yield pictured
    pictured.pages, pictured.pictures = pages, pictures


@pytest.fixture(scope="module")
def built(pictured: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release made by a version that left links in captions where a letter stood before them. Copy it."""
    root = tmp_path_factory.mktemp("built") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "_LINK", captions._LINK.replace("(?:https?://|\\bwww", "\\b(?:https?://|www"))
        assert run(pictured, root).kept == 4
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "root"))


def do(root: Path, **what: Any) -> None:
    take_down(TakedownConfig(str(root), **what), InlineRunner())


def kept(root: Path, at: int | None = None) -> dict[str, str]:
    """Captions of the corpus by the name of their picture."""
    with contextlib.closing(warehouse.connect(root, at=at)) as con:
        rows = con.execute("SELECT image_url, caption FROM corpus ORDER BY image_url").fetchall()
    return {url.rpartition("/")[2].removesuffix(".jpg"): caption for url, caption in rows}


def cropped(jpeg: bytes, share: float = 0.05) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as picture:
        x, y = round(picture.width * share), round(picture.height * share)
        picture.crop((x, y, picture.width - x, picture.height - y)).save(out, "JPEG", quality=92)
    return out.getvalue()


def put(site: Site, name: str, jpeg: bytes) -> None:
    site.pictures[name] = (200, {"Content-Type": "image/jpeg"}, jpeg)
    site.pages["/"][name] = CAPTION


def test_an_address_goes_from_captions_and_what_was_chosen_from_them_stays(root: Path, site: Site) -> None:
    url = f"{site.url}/gone.jpg"
    before = kept(root)
    assert url in before["glued"] and before["named"] == "A man with a beard, smiling"
    places = {Path(name).name.partition(".")[2] for name in residue(root, [url.encode()])}
    assert places >= {"captions.parquet", "tar"}, "it must be found beforehand"
    do(root, urls=(url,))
    assert residue(root, [url.encode()]) == {}
    assert kept(root, 1) == {name: before[name] for name in ("named", "other")}, "a kept caption takes its sample along"
    assert not run(site, root).is_new, "what was cleared in the lake and in the crawl is no news"
    site.put("fresh", 6)
    site.pages["/"]["fresh"] = "An older man with a hat"  # so that the page is read again
    summary = run(site, root, refresh=True)
    assert residue(root, [url.encode()]) == {}, "the page still names it"
    left = {**before, "glued": f"{CAPTION} today", "fresh": "An older man with a hat"}
    assert kept(root) == {name: left[name] for name in ("fresh", "glued", "named", "other")}
    assert summary.release == 2


def test_pages_and_card_say_what_is_left(root: Path, site: Site) -> None:
    naming = Naming("my-faces", "https://example.org/faces", "takedown@example.org")
    card = write_card(root, naming)
    pages = [write_report(root), write_report(root, at=1)]
    (root / "reports/faces.png").write_bytes(b"pixels")
    old = {path: path.read_bytes() for path in (*pages, *card.iterdir())}
    do(root, urls=(f"{site.url}/other.jpg",))
    assert not (root / "reports/faces.png").exists()
    assert all(path.read_bytes() != before for path, before in old.items())
    told = json.loads((card / "croissant.json").read_text("utf-8"))
    assert (told["name"], told["url"], told["creator"]["name"]) == dataclasses.astuple(naming)
    listed = {file["name"]: file["sha256"] for file in told["distribution"] if "sha256" in file}
    assert listed.keys() >= {"manifest.parquet"} and len(listed) > 1
    assert listed == {name: file_sha256(root / "shards/r00001" / name) for name in listed}
    assert "\n3 aligned face crops" in (card / "README.md").read_text("utf-8")
    do(root, hosts=(site.url.partition("://")[2],))
    assert [path for path in card.rglob("*") if path.is_file()] == [], "there is nothing left to say it of"


def test_cropped_copies_stay_away_from_crawls_and_rebuilds(root: Path, site: Site, tmp_path: Path) -> None:
    from flows.steps.kept_out import keeper

    jpeg = site.pictures["gone"][2]
    picture, copy = tmp_path / "gone.jpg", cropped(jpeg)
    picture.write_bytes(jpeg)
    do(root, like=(str(picture),), detector="cascade")
    is_taken_down = keeper(root)
    assert is_taken_down(jpeg) and not is_taken_down(copy), "as a whole it looks different"
    put(site, "copy", copy)
    site.put("fresh", 6)
    site.pages["/"]["fresh"] = CAPTION
    run(site, root, refresh=True)
    assert "fresh" in kept(root) and "copy" not in kept(root)
    assert residue(root, [b"copy.jpg", *chunks_of(copy)]) == {}
    assert keeper(root)(copy), "from now on it is dropped before it is written"

    del site.pages["/"]["gone"]
    origin, new = tmp_path / "origin", tmp_path / "new"
    run(site, origin)
    assert "copy" in kept(origin)
    config = RebuildConfig(str(origin / "shards/r00001"), str(new), tombstones=str(root), allow_private=True)
    stones = root / "lake/tombstones.json"
    told = json.loads(stones.read_text("utf-8"))["tombstones"]  # of these the face's alone
    stones.write_text(json.dumps({"version": 1, "tombstones": [stone for stone in told if stone[0] == "face"]}))
    for _ in range(2):
        report = rebuild(config, InlineRunner())
        assert report.verdicts["taken_down"] == {"": 1} and report.rebuilt == report.samples - 1
        assert residue(new, [b"copy.jpg", *chunks_of(copy)]) == {}


def test_what_was_shown_is_what_goes(root: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.steps import likeness

    with contextlib.closing(warehouse.connect(root)) as con:
        ids = [row[0] for row in con.execute("SELECT image_id FROM corpus ORDER BY image_url").fetchall()]
    answers = iter([[ids[0]], [ids[1]]])  # a second search would find another picture
    monkeypatch.setattr(likeness, "pictures_of_person", lambda *_: next(answers))
    monkeypatch.setattr("flows.cli.takedown.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    done = CliRunner().invoke(app, ["takedown", "--person-like", "me.jpg", "--root", str(root)], input="y\n")
    assert done.exit_code == 0, done.output
    with contextlib.closing(warehouse.connect(root)) as con:
        assert [row[0] for row in con.execute("SELECT image_id FROM corpus ORDER BY image_url").fetchall()] == ids[1:]
    assert next(answers) == [ids[1]], "it was searched for once"


def test_more_than_was_shown_does_not_go(root: Path, site: Site) -> None:
    config = TakedownConfig(str(root), hosts=(site.url,))
    shown = plan(config)
    put(site, "late", cropped(site.pictures["other"][2], 0.2))
    run(site, root, refresh=True)
    there = kept(root)
    with pytest.raises(ValueError, match="have come since these were shown, nothing was removed: look again"):
        take_down(config, InlineRunner(), shown.found)
    assert kept(root) == there
    assert take_down(config, InlineRunner(), plan(config).found)[0].pictures == shown.pictures + 1
