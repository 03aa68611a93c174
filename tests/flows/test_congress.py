"""Real portraits, crawled from a static site over real HTTP and built with InsightFace."""

from __future__ import annotations

import contextlib
import csv
import functools
import html
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

import warehouse
from tests.flows.conftest import Gptface, command

pytestmark = [pytest.mark.e2e, pytest.mark.realdata]

PORTRAITS = 539


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    altered: ClassVar[dict[str, bytes | None]] = {}  # path -> other bytes, or None where it is gone

    def do_GET(self) -> None:
        if self.path not in self.altered:
            super().do_GET()
            return
        body = self.altered[self.path]
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _sentence(row: dict[str, str]) -> str:
    """What the table says about a member, as a page would."""
    chamber = {"rep": "the House of Representatives", "sen": "the Senate"}[row["chamber"]]
    name, party, state, since = (row[key] for key in ("full_name", "party", "state", "first_term_start"))
    return f"{name}, {party} from {state}, is a member of {chamber} since {since}."


def _write_site(data: Path, site: Path) -> None:
    """One page per member with portrait, name and a sentence, and an index of all pages."""
    (site / "images").symlink_to(data / "congress" / "images", target_is_directory=True)
    with (data / "congress" / "legislators.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    links = []
    for row in rows:
        name, text = html.escape(row["full_name"]), html.escape(_sentence(row))
        page = (
            f"<!doctype html><meta charset=utf-8><title>{name}</title><h1>{name}</h1>"
            f'<figure><img src="/{row["file"]}" alt="{text}"><figcaption>{name}</figcaption></figure><p>{text}</p>'
        )
        (site / f"{row['bioguide']}.html").write_text(page, encoding="utf-8")
        links.append(f'<a href="/{row["bioguide"]}.html">{name}</a>')
    (site / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{'<br>'.join(links)}", encoding="utf-8")


@pytest.fixture(scope="module")
def congress_root(test_data: Path, test_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root built from the portraits with the default rules, then again with the face-size rule at 32 px."""
    site = tmp_path_factory.mktemp("site")
    root = tmp_path_factory.mktemp("root")
    _write_site(test_data, site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "GPTFACE_INSIGHTFACE_ROOT": str(test_models / "insightface")}
    try:
        for rules in ([], ["--rule", "min_face_px=32"]):
            words = ["build", f"site:http://127.0.0.1:{server.server_port}/", "--root", root, "--allow-private"]
            words += ["--detector", "insightface", "--page-delay-s", 0, "--part-urls", 270, *rules]
            done = subprocess.run(
                command(*words), capture_output=True, text=True, timeout=300, env=environment, check=False
            )
            assert done.returncode == 0, done.stderr
        yield root
    finally:
        server.shutdown()
        server.server_close()


def _reasons(root: Path, at: int) -> dict[str, int]:
    with contextlib.closing(warehouse.connect(root, at=at)) as con:
        return dict(con.execute("SELECT reason, pairs FROM funnel").fetchall())


def test_nearly_every_portrait_has_exactly_one_face(congress_root: Path) -> None:
    with contextlib.closing(warehouse.connect(congress_root)) as con:
        counts = dict(con.execute("SELECT face_count, count(*) FROM pictures GROUP BY face_count").fetchall())
        detectors = [row[0] for row in con.execute("SELECT DISTINCT detector FROM pictures").fetchall()]
    assert sum(counts.values()) == PORTRAITS
    assert counts[1] >= 535, counts
    assert len(detectors) == 1
    assert detectors[0].startswith("insightface:buffalo_sc")


def test_portraits_with_one_face_are_kept_or_dropped_by_their_size_alone(congress_root: Path) -> None:
    for release, threshold in ((1, 64), (2, 32)):
        with contextlib.closing(warehouse.connect(congress_root, at=release)) as con:
            rows = con.execute("""
                SELECT d.reason, min(f.face_px), max(f.face_px), count(*) FROM decisions d JOIN pairs USING (row_id)
                JOIN images USING (url_id) JOIN pictures t USING (image_id) JOIN faces f USING (image_id)
                WHERE t.face_count = 1 GROUP BY d.reason""").fetchall()
        by_reason = {row[0]: row[1:] for row in rows}
        assert set(by_reason) <= {"kept", "face_px"}, by_reason
        assert by_reason["kept"][0] >= threshold
        if "face_px" in by_reason:
            assert by_reason["face_px"][1] < threshold


def test_a_smaller_face_size_keeps_530(congress_root: Path) -> None:
    assert sum(_reasons(congress_root, 1).values()) == sum(_reasons(congress_root, 2).values()) == PORTRAITS
    assert _reasons(congress_root, 2)["kept"] >= 530


def test_no_metadata_of_the_camera_is_left_in_any_shard(congress_root: Path, test_data: Path) -> None:
    originals = [p.read_bytes() for p in sorted((test_data / "congress" / "images").iterdir())[:50]]
    assert any(b"Exif\0\0" in data for data in originals), "the originals have no EXIF: this test proves nothing"
    tars = sorted((congress_root / "shards").rglob("*.tar"))
    assert tars
    pictures = 0
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                data = stream.read()
                for block in (b"Exif\0\0", b"http://ns.adobe.com/xap", b"ICC_PROFILE", b"Photoshop 3.0", b"<x:xmpmeta"):
                    assert block not in data, f"{member.name} in {path.name} holds {block!r}"
                if member.name.endswith(".jpg"):
                    pictures += 1
                    with Image.open(io.BytesIO(data)) as picture:
                        assert not picture.getexif()
                        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert pictures >= 530


def test_sql_agrees_with_the_report(congress_root: Path, gptface: Gptface) -> None:
    done = gptface("sql", "select count(*) as kept from corpus", "--root", congress_root, "--format", "json")
    kept = json.loads(done.stdout)[0]["kept"]
    assert gptface("report", "--root", congress_root).returncode == 0
    page = (congress_root / "reports" / "index.html").read_text()
    assert f'<span class="label">Kept</span><b>{kept:,}</b>' in page
    assert kept == _reasons(congress_root, 2)["kept"]


def _rebuild(congress_root: Path, new: Path) -> dict[str, Any]:
    words = ["rebuild", congress_root / "shards" / "r00002", "--root", new, "--allow-private", "--part-urls", 270]
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((new / "reports" / "rebuild.json").read_text())
    return report


def test_the_portraits_are_rebuilt_from_the_manifest_byte_for_byte(congress_root: Path, tmp_path: Path) -> None:
    report = _rebuild(congress_root, tmp_path)
    shards = congress_root / "shards" / "r00002"
    assert report["index_identical"]
    assert sorted(report["identical"]) == sorted(path.name for path in shards.glob("*.tar"))
    for name in (*report["identical"], "manifest.parquet"):
        assert (tmp_path / "shards" / "r00002" / name).read_bytes() == (shards / name).read_bytes()


def test_a_twentieth_of_the_portraits_gone_or_changed_is_exactly_what_is_reported(
    congress_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(warehouse.connect(congress_root, at=2)) as con:
        urls = [row[0] for row in con.execute("SELECT image_url FROM corpus ORDER BY row_id").fetchall()]
    picked = urls[::20]
    other = io.BytesIO()
    Image.new("RGB", (300, 400), "grey").save(other, "JPEG")
    paths = {url: "/" + url.partition("://")[2].partition("/")[2] for url in picked}
    altered = {paths[url]: None if i % 2 else other.getvalue() for i, url in enumerate(picked)}
    monkeypatch.setattr(_Quiet, "altered", altered)
    report = _rebuild(congress_root, tmp_path)
    found = {row["image_url"]: row["verdict"] for row in report["missing"]}
    assert found == {url: "gone" if i % 2 else "changed" for i, url in enumerate(picked)}
    assert report["rebuilt"] == len(urls) - len(picked)
    assert report["other"] == []
    lost = {row["row_id"] for row in report["missing"]}
    for file in report["short"]:
        kept, built = (_members(root / "shards" / "r00002" / file) for root in (congress_root, tmp_path))
        assert built == {name: data for name, data in kept.items() if name.partition(".")[0] not in lost}


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member)) is not None}
