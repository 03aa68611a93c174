"""Builds with `--clip`: measured once, filled in later, dropped by a rule, gone with a takedown."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import gptface_core.clip
import warehouse
from flows.steps.config import BuildConfig
from flows.steps.pipeline import BuildSummary, build
from flows.steps.takedown import TakedownConfig, take_down
from gptface_core.errors import InputError
from sample_web.render import sample_attributes
from tests.flows.takedown_root import residue
from tests.flows.test_recrawl_e2e import InlineRunner, Site, serving
from tests.gptface_core.tiny_clip import captions_of
from warehouse.parameters import RuleParameters
from warehouse.whatif import release_rules, what_if

pytestmark = pytest.mark.e2e
FACES, TRUE = 8, 4  # so many have a true caption, the others its opposite


@pytest.fixture
def site() -> Iterator[Site]:
    """Faces that the small CLIP has not seen; half of their captions say the opposite of what they show."""
    texts = [captions_of(sample_attributes(face, 0), face)[face >= TRUE] for face in range(FACES)]
    with serving(Site(pages={"/": {f"face{face}": text for face, text in enumerate(texts)}})) as site:
        for face in range(FACES):
            site.put(f"face{face}", face)
        yield site


def run(site: Site, root: Path, **settings: Any) -> BuildSummary:
    quick: dict[str, Any] = {"detector": "cascade", "allow_private": True, "page_delay_s": 0.0, "retries": 0}
    return build(BuildConfig(f"site:{site.url}/", str(root), **quick, **settings), InlineRunner())


def rows(root: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(warehouse.connect(root)) as con:
        return con.execute(query).fetchall()


def test_captions_are_compared_with_faces_once_per_model(
    site: Site, tmp_path: Path, tiny_clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    first = run(site, root)
    assert first.kept >= FACES - 1 and rows(root, "SELECT * FROM similarities") == []
    second = run(site, root, clip=tiny_clip)  # filled in for a crawl that was published without
    assert (second.release, second.kept) == (2, first.kept)
    measured = rows(root, "SELECT count(*), count(clip_similarity), count(DISTINCT image_id) FROM corpus")
    assert measured == [(first.kept,) * 3]
    half = f"regexp_extract(image_url, 'face(\\d)', 1)::INT < {TRUE}"
    ((true, untrue),) = rows(
        root, f"SELECT avg(clip_similarity) FILTER ({half}), avg(clip_similarity) FILTER (NOT {half}) FROM corpus"
    )
    assert true > untrue + 0.1
    # What was measured is not measured again, and a build without --clip keeps it.
    with monkeypatch.context() as patch:
        patch.setattr(gptface_core.clip, "ClipScorer", lambda *_: pytest.fail("loaded a model"))
        assert not run(site, root, clip=tiny_clip).is_new
        assert not run(site, root).is_new
    # Where the weights lie is told nowhere.
    config, told = json.loads(rows(root, "SELECT config FROM releases WHERE release = 2")[0][0]), tiny_clip.split(":")
    assert config["clip"] == config["rules"]["clip_model"] and config["clip"].startswith("open_clip:tiny:")
    assert not any(part in json.dumps(config) for part in told)

    with contextlib.closing(warehouse.connect(root)) as con:
        now = release_rules(con)
    middle = str((true + untrue) / 2)
    cost = what_if(root, now, now.changed("clip_similarity", middle))
    assert 0 < cost.total.lost == cost.reasons["clip_similarity"] < first.kept
    third = run(site, root, rules=RuleParameters(min_clip_similarity=float(middle)))
    assert (third.release, third.reasons["clip_similarity"]) == (3, cost.total.lost)


def test_a_takedown_leaves_no_similarity(site: Site, tmp_path: Path, tiny_clip: str) -> None:
    root = tmp_path / "root"
    run(site, root, clip=tiny_clip)
    ((image_id, caption, url),) = rows(root, "SELECT image_id, caption, image_url FROM corpus ORDER BY row_id LIMIT 1")
    caption_id = hashlib.md5(caption.encode()).hexdigest()
    (path,) = root.glob("raw/*/g000/similarity/*.parquet")
    before = pq.read_table(path).num_rows
    assert caption_id in pq.read_table(path)["caption_id"].to_pylist()
    take_down(TakedownConfig(str(root), sha256s=(image_id,)), InlineRunner())
    assert pq.read_table(path).num_rows == before - 1
    assert rows(root, f"SELECT * FROM history.similarities WHERE image_id = '{image_id}'") == []
    gone = residue(root, [text.encode() for text in (image_id, caption_id, caption, url)])
    assert gone == {}


def test_weights_that_are_not_to_be_had_end_a_build_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'missing.safetensors' is neither a file nor a tag"):
        build(BuildConfig("sample:50", str(tmp_path / "root"), clip="ViT-B-32:missing.safetensors"), InlineRunner())
    assert not (tmp_path / "root").exists()
