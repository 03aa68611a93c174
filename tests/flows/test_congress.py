"""Real portraits, crawled from a static site over real HTTP and built with InsightFace."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import warehouse
from tests.flows.conftest import Gptface, command
from tests.flows.congress_site import PORTRAITS, CongressSite, serving, write_site

pytestmark = [pytest.mark.e2e, pytest.mark.realdata]


@pytest.fixture(scope="module")
def site(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CongressSite]:
    folder = tmp_path_factory.mktemp("site")
    write_site(test_data, folder)
    with serving(folder) as site:
        yield site


@pytest.fixture(scope="module")
def congress_root(site: CongressSite, test_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root built from the portraits with the default rules, then again with the face-size rule at 32 px."""
    root = tmp_path_factory.mktemp("root")
    environment = {**os.environ, "GPTFACE_INSIGHTFACE_ROOT": str(test_models / "insightface")}
    for rules in ([], ["--rule", "min_face_px=32"]):
        words = ["build", f"site:{site.url}", "--root", root, "--allow-private"]
        words += ["--detector", "insightface", "--page-delay-s", 0, "--part-urls", 270, *rules]
        done = subprocess.run(
            command(*words), capture_output=True, text=True, timeout=300, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
    return root


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
    site: CongressSite, congress_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(warehouse.connect(congress_root, at=2)) as con:
        urls = [row[0] for row in con.execute("SELECT image_url FROM corpus ORDER BY row_id").fetchall()]
    picked = urls[::20]
    other = io.BytesIO()
    Image.new("RGB", (300, 400), "grey").save(other, "JPEG")
    paths = {url: "/" + url.partition("://")[2].partition("/")[2] for url in picked}
    altered = {paths[url]: None if i % 2 else other.getvalue() for i, url in enumerate(picked)}
    monkeypatch.setattr(site, "altered", altered)
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
