"""Shards made again from a manifest: the same bytes, and an account of what is not there any more."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import warehouse
from flows.steps.config import BuildConfig
from flows.steps.pipeline import build
from flows.steps.rebuild import RebuildReport, rebuild
from flows.steps.rebuild_crawl import RebuildConfig
from gptface_core.faces import crop
from sample_web.server import SampleWeb
from tests.flows.conftest import Gptface, command
from tests.flows.test_recrawl_e2e import InlineRunner, Site, serving
from warehouse.errors import InputError
from warehouse.manifest import read_manifest
from warehouse.shards import INDEX_FILE, file_sha256, verify_index

pytestmark = pytest.mark.e2e
PICTURES = 60
SHARDS = "shards/r00001"
CAPTION = "A smiling woman number {} with brown hair"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    names = [f"face{i}" for i in range(PICTURES)]
    pages = {"/": names[:30], "/more.html": names[30:]}
    shown = {path: {name: CAPTION.format(name) for name in on_page} for path, on_page in pages.items()}
    with serving(Site(pages=shown)) as site:
        for face, name in enumerate(names):
            site.put(name, face)
        yield site


@pytest.fixture(scope="module")
def root(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin")
    config = BuildConfig(
        source=f"site:{site.url}/",
        root=str(root),
        detector="cascade",
        allow_private=True,
        page_delay_s=0.0,
        samples_per_shard=10,
    )
    assert build(config, InlineRunner()).kept > 0.8 * PICTURES
    return root


@pytest.fixture(autouse=True)
def unchanged(site: Site) -> Iterator[None]:
    """Whatever a test does to the site is undone."""
    pages, pictures = dict(site.pages), dict(site.pictures)
    site.asked.clear()
    yield
    site.pages, site.pictures = pages, pictures


def run(manifest: Path, root: Path, **more: Any) -> RebuildReport:
    config = RebuildConfig(str(manifest), str(root), allow_private=True, part_urls=25, **more)
    return rebuild(config, InlineRunner())


def names_of(root: Path) -> list[str]:
    """Pictures of the manifest by name, in the order of the shards."""
    table = pq.read_table(root / SHARDS / "manifest.parquet", columns=["image_url"])
    return [Path(url).stem for url in table["image_url"].to_pylist()]


def without(tar: Path, gone: set[str]) -> bytes:
    """A shard as it is built without samples, by Python's own tarfile."""
    out = io.BytesIO()
    with tarfile.open(tar) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in old:
            if member.name.partition(".")[0] not in gone:
                new.addfile(member, old.extractfile(member))
    return out.getvalue()


def test_the_manifest_holds_all_that_the_lake_says_of_a_sample_and_no_picture(root: Path) -> None:
    manifest = read_manifest(root / SHARDS)
    with contextlib.closing(warehouse.connect(root)) as con:
        con.register("manifest", pq.read_table(manifest.table))
        differing = con.execute("""
            SELECT count(*) FROM corpus c FULL JOIN manifest m USING (row_id)
            WHERE (c.image_url, c.page_url, c.image_id, c.caption, c.split, c.points_px, c.x0_px)
                IS DISTINCT FROM (m.image_url, m.page_url, m.image_id, m.caption, m.split, m.points_px, m.x0_px)
            """).fetchone()
        decisions = dict(con.execute("SELECT reason, count(*) FROM decisions GROUP BY reason").fetchall())
    assert differing == (0,)
    assert manifest.provenance["decisions"] == decisions
    assert manifest.provenance["rules"]["min_face_px"] == 64
    assert [name.partition(":")[0] for name in manifest.provenance["detectors"]] == ["cascade"]
    assert "opencv" in manifest.config["encoder"]
    assert manifest.index_sha256 == file_sha256(root / SHARDS / INDEX_FILE)
    for path in (manifest.table, manifest.folder / "manifest.json"):
        assert b"\xff\xd8\xff" not in path.read_bytes()


def test_every_sample_lies_where_the_manifest_says(root: Path) -> None:
    for shard in read_manifest(root / SHARDS).shards():
        of_shard = [("shard", "==", shard["file"])]
        rows = pq.read_table(root / SHARDS / "manifest.parquet", filters=of_shard).to_pylist()
        with tarfile.open(root / SHARDS / shard["file"]) as tar:
            keys = [name.removesuffix(".jpg") for name in tar.getnames() if name.endswith(".jpg")]
        assert [(row["position"], row["row_id"]) for row in rows] == list(enumerate(keys))


def test_a_rebuild_into_an_empty_root_has_the_same_bytes(root: Path, site: Site, tmp_path: Path) -> None:
    report = run(root / SHARDS, tmp_path)
    assert report.index_identical
    assert report.rebuilt == report.samples == len(names_of(root))
    assert (report.short, report.other, report.dropped, report.missing) == ([], [], [], [])
    assert verify_index(tmp_path / SHARDS) == []
    for name in ("index.json", "manifest.json", "manifest.parquet", *report.identical):
        assert (tmp_path / SHARDS / name).read_bytes() == (root / SHARDS / name).read_bytes(), name
    assert not any(path.endswith(".html") or path == "/" for path, _, _ in site.asked), "no page is read again"


def test_what_is_gone_changed_or_refused_is_reported_and_the_rest_is_as_without_it(
    root: Path, site: Site, tmp_path: Path
) -> None:
    names = names_of(root)
    gone, changed, refused = names[1], names[2], names[-1]
    del site.pictures[gone]
    site.put(changed, PICTURES + 1)
    status, headers, body = site.pictures[refused]
    site.pictures[refused] = (status, {**headers, "X-Robots-Tag": "noai"}, body)
    report = run(root / SHARDS, tmp_path)
    found = {Path(str(row["image_url"])).stem: (row["verdict"], row["reason"]) for row in report.missing}
    assert found == {
        gone: ("gone", "http_client_error"),
        changed: ("changed", None),
        refused: ("refused", "image_opted_out"),
    }
    assert report.verdicts["gone"] == {"http_client_error": 1}
    assert report.verdicts["changed"] == {"": 1}
    assert report.verdicts["refused"] == {"image_opted_out": 1}
    lost = {str(row["row_id"]) for row in report.missing}
    affected = {str(row["shard"]) for row in report.missing}
    assert set(report.short) == affected - set(report.dropped)
    assert report.other == []
    shards = [shard["file"] for shard in read_manifest(root / SHARDS).shards()]
    assert set(report.identical) == set(shards) - affected
    for file in report.identical + report.short:
        assert (tmp_path / SHARDS / file).read_bytes() == without(root / SHARDS / file, lost), file
    assert verify_index(tmp_path / SHARDS) == []
    assert read_manifest(tmp_path / SHARDS).samples == report.rebuilt == len(names) - 3


def test_what_failed_for_a_passing_reason_is_asked_for_again_and_nothing_else(
    root: Path, site: Site, tmp_path: Path
) -> None:
    flaky, rotten = names_of(root)[3:5]
    status, headers, body = site.pictures[flaky]
    site.pictures[flaky] = (500, headers, b"oops")
    rot = site.pictures.pop(rotten)
    first = run(root / SHARDS, tmp_path, retries=0)
    assert first.verdicts["gone"] == {"http_client_error": 1, "http_server_error": 1}
    site.pictures |= {flaky: (status, headers, body), rotten: rot}
    site.asked.clear()
    second = run(root / SHARDS, tmp_path)
    assert second.verdicts["gone"] == {"http_client_error": 1}
    assert [path for path, _, _ in site.asked if path.endswith(".jpg")] == [f"/{flaky}.jpg"]
    again = run(root / SHARDS, tmp_path)
    assert again == second


def test_a_killed_rebuild_goes_on_where_it_was(root: Path, site: Site, tmp_path: Path) -> None:
    class Dies(InlineRunner):
        def map(self, name: str, fn: Any, items: Any) -> list[Any]:
            if name == "download":
                fn(items[0])
                raise KeyboardInterrupt
            return super().map(name, fn, items)

    config = RebuildConfig(str(root / SHARDS), str(tmp_path), allow_private=True, part_urls=25)
    with pytest.raises(KeyboardInterrupt):
        rebuild(config, Dies())
    before = {path for path, _, _ in site.asked if path.endswith(".jpg")}
    site.asked.clear()
    assert rebuild(config, InlineRunner()).index_identical
    after = {path for path, _, _ in site.asked if path.endswith(".jpg")}
    assert len(before) == 25
    assert after == {f"/{name}.jpg" for name in names_of(root)} - before


def test_another_encoder_is_an_error_or_its_pixels_are_compared(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = crop.encode_jpeg
    monkeypatch.setattr(crop, "encoder_version", lambda: "pillow 0")
    monkeypatch.setattr(crop, "encode_jpeg", lambda rgb, quality: encode(rgb, quality - 3))
    with pytest.raises(InputError, match=r"'pillow 0'.*--pixels-close"):
        run(root / SHARDS, tmp_path / "bytes")
    report = run(root / SHARDS, tmp_path / "pixels", pixels_close=True)
    assert report.is_verified
    assert (report.identical, report.other) == ([], [])
    assert len(report.close) == len(read_manifest(root / SHARDS).shards())
    assert json.loads((tmp_path / "pixels" / SHARDS / INDEX_FILE).read_text())["config"]["encoder"] == "pillow 0"
    monkeypatch.setattr(crop, "encode_jpeg", lambda rgb, quality: encode(rgb[:, ::-1].copy(), quality))
    mirrored = run(root / SHARDS, tmp_path / "mirrored", pixels_close=True)
    assert len(mirrored.other) == len(report.close)
    assert not mirrored.is_verified


def test_code_that_makes_other_crops_without_saying_so_is_found_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = crop.encode_jpeg
    monkeypatch.setattr(crop, "encode_jpeg", lambda rgb, quality: encode(rgb, quality - 3))
    report = run(root / SHARDS, tmp_path)
    assert not report.is_verified
    assert report.identical == []


def test_takedowns_are_honoured_and_listed_nowhere(root: Path, site: Site, tmp_path: Path) -> None:
    from flows.steps.takedown import TakedownConfig, take_down

    origin, copy, new = tmp_path / "origin", tmp_path / "copy", tmp_path / "new"
    shutil.copytree(root, origin)
    copy.mkdir()
    for name in ("manifest.json", "manifest.parquet"):
        shutil.copy(root / SHARDS / name, copy)
    name = names_of(root)[5]
    url = f"{site.url}/{name}.jpg"
    take_down(TakedownConfig(root=str(origin), urls=(url,)), InlineRunner())
    site.asked.clear()
    report = run(copy, new, tombstones=str(origin))
    assert report.verdicts["taken_down"] == {"": 1}
    assert report.rebuilt == report.samples - 1
    assert report.missing == []
    assert site.requests(name) == []
    assert [p for p in new.rglob("*") if p.is_file() and url.encode() in p.read_bytes()] == []
    # The origin's own manifest was mended by the takedown: it makes the shards that are there now.
    own = run(origin / SHARDS, tmp_path / "own")
    assert own.index_identical
    assert own.samples == report.rebuilt


def test_a_damaged_or_foreign_manifest_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("manifest.json", "manifest.parquet"):
        shutil.copy(root / SHARDS / name, copy)
    with pytest.raises(InputError, match="holds another corpus"):
        run(copy, root)
    with (copy / "manifest.parquet").open("r+b") as table:
        table.seek(100)
        table.write(b"!")
    with pytest.raises(InputError, match=r"sha256.*fetch both again"):
        run(copy, tmp_path / "new")
    with pytest.raises(InputError, match="is no manifest"):
        run(tmp_path, tmp_path / "new")


def test_a_second_shard_run_leaves_the_manifest_and_a_lost_one_comes_back_the_same(root: Path, tmp_path: Path) -> None:
    from flows.steps.layout import Layout
    from flows.steps.shard import write_shards

    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    written = (copy / SHARDS / "manifest.json").stat().st_mtime_ns
    write_shards(Layout(copy), 1, 10, InlineRunner())
    assert (copy / SHARDS / "manifest.json").stat().st_mtime_ns == written
    for name in ("manifest.json", "manifest.parquet"):
        (copy / SHARDS / name).unlink()
    write_shards(Layout(copy), 1, 10, InlineRunner())
    assert _manifest(copy) == _manifest(root)


def test_a_tar_that_is_made_again_is_listed_anew_whatever_a_killed_run_left(root: Path, tmp_path: Path) -> None:
    from flows.steps.layout import Layout
    from flows.steps.shard import write_shards
    from warehouse.manifest import write_part

    copy = tmp_path / "root"
    shutil.copytree(root, copy)
    folder = copy / SHARDS
    for current in (True, False):
        tar = sorted(folder.glob("*.tar"))[0]
        tar.unlink()
        write_part(folder, tar.name, [])  # of other samples than it will hold
        if not current:
            (folder / "manifest.json").unlink()
        write_shards(Layout(copy), 1, 10, InlineRunner())
        assert tar.read_bytes() == (root / SHARDS / tar.name).read_bytes()
        assert _manifest(copy) == _manifest(root)
        assert not list(folder.glob(".*.rows.parquet")), "the lists of single tars have served"


def _manifest(root: Path) -> list[bytes]:
    return [(root / SHARDS / name).read_bytes() for name in ("manifest.json", "manifest.parquet")]


def test_the_command_survives_a_kill(built_root: Path, small_web: SampleWeb, tmp_path: Path, gptface: Gptface) -> None:
    words = ["rebuild", built_root / SHARDS, "--root", tmp_path, "--allow-private", "--part-urls", 30]
    process = subprocess.Popen(
        command(*words, "--workers", 1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=4.0)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = gptface(*words)
    assert done.returncode == 0, done.stderr
    assert "same bytes" in done.stdout
    assert (tmp_path / SHARDS / INDEX_FILE).read_bytes() == (built_root / SHARDS / INDEX_FILE).read_bytes()
    assert verify_index(tmp_path / SHARDS) == []
