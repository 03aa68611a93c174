"""Train, evaluate, edit and report on a real lake, with a preset so small that all of it takes seconds."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

import warehouse
from tests.flows.conftest import Gptface

pytestmark = pytest.mark.e2e

MICRO = {
    "preset": "demo",
    "name": "micro",
    "threads": 1,
    "tokenizer": {"image_px": 32, "grid": 4, "levels": [4, 4], "width": 16, "blocks": 1},
    "model": {"layers": 1, "width": 16, "heads": 2, "projection_dim": 8},
    "tokenizer_training": {"steps": 8, "batch": 8},
    "training": {
        "modelling_steps": 3,
        "warmup_steps": 3,
        "warmup_batch": 8,
        "steps": 4,
        "milm_batch": 8,
        "itm_batch": 8,
    },
}


@pytest.fixture(scope="module")
def trained_root(built_root: Path, gptface: Gptface, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built root (so a root may be moved) with a trained and evaluated model."""
    root = tmp_path_factory.mktemp("trained") / "root"
    shutil.copytree(built_root, root)
    preset = root.parent / "micro.json"
    preset.write_text(json.dumps(MICRO))
    done = gptface("train", "--root", root, "--preset", preset)
    assert done.returncode == 0, done.stderr
    done = gptface("evaluate", "--root", root)
    assert done.returncode == 0, done.stderr
    return root


def test_model_and_figures_are_rows_of_the_lake(trained_root: Path) -> None:
    with contextlib.closing(warehouse.connect(trained_root)) as con:
        models = con.execute("SELECT model, release, path FROM models").fetchall()
        metrics = dict(con.execute("SELECT metric, value FROM evaluations").fetchall())
        kinds = [row[0] for row in con.execute("SELECT kind FROM runs ORDER BY started_at").fetchall()]
    assert models == [("micro-r00001-s0", 1, "models/micro-r00001-s0")]
    assert {"itm_accuracy", "inpaint_gain_db", "mim_gain_nats"} <= set(metrics)
    assert kinds[-2:] == ["train", "evaluate"]


def test_what_was_not_measured_is_said(trained_root: Path, gptface: Gptface) -> None:
    done = gptface("evaluate", "--root", trained_root)
    assert "left out: probe_balanced_accuracy" in done.stdout.replace("\n", " ")


def test_the_report_shows_the_model(trained_root: Path, gptface: Gptface) -> None:
    done = gptface("report", "--root", trained_root)
    assert done.returncode == 0, done.stderr
    page = (trained_root / "reports" / "index.html").read_text()
    assert "micro-r00001-s0" in page
    for title in ("Reconstructions", "Inpaintings", "Edit"):
        assert title in page


def test_training_again_finds_the_finished_model(trained_root: Path, gptface: Gptface) -> None:
    weights = trained_root / "models" / "micro-r00001-s0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    preset = trained_root.parent / "micro.json"
    assert gptface("train", "--root", trained_root, "--preset", preset).returncode == 0
    assert weights.stat().st_mtime_ns == before


def test_a_photo_is_edited_in_place(trained_root: Path, gptface: Gptface, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from sample_web.render import render_face, sample_attributes

    attributes = next(a for a in (sample_attributes(n, 5) for n in range(99)) if a.frontal and not a.face_mask)
    photo = render_face(attributes, 3, size_px=320)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    words = ("--prompt", "a smiling face", "--region", "mouth", "--root", trained_root, "--detector", "cascade")
    done = gptface("edit", tmp_path / "photo.png", *words)
    assert done.returncode == 0, done.stderr
    edited = np.asarray(Image.open(tmp_path / "photo-edited.png"))
    changed = (edited != photo).any(-1)
    assert changed.any()
    assert not changed[:150].any(), "something changed above the nose"
    assert (tmp_path / "photo-edited-sheet.png").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "--preset", "huge"), "no preset 'huge'"),
        (("train", "--release", "9"), "no release 9"),
        (("evaluate", "--model", "nobody"), "no trained model 'nobody': there is micro-r00001-s0"),
        (("evaluate", "--labels", "nowhere.parquet"), "no labels at nowhere.parquet"),
    ],
)
def test_what_does_not_fit_is_one_line(trained_root: Path, gptface: Gptface, words: tuple[str, ...], says: str) -> None:
    done = gptface(*words, "--root", trained_root)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
