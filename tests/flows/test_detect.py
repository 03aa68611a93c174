"""One raw shard -> one faces part."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from flows.steps import detect
from flows.steps import examine as steps
from flows.steps.detect import detect_part
from flows.steps.embeddings import expire_embeddings
from flows.steps.examine import examine
from gptface_core.errors import InputError
from gptface_core.faces import Face, load_detector
from gptface_core.faces.decode import Picture, decode_upright
from sample_web.render import render_face, sample_attributes
from warehouse.schema import EMBEDDINGS, FACES, IMAGES, PICTURES, Reason, Status, url_id


def jpeg(index: int, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(render_face(sample_attributes(index, 0), index)).save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def write_crawl(crawl: Path, pictures: list[bytes | None], part: int = 0) -> Path:
    """A downloaded part: the bytes of each picture; None stands for an address that failed."""
    images = crawl / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    with tarfile.open(images / f"{part:05d}.tar", "w") as tar:
        for number, data in enumerate(pictures):
            url = f"http://127.0.0.1/{part}/{number}.jpg"
            row: dict[str, Any] = dict.fromkeys(IMAGES.names)
            row |= {
                "url_id": url_id(url),
                "image_url": url,
                "attempts": 1,
                "fetched_at": datetime(2026, 1, 1, tzinfo=UTC),
            }
            if data is None:
                row |= {"status": Status.FAILED.value, "reason": Reason.TIMEOUT.value}
            else:
                info = tarfile.TarInfo(url_id(url))
                info.size = len(data)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(info, io.BytesIO(data))
                row |= {"status": Status.OK.value, "image_id": hashlib.sha256(data).hexdigest()}
                row |= {
                    "raw_shard": f"{crawl.name}/images/{part:05d}.tar",
                    "raw_offset": offset,
                    "raw_bytes": len(data),
                }
            rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=IMAGES), images / f"{part:05d}.parquet")
    return crawl


def tables(crawl: Path, part: int = 0) -> tuple[pa.Table, pa.Table]:
    folder = crawl / "faces"
    return pq.read_table(folder / f"{part:05d}.pictures.parquet"), pq.read_table(folder / f"{part:05d}.faces.parquet")


def digests(crawl: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((crawl / "faces").iterdir())}


def mixed() -> list[bytes | None]:
    return [jpeg(3), b"<html>gone</html>", None, jpeg(4), jpeg(3), jpeg(7)[:4000], jpeg(8)]


def test_one_row_per_distinct_picture_with_its_faces_or_a_reason(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, mixed())
    stats = detect_part(0, crawl, "cascade")
    pictures, faces = tables(crawl)
    assert pictures.schema.equals(PICTURES) and faces.schema.equals(FACES)
    rows = pictures.to_pylist()
    wanted = {hashlib.sha256(data).hexdigest() for data in mixed() if data}
    assert [row["image_id"] for row in rows] == sorted(wanted) and len(wanted) == 5
    reasons = sorted(row["reason"] for row in rows if row["reason"])
    assert reasons == [Reason.NOT_AN_IMAGE, Reason.TRUNCATED_IMAGE]
    for row in rows:
        assert row["detector"] == "cascade:haarcascade_frontalface_alt2"
        if row["reason"] is None:
            assert (row["width_px"], row["height_px"], row["format"], row["face_count"]) == (256, 256, "jpeg", 1)
            assert len(row["phash"]) == 16
        else:
            assert row["face_count"] is None and row["phash"] is None
    assert faces["image_id"].to_pylist() == [row["image_id"] for row in rows if row["face_count"]]
    for face in faces.to_pylist():
        assert len(face["points_px"]) == 10 and face["face_index"] == 0
        assert 0 <= face["x0_px"] < face["x1_px"] <= 256 and face["face_px"] > 64 and face["sharpness"] > 0
        assert 0 <= face["flatness"] < 0.35  # shaded, with noise
    assert (stats.pictures, stats.decoded, stats.with_one_face, stats.faces) == (5, 3, 3, 3)
    assert sorted(path.name for path in (crawl / "faces").iterdir()) == [
        "00000.faces.parquet",
        "00000.pictures.parquet",
    ]


def test_finished_part_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl = write_crawl(tmp_path, mixed())
    first = detect_part(0, crawl, "cascade")
    before = digests(crawl)
    monkeypatch.setattr(detect, "load_detector", lambda *_: pytest.fail("loaded a detector"))
    again = detect_part(0, crawl, "cascade")
    assert again.skipped and not first.skipped
    assert (again.pictures, again.decoded, again.faces) == (first.pictures, first.decoded, first.faces)
    assert digests(crawl) == before


def test_part_cut_short_by_a_crash_is_made_again(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, mixed())
    detect_part(0, crawl, "cascade")
    before = digests(crawl)
    (crawl / "faces" / "00000.pictures.parquet").unlink()
    assert not detect_part(0, crawl, "cascade").skipped
    assert digests(crawl) == before
    marker = crawl / "faces" / "00000.pictures.parquet"
    marker.write_bytes(marker.read_bytes()[:100])
    assert not detect_part(0, crawl, "cascade").skipped
    assert digests(crawl) == before


def test_part_is_made_again_when_its_pictures_changed(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, [jpeg(3)])
    detect_part(0, crawl, "cascade")
    write_crawl(tmp_path, [jpeg(3), jpeg(4)])
    stats = detect_part(0, crawl, "cascade")
    assert not stats.skipped and stats.pictures == 2


def test_part_without_any_picture(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, [None, None])
    assert detect_part(0, crawl, "cascade").pictures == 0
    pictures, faces = tables(crawl)
    assert (pictures.num_rows, faces.num_rows) == (0, 0)
    assert detect_part(0, crawl, "cascade").skipped


def test_same_bytes_from_another_process(tmp_path: Path) -> None:
    here, there = write_crawl(tmp_path / "a", mixed()), write_crawl(tmp_path / "b", mixed())
    detect_part(0, here, "cascade")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(detect_part, (0, there, "cascade"))
    assert digests(here) == digests(there)


def test_exif_rotated_picture_is_found_upright(tmp_path: Path) -> None:
    upright = render_face(sample_attributes(3, 0), 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    out = io.BytesIO()
    Image.fromarray(np.rot90(upright).copy()).save(out, "JPEG", quality=95, exif=exif)
    crawl = write_crawl(tmp_path, [out.getvalue()])
    assert detect_part(0, crawl, "cascade").with_one_face == 1
    face = tables(crawl)[1].to_pylist()[0]
    points = np.reshape(face["points_px"], (5, 2))
    assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()


def test_truncated_tar_is_one_clear_line_and_writes_nothing(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, mixed())
    tar = crawl / "images" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:30_000])
    with pytest.raises(InputError, match=r"00000\.tar is cut short .*remove .*00000_stats\.json"):
        detect_part(0, crawl, "cascade")
    assert not (crawl / "faces").exists()


def test_tar_with_other_bytes_is_refused(tmp_path: Path) -> None:
    crawl = write_crawl(tmp_path, [jpeg(3)])
    tar = crawl / "images" / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 255
    tar.write_bytes(data)
    with pytest.raises(InputError, match="is damaged at picture"):
        detect_part(0, crawl, "cascade")


def test_part_that_is_not_there_and_unknown_detector(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"part 5 of .* is not downloaded"):
        detect_part(5, tmp_path, "cascade")
    with pytest.raises(InputError, match="no detector 'foo'"):
        detect_part(0, write_crawl(tmp_path, [None]), "foo")


def test_detector_that_fails_costs_one_row_not_the_part() -> None:
    class Broken:
        def describe(self) -> str:
            return "broken"

        def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
            raise RuntimeError("no luck")

    row, faces = examine("0" * 64, jpeg(3), Broken())
    assert row["reason"] == Reason.INTERNAL_ERROR and not faces


@pytest.mark.realdata
def test_portraits_through_insightface(test_data: Path, test_models: Path, tmp_path: Path) -> None:
    paths = sorted((test_data / "congress" / "images").glob("*.jpg"))[4::9]
    crawl = write_crawl(tmp_path, [path.read_bytes() for path in paths])
    stats = detect_part(0, crawl, "insightface", test_models / "insightface")
    assert stats.pictures == stats.with_one_face == stats.faces == len(paths) == 60
    assert stats.detector == "insightface:buffalo_sc/det_500m:5e4447f5:size=auto3:score=0.5"
    faces = tables(crawl)[1].to_pylist()
    assert min(face["score"] for face in faces) > 0.6 and min(face["face_px"] for face in faces) > 32
    assert np.median([abs(face["roll_deg"]) for face in faces]) < 6
    assert np.median([abs(face["yaw_deg"]) for face in faces]) < 12


def large_page(side: int, place: tuple[int, int], width: int = 3390, height: int = 2603) -> bytes:
    canvas = np.full((height, width, 3), 160, dtype=np.uint8)
    canvas[place[1] : place[1] + side, place[0] : place[0] + side] = render_face(sample_attributes(3, 0), 3, side)
    out = io.BytesIO()
    Image.fromarray(canvas).save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.mark.realdata
@pytest.mark.parametrize(("side", "decodes"), [(1400, [2]), (350, [2, 1])])
def test_large_pictures_are_decoded_small_unless_a_face_needs_more(
    side: int, decodes: list[int], test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes and points are those of the whole picture, within a quarter of a pixel of what the detector looks at."""
    finder = load_detector("insightface", root=test_models / "insightface")
    data = large_page(side, (900, 700))
    seen: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        picture = decode_upright(*args, **options)
        assert isinstance(picture, Picture)
        seen.append(picture.reduction)
        return picture

    monkeypatch.setattr(steps, "decode_upright", counted)
    row, (face,) = examine("0" * 64, data, finder)
    assert seen == decodes and (row["width_px"], row["height_px"]) == (3390, 2603)
    monkeypatch.setattr(steps, "ENOUGH_PX", 10_000)
    _, (whole,) = examine("0" * 64, data, finder)
    np.testing.assert_allclose(face["points_px"], whole["points_px"], rtol=0, atol=0.25 * 3390 / 320)
    assert face["sharpness"] == pytest.approx(whole["sharpness"], rel=0.25)
    assert face["brightness"] == pytest.approx(whole["brightness"], abs=2)


@pytest.mark.realdata
def test_measures_of_a_face(test_models: Path) -> None:
    finder = load_detector("insightface", root=test_models / "insightface")
    bare = replace(sample_attributes(3, 0), face_mask=False, eyeglasses=False)
    pictures = [render_face(replace(bare, face_mask=mask), 3) for mask in (False, True)]
    pictures += [np.ascontiguousarray(pictures[0][60:]), np.asarray(Image.fromarray(pictures[0]).resize((40, 40)))]
    rows = []
    for rgb in pictures:
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "PNG")
        rows.append(examine("0" * 64, out.getvalue(), finder)[1][0])
    plain, masked, cut, tiny = rows
    assert masked["occlusion"] > plain["occlusion"] + 0.3 and tiny["occlusion"] is None
    assert plain["padded_share"] < cut["padded_share"] < 1
    assert set(plain) == set(FACES.names)


@pytest.mark.realdata
def test_embeddings_are_made_only_when_asked_for_and_expire(test_models: Path, tmp_path: Path) -> None:
    crawl, root = write_crawl(tmp_path, mixed()), test_models / "insightface"
    detect_part(0, crawl, "insightface", root, pack="test_sc")
    path = crawl / "faces" / "00000.embeddings.parquet"
    assert not path.exists()
    before = digests(crawl)
    assert not detect_part(0, crawl, "insightface", root, pack="test_sc", embed=True, embed_days=7).skipped
    table, faces = pq.read_table(path), tables(crawl)[1]
    assert table.schema.equals(EMBEDDINGS)
    assert table["image_id"].to_pylist() == faces["image_id"].to_pylist()
    vectors = np.array(table["embedding"].to_pylist())
    assert vectors.shape == (faces.num_rows, 128) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert {name: digest for name, digest in digests(crawl).items() if name != path.name} == before
    assert detect_part(0, crawl, "insightface", root, pack="test_sc", embed=True).skipped
    now = datetime.now(UTC)
    assert expire_embeddings(crawl, now + timedelta(days=6)) == 0 and path.exists()
    assert expire_embeddings(crawl, now + timedelta(days=8)) == 1 and not path.exists()
    with pytest.raises(InputError, match="embed_days 0"):
        detect_part(0, crawl, "insightface", root, pack="test_sc", embed=True, embed_days=0)


def test_pictures_go_to_a_gpu_many_at_a_time_and_to_a_cpu_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def loaded(*words: Any) -> Any:
        asked.append(words[-2:])
        return load_detector("cascade")

    monkeypatch.setattr(detect, "load_detector", loaded)
    cpu, gpu = "CPUExecutionProvider", "CUDAExecutionProvider"
    for name, options in (("a", {}), ("b", {"provider": gpu}), ("c", {"provider": gpu, "batch": 2})):
        assert detect_part(0, write_crawl(tmp_path / name, [jpeg(3)]), "cascade", **options).pictures == 1
    assert asked == [(cpu, 1), (gpu, detect.GPU_BATCH), (gpu, 2)]


@pytest.mark.realdata
def test_a_batch_of_pictures_gives_the_same_rows(test_models: Path, tmp_path: Path) -> None:
    here, there = write_crawl(tmp_path / "a", mixed()), write_crawl(tmp_path / "b", mixed())
    for crawl, batch in ((here, 1), (there, 4)):
        detect_part(0, crawl, "insightface", test_models / "insightface", batch=batch)
    assert tables(here)[0].equals(tables(there)[0])
    for one, many in zip(tables(here)[1].to_pylist(), tables(there)[1].to_pylist(), strict=True):
        np.testing.assert_allclose(one["points_px"], many["points_px"], atol=0.01)


@pytest.mark.realdata
def test_odd_images_all_get_a_row(test_data: Path, tmp_path: Path) -> None:
    paths = sorted((test_data / "odd-images").iterdir())
    crawl = write_crawl(tmp_path, [path.read_bytes() for path in paths])
    stats = detect_part(0, crawl, "cascade")
    rows = tables(crawl)[0].to_pylist()
    assert stats.pictures == len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})
    for row in rows:
        assert (row["reason"] is None) == (row["width_px"] is not None)
        assert row["reason"] in {None, "not_an_image", "truncated_image", "too_many_pixels"}
