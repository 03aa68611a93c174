"""Embeddings from a build: only when asked for, filled in where they lack, deleted in time, gone with a takedown."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import sys
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import warehouse
from flows.steps.config import BuildConfig, ConfigError
from flows.steps.detect import detect_part, embed_part
from flows.steps.doctor import Verdict, check_embeddings
from flows.steps.embeddings import expire_embeddings
from flows.steps.erase_files import scrub_tables, tables_below
from flows.steps.layout import Layout
from flows.steps.likeness import pictures_of_person
from flows.steps.pipeline import BuildSummary, build
from flows.steps.takedown import TakedownConfig, take_down
from gptface_core.errors import InputError
from tests.flows.test_detect import digests, jpeg, write_crawl
from tests.flows.test_recrawl_e2e import InlineRunner
from warehouse.identities import read_vectors
from warehouse.linkage import average_linkage
from warehouse.parameters import RuleParameters
from warehouse.removal import Removal
from warehouse.schema import EMBEDDINGS

PERSONS, PICTURES = 20, 4
TUNED_ON = 500  # the threshold was chosen on the first so many people of the shuffle below
MAX_WRONG = 1  # pictures in the company of somebody else
MAX_CUT = 1  # persons who lie on two sides


@pytest.fixture
def insightface(test_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packs, which builds find as users' do."""
    monkeypatch.setenv("GPTFACE_INSIGHTFACE_ROOT", str(test_models / "insightface"))
    return test_models / "insightface"


def vectors(folder: Path) -> dict[tuple[str, int], list[float]]:
    rows = [row for path in sorted(folder.rglob("*.embeddings.parquet")) for row in pq.read_table(path).to_pylist()]
    return {(row["image_id"], row["face_index"]): row["embedding"] for row in rows}


def test_without_a_recogniser_nothing_begins(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(InputError, match="--embed needs InsightFace, the cascade only guesses"):
        build(BuildConfig("sample:10", str(root), detector="cascade", embed=True), InlineRunner())
    assert not root.exists()
    with pytest.raises(ConfigError, match="embed_days=0: must be at least 1"):
        BuildConfig("sample:10", embed_days=0)


@pytest.mark.realdata
def test_a_pack_without_a_recogniser_is_named(insightface: Path, tmp_path: Path) -> None:
    config = BuildConfig("sample:10", str(tmp_path / "root"), "insightface", "buffalo_sc", embed=True)
    with pytest.raises(InputError, match=r"pack 'buffalo_sc' at .* one recogniser beside its detector, found none"):
        build(config, InlineRunner())
    assert not (tmp_path / "root").exists()


@pytest.mark.realdata
def test_missing_embeddings_are_made_from_the_stored_faces(insightface: Path, tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    out = BytesIO()  # so large that it is decoded at reduced scale
    Image.open(BytesIO(jpeg(8))).resize((4000, 4000), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    crawl = write_crawl(tmp_path, [jpeg(3), jpeg(4), out.getvalue(), b"<html>"])
    detect_part(0, crawl, "insightface", pack="test_sc", embed=True)
    found, before = vectors(crawl), digests(crawl)
    path = crawl / "faces/00000.embeddings.parquet"
    assert len(found) == 3 and not embed_part(0, crawl, pack="test_sc")
    path.unlink()
    assert embed_part(0, crawl, pack="test_sc")
    again = vectors(crawl)
    assert again.keys() == found.keys()
    np.testing.assert_allclose([again[key] for key in found], [found[key] for key in found], atol=1e-6)
    assert {name: digest for name, digest in digests(crawl).items() if name != path.name}.items() <= before.items()
    # The cascade guesses the points of a face: what would be embedded is hardly that face.
    other = write_crawl(tmp_path / "other", [jpeg(3)])
    detect_part(0, other, "cascade")
    assert not embed_part(0, other, pack="test_sc")


@pytest.mark.realdata
def test_another_precision_makes_embeddings_again_and_a_person_is_found_in_either(
    insightface: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    crawl = write_crawl(tmp_path / "raw/s/g000", [jpeg(3), jpeg(4)])
    detect_part(0, crawl, "insightface", pack="test_sc", embed=True)
    before, faces = vectors(crawl), digests(crawl)
    assert embed_part(0, crawl, pack="test_sc", embed_precision="bfloat16")
    found, path = vectors(crawl), crawl / "faces/00000.embeddings.parquet"
    assert not embed_part(0, crawl, pack="test_sc", embed_precision="bfloat16")
    models = pq.read_table(path)["model"].unique().to_pylist()
    assert models == ["insightface:test_sc/mobilefacenet_128d_dynbatch:363229ee:openvino-bfloat16"]
    assert found.keys() == before.keys() and found != before
    assert {name: digest for name, digest in digests(crawl).items() if name != path.name}.items() <= faces.items()
    me = tmp_path / "me.jpg"
    me.write_bytes(jpeg(3))
    like = pictures_of_person(Layout(tmp_path), me, 0.95, "insightface", "test_sc")
    assert like == [hashlib.sha256(jpeg(3)).hexdigest()]


@pytest.mark.realdata
def test_without_openvino_no_build_in_bfloat16_begins(
    insightface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    root = tmp_path / "root"
    config = BuildConfig("sample:10", str(root), "insightface", "test_sc", embed=True, embed_precision="bfloat16")
    with pytest.raises(InputError, match=r"precision bfloat16 needs the package openvino"):
        build(config, InlineRunner())
    assert not root.exists()
    with pytest.raises(ConfigError, match="embed_precision"):
        BuildConfig("sample:10", embed_precision="int8")


def test_a_root_is_rid_of_what_expired_and_of_what_nobody_can_read(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    faces = tmp_path / "raw/s/g000/faces"
    faces.mkdir(parents=True)
    row: dict[str, Any] = {"image_id": "a", "face_index": 0, "embedding": [1.0], "model": "m"}
    for part, days in enumerate((1, 40)):
        table = [row | {"expires_at": now + timedelta(days=days)}]
        pq.write_table(pa.Table.from_pylist(table, schema=EMBEDDINGS), faces / f"{part:05d}.embeddings.parquet")
    (faces / "00002.embeddings.parquet").write_bytes(b"cut short")
    (faces / ".00003.embeddings.parquet.tmp").write_bytes(b"left by a killed run")
    (faces / "00000.faces.parquet").write_bytes(b"of another kind")
    told = check_embeddings(tmp_path)
    assert told.verdict is Verdict.NOTE and "4 files" in told.found and "2 have expired" in told.found
    assert expire_embeddings(tmp_path, now) == 2
    assert expire_embeddings(tmp_path, now + timedelta(days=2)) == 1
    assert sorted(path.name for path in faces.iterdir()) == ["00000.faces.parquet", "00001.embeddings.parquet"]


def test_a_takedown_takes_rows_out_of_embeddings_and_nothing_else(tmp_path: Path) -> None:
    row: dict[str, Any] = {"face_index": 0, "model": "m", "expires_at": datetime.now(UTC)}
    gone, stays = ("0" * 63 + "a", [0.25, 0.75]), ("0" * 63 + "b", [0.5, 0.125])
    path = tmp_path / "raw/s/g000/faces/00000.embeddings.parquet"
    path.parent.mkdir(parents=True)
    rows = [row | {"image_id": image_id, "embedding": vector} for image_id, vector in (gone, stays)]
    pq.write_table(pa.Table.from_pylist(rows, schema=EMBEDDINGS), path, compression="none", use_dictionary=False)
    needles = [gone[0].encode(), np.array(gone[1], np.float32).tobytes()]
    assert all(needle in path.read_bytes() for needle in needles)
    assert scrub_tables(tables_below(tmp_path), Removal(image_ids=frozenset({gone[0]}))) == 1
    assert vectors(tmp_path) == {(stays[0], 0): stays[1]}
    assert pq.read_schema(path).equals(EMBEDDINGS)
    assert not any(needle in path.read_bytes() for needle in needles)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def portraits(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with `PICTURES` photographs each of `PERSONS` people of LFW, and a list of their addresses."""
    folder = tmp_path_factory.mktemp("lfw")
    pictures = defaultdict(list)
    with zipfile.ZipFile(test_data / "lfw/lfw-deepfunneled.zip") as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            pictures[Path(name).parent.name].append(name)
        people = sorted(pictures)
        np.random.default_rng(3).shuffle(people)
        others = [who for who in people if len(pictures[who]) > 1][TUNED_ON:]
        for who, names in enumerate([pictures[who] for who in others if len(pictures[who]) >= PICTURES][:PERSONS]):
            for number, name in enumerate(names[:PICTURES]):
                (folder / f"{who}-{number}.jpg").write_bytes(archive.read(name))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (folder / "pairs.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["url", "caption"])
        for who, number in itertools.product(range(PERSONS), range(PICTURES)):
            url = f"http://127.0.0.1:{server.server_port}/{who}-{number}.jpg"
            rows.writerow(
                [url, f"A photograph of somebody called {who:03b} at place {number:03b} in {who * 7 + number}"]
            )
    yield folder, f"list:{folder / 'pairs.csv'}"
    server.shutdown()
    server.server_close()


def rows_of(root: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(warehouse.connect(root)) as con:
        return con.execute(query).fetchall()


def sides(root: Path) -> dict[str, set[str]]:
    """Splits of the corpus by the person in the address."""
    found = defaultdict(set)
    for url, split in rows_of(root, "SELECT image_url, split FROM corpus"):
        found[Path(url).stem.partition("-")[0]].add(split)
    return found


def strangers(root: Path, folder: Path) -> int:
    """Pictures that were grouped with more pictures of somebody else than of their own person."""
    names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.stem for path in folder.glob("*.jpg")}
    ((image_ids, matrix),) = read_vectors(root).by_model.values()
    groups = defaultdict(list)
    for image_id, label in zip(image_ids, average_linkage(matrix, RuleParameters().same_person), strict=True):
        groups[label].append(names[image_id].partition("-")[0])
    return sum(len(group) - max(Counter(group).values()) for group in groups.values())


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.realdata
def test_people_of_a_build(portraits: tuple[Path, str], insightface: Path, tmp_path: Path) -> None:
    folder, source = portraits
    root = tmp_path / "root"
    rules: dict[str, Any] = {"min_face_px": 32, "one_face": False, "val_share": 0.3, "test_share": 0.3}

    def run(embed: bool, **more: Any) -> BuildSummary:
        settings: dict[str, Any] = {"pack": "test_sc", "allow_private": True, "part_urls": 40, "refusal_limit": 1000}
        chosen = RuleParameters(**rules, **more)
        return build(
            BuildConfig(source, str(root), "insightface", embed=embed, rules=chosen, **settings), InlineRunner()
        )

    assert run(False).kept >= PERSONS * PICTURES - 3
    assert vectors(root) == {}
    apart = sides(root)
    assert sum(len(splits) > 1 for splits in apart.values()) > PERSONS / 2  # nothing is known of them
    # Embeddings of a finished crawl are filled in. What was published stays; with other shares everything is cut anew.
    before = dict(rows_of(root, "SELECT row_id, split FROM corpus"))
    run(True)
    assert dict(rows_of(root, "SELECT row_id, split FROM corpus")) == before
    rules |= {"val_share": 0.25, "test_share": 0.25}
    run(True)
    assert sum(len(splits) > 1 for splits in sides(root).values()) <= MAX_CUT
    assert set.union(*sides(root).values()) == {"train", "val", "test"}

    assert strangers(root, folder) <= MAX_WRONG

    # The cap keeps that many of everybody, but for who was taken for somebody else, or for two.
    assert run(True, max_per_identity=2).reasons["identity_cap"] >= PERSONS * (PICTURES - 2) - 3 - 2 * MAX_CUT
    kept = Counter(Path(url).stem.partition("-")[0] for (url,) in rows_of(root, "SELECT image_url FROM corpus"))
    assert sum(max(0, 2 - kept[str(who)]) for who in range(PERSONS)) <= MAX_WRONG
    assert sum(max(0, count - 2) for count in kept.values()) <= 2 * MAX_CUT

    # Embeddings lie below raw/ alone: no shard, table, manifest or report holds one.
    files = [path.relative_to(root).parts[0] for path in root.rglob("*") if "embedding" in path.name]
    assert set(files) == {"raw"}
    names = rows_of(root, "SELECT column_name FROM information_schema.columns")
    assert not {name for (name,) in names if "embed" in name or "person" in name or "identity" in name}

    # A person is found alike with stored embeddings and without, and goes with them.
    alone = "SELECT image_url FROM corpus JOIN pictures USING (image_id) WHERE face_count = 1 ORDER BY image_url"
    me, layout = folder / Path(rows_of(root, alone)[0][0]).name, Layout(root)
    stored = pictures_of_person(layout, me, 0.4, "insightface", "test_sc")
    assert len(stored) >= PICTURES - 2 and hashlib.sha256(me.read_bytes()).hexdigest() in stored
    hidden = sorted(root.rglob("*.embeddings.parquet"))[0]
    data = hidden.read_bytes()
    hidden.unlink()
    assert pictures_of_person(layout, me, 0.4, "insightface", "test_sc") == stored
    hidden.write_bytes(data)
    gone = TakedownConfig(str(root), person_like=(str(me),), detector="insightface", pack="test_sc")
    take_down(gone, InlineRunner())
    left = {image_id for image_id, _ in vectors(root)}
    assert left and not left & set(stored)
    assert len(left) >= PERSONS * PICTURES - len(stored) - 3
