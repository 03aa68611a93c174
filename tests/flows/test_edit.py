"""Editing photos by the steps and by the command line, with a model trained for seconds and drawn faces."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.steps.config import ConfigError
from flows.steps.edit import Decoding, EditedPhoto, EditTask, edit_photo
from flows.steps.generate import caption_photo, generate_faces
from flows.steps.photo import open_portrait, paste_crop
from gptface_core import InputError
from gptface_core.faces.align import align_crop, frame_to_crop

# A turned face, so that the way back is not along the pixel grid.
pytestmark = pytest.mark.e2e  # photo to photo, through a model that is trained here

POINTS = np.array([[120, 130], [170, 140], [142, 165], [118, 185], [160, 194]], dtype=np.float32)
QUICK = Decoding(steps=2, seed=1)


@pytest.fixture
def photo() -> np.ndarray:
    """Smooth (so that two warps cost little) and different everywhere."""
    y, x = np.mgrid[0:300, 0:400].astype(np.float32)
    planes = [128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 50), 128 + 60 * np.sin((x + y) / 60)]
    return np.stack(planes, -1).astype(np.uint8)


@pytest.fixture(scope="session")
def model_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a model `m`, of a micro training."""
    from gptface_core.training import train
    from tests.gptface_core.micro import micro_preset, write_corpus

    folder = tmp_path_factory.mktemp("edit")
    shards, _ = write_corpus(folder)
    train(shards, folder / "models" / "m", micro_preset(), seed=5)
    return folder


def _drawn_face() -> np.ndarray:
    from sample_web.render import render_face, sample_attributes

    plain = dataclasses.replace(sample_attributes(3, 0), face_mask=False, yaw_deg=0.0, roll_deg=0.0, skin_tone=1)
    return np.asarray(render_face(plain, 3, 256))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `one.png` (a face beside a wall), `two.png` (two faces) and `none.png`."""
    folder, face = tmp_path_factory.mktemp("faces"), _drawn_face()
    wall = np.full((256, 200, 3), 180, np.uint8)
    Image.fromarray(np.hstack([face, wall])).save(folder / "one.png")
    Image.fromarray(np.hstack([face, wall, face[::, ::-1]])).save(folder / "two.png")
    Image.new("RGB", (200, 200), "white").save(folder / "none.png")
    return folder


def _edit(faces: Path, root: Path, target: Path, task: EditTask, decoding: Decoding = QUICK) -> EditedPhoto:
    return edit_photo(faces / "one.png", task, root, "m", target, "cascade", decoding)


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_region_beyond_the_edge_of_the_photo_is_said(faces: Path, model_root: Path, tmp_path: Path) -> None:
    narrow, crop = _pixels(faces / "one.png")[34:], np.zeros((256, 256), np.uint8)  # the top of the hair is cut off
    Image.fromarray(narrow).save(tmp_path / "narrow.png")
    for name, rows in (("above", 4), ("partly", 100)):
        crop[:rows] = 255
        Image.fromarray(crop).save(tmp_path / f"{name}.png")
    task = EditTask(("red hair",), (str(tmp_path / "partly.png"),))
    arguments = (model_root, "m", tmp_path / "out.png", "cascade", QUICK)
    edited = edit_photo(tmp_path / "narrow.png", task, *arguments)
    assert "of the region lie beyond the photo's edge" in edited.notes[0]
    task = EditTask(("red hair",), (str(tmp_path / "above.png"),))
    with pytest.raises(ConfigError, match="lies beyond the photo's edge: choose another"):
        edit_photo(tmp_path / "narrow.png", task, *arguments)


def test_an_unchanged_crop_goes_back_to_where_it_came_from(photo: np.ndarray) -> None:
    crop = align_crop(photo, POINTS)
    back = paste_crop(photo, crop, np.ones(crop.shape[:2], bool), POINTS)
    assert np.abs(back.astype(int) - photo.astype(int)).max() <= 6


def test_only_the_region_changes(photo: np.ndarray) -> None:
    crop = align_crop(photo, POINTS)
    region = np.zeros(crop.shape[:2], bool)
    region[150:220, 60:200] = True
    painted = np.where(region[..., None], np.uint8(255), crop)
    edited = paste_crop(photo, painted, region, POINTS)
    changed = (edited != photo).any(-1)
    assert changed.any()
    # What changed lies where the region's own warp says, and every other byte is the photo's.
    expected = paste_crop(np.zeros_like(photo), np.full_like(crop, 255), region, POINTS).any(-1)
    assert not (changed & ~expected).any()
    assert changed.sum() > 0.5 * expected.sum()


def test_a_photo_changes_in_its_region_alone(model_root: Path, faces: Path, tmp_path: Path) -> None:
    task, before = EditTask(("red face",), ("mouth",)), _pixels(faces / "one.png")
    result = _edit(faces, model_root, tmp_path / "out.png", task, dataclasses.replace(QUICK, samples=2))
    assert [path.name for path in result.photos] == ["out.png", "out-2.png"] and result.sheet.is_file()
    # The mouth, from the face's own points and with room for one pixel of the crop: everything else bit for bit.
    points = open_portrait(faces / "one.png", "cascade").points
    y, x = np.mgrid[0 : before.shape[0], 0 : before.shape[1]]
    matrix = frame_to_crop(points, 1)
    across, down = (np.stack([x, y], -1) @ matrix[:, :2].T + matrix[:, 2] + 0.5).transpose(2, 0, 1)
    mouth = frame_to_crop(points, 1) @ np.append((points[3] + points[4]) / 2 - 0.5, 1) + 0.5
    near = (abs(across - mouth[0]) < 0.25 + 2 / 256) & (abs(down - mouth[1]) < 0.13 + 2 / 256)
    for path in result.photos:
        changed = (_pixels(path) != before).any(-1)
        assert changed.sum() > 0.5 * near.sum() and not (changed & ~near).any()
    assert len(result.matches) == 2 and result.unknown_words == ()


def test_the_same_seed_gives_the_same_bytes(model_root: Path, faces: Path, tmp_path: Path) -> None:
    task = EditTask(("red face", "blue face"), ("mouth", "hair"))
    paths = [_edit(faces, model_root, tmp_path / f"{i}.png", task).photos[0] for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_mask_over_the_photo_is_kept_to_the_pixel(model_root: Path, faces: Path, tmp_path: Path) -> None:
    before = _pixels(faces / "one.png")
    mask = np.zeros(before.shape[:2], bool)
    mask[100:180, 90:400] = True  # over the face and far beyond
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    result = _edit(faces, model_root, tmp_path / "out.png", EditTask(mask=tmp_path / "mask.png"))
    changed = (_pixels(result.photos[0]) != before).any(-1)
    assert changed[110:170, 100:170].mean() > 0.5 and not (changed & ~mask).any()
    assert "of the mask lie beyond the face's crop" in result.notes[0]


def test_unmask_finds_the_region_itself_and_gives_different_fillings(
    model_root: Path, faces: Path, tmp_path: Path
) -> None:
    before = _pixels(faces / "one.png").copy()
    before[150:215, 85:170] = (60, 110, 200)  # a bar over mouth and chin
    Image.fromarray(before).save(tmp_path / "one.png")
    result = _edit(tmp_path, model_root, tmp_path / "out.png", EditTask(task="unmask"))
    assert len(result.photos) == 3 and result.matches == ()
    edits = [_pixels(path) for path in result.photos]
    assert not np.array_equal(edits[0], edits[1])
    changed = (edits[0] != before).any(-1)
    assert 0 < changed.mean() < 0.6 and not changed[:, 300:].any()


def _refused(faces: Path, root: Path, tmp_path: Path, task: EditTask, photo: str = "one.png") -> str:
    with pytest.raises((ConfigError, InputError)) as caught:
        edit_photo(faces / photo, task, root, "m", tmp_path / "out.png", "cascade", QUICK)
    assert not (tmp_path / "out.png").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


SMILE = EditTask(("red face",), ("mouth",))


@pytest.mark.parametrize(
    ("photo", "task", "says"),
    [
        ("missing.png", SMILE, "no such picture"),
        ("none.png", SMILE, "found no face"),
        ("two.png", SMILE, "found 2 faces: add --face N, from 1 (the largest) to 2"),
        ("two.png", dataclasses.replace(SMILE, face=3), "no face 3, found 2"),
        ("one.png", EditTask(("red face",), ("knee",)), "no region 'knee': choose mouth"),
        ("one.png", EditTask(("red face",)), "no word of 'red face' tells which part"),
        ("one.png", EditTask(("red " * 40,), ("mouth",)), "the prompt has 40 tokens, this model reads 12"),
        ("one.png", EditTask((" ",), ("mouth",)), "prompt is empty"),
        ("one.png", EditTask(), "nothing to do: add --prompt"),
        ("one.png", EditTask(("red",), task="paint"), "no task 'paint': choose edit or unmask"),
        ("one.png", EditTask(("red",), ("mouth",), task="unmask"), "leave out --region mouth"),
        ("one.png", EditTask(("red",), ("mouth", "hair")), "2 regions for 1 prompts"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    model_root: Path, faces: Path, tmp_path: Path, photo: str, task: EditTask, says: str
) -> None:
    assert says in _refused(faces, model_root, tmp_path, task, photo)


def test_masks_that_do_not_fit(model_root: Path, faces: Path, tmp_path: Path) -> None:
    def saved(name: str, mask: np.ndarray) -> Path:
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / name)
        return tmp_path / name

    height, width = _pixels(faces / "one.png").shape[:2]
    outside = np.zeros((height, width), bool)
    outside[:, 440:] = True
    cases = {
        "is 10 x 20 px, the photo": saved("size.png", np.ones((20, 10), bool)),
        "is black all over": saved("black.png", np.zeros((height, width), bool)),
        "lies outside of the face": saved("outside.png", outside),
    }
    for says, mask in cases.items():
        assert says in _refused(faces, model_root, tmp_path, EditTask(mask=mask))
    region = EditTask(("red face",), (str(cases["is 10 x 20 px, the photo"]),))
    assert "square crop" in _refused(faces, model_root, tmp_path, region)
    assert "leave out --region" in _refused(
        faces, model_root, tmp_path, EditTask(("red",), ("mouth",), mask=tmp_path / "outside.png")
    )


@pytest.mark.parametrize("content", [b"GIF89a is not all there is to it", b""])
def test_what_is_no_picture_is_named(model_root: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.gif").write_bytes(content)
    assert "not a picture" in _refused(tmp_path, model_root, tmp_path, SMILE, "photo.gif")


def test_models_that_cannot_be_used(model_root: Path, faces: Path, tmp_path: Path) -> None:
    assert "no trained model 'm': there is none yet" in _refused(faces, tmp_path / "empty", tmp_path, SMILE)
    for name in ("model.safetensors", "image_tokenizer.safetensors"):
        root = tmp_path / name
        shutil.copytree(model_root / "models", root / "models")
        weights = root / "models" / "m" / name
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        assert str(root / "models" / "m") in _refused(faces, root, tmp_path, SMILE)
    config = root / "models" / "m" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "format_version": 99}))
    assert "model format 99" in _refused(faces, root, tmp_path, SMILE)


def test_only_a_png_keeps_bytes(model_root: Path, faces: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name a \.png"):
        edit_photo(faces / "one.png", SMILE, model_root, "m", tmp_path / "out.jpg", "cascade", QUICK)


def test_faces_are_generated_and_captioned(model_root: Path, faces: Path, tmp_path: Path) -> None:
    made = generate_faces("red face", model_root, "m", tmp_path / "face.png", dataclasses.replace(QUICK, samples=2))
    assert [path.name for path in made.pictures] == ["face.png", "face-2.png"] and made.sheet.is_file()
    found = caption_photo(
        faces / "two.png", model_root, "m", "a ___ face", "cascade", 2, dataclasses.replace(QUICK, samples=3)
    )
    assert 1 <= len(found) <= 3 and all(0 < each.match < 1 for each in found)


def test_the_command_line(model_root: Path, faces: Path, tmp_path: Path) -> None:
    from flows.cli.app import app

    run, common = CliRunner(), ["--root", str(model_root), "--steps", "2"]
    shutil.copy(faces / "one.png", tmp_path / "one.png")
    photo = [str(tmp_path / "one.png"), "--detector", "cascade"]
    done = run.invoke(app, ["edit", *photo, "--prompt", "red zebra hair", *common, "--best-of", "2"])
    assert done.exit_code == 0, done.output
    assert "one-edited.png" in done.output and "one-edited-sheet.png" in done.output and "zebra" in done.output
    assert (tmp_path / "one-edited.png").is_file()
    # An edit of the output is a chained edit too.
    again = [str(tmp_path / "one-edited.png"), "--detector", "cascade", "--prompt", "red face", "--region", "mouth"]
    assert run.invoke(app, ["edit", *again, *common]).exit_code == 0
    out = str(tmp_path / "face.png")
    done = run.invoke(app, ["generate", "--prompt", "red face", "--samples", "2", "--out", out, *common])
    assert done.exit_code == 0 and "face-2.png" in done.output, done.output
    done = run.invoke(app, ["caption", *photo, *common, "--method", "none"])
    assert done.exit_code == 0 and "(matching 0." in done.output, done.output


@pytest.mark.parametrize("name", ["edit", "generate", "caption"])
def test_each_command_has_help_with_an_example(name: str) -> None:
    from flows.cli.app import app

    done = CliRunner().invoke(app, [name, "--help"], terminal_width=120)
    assert done.exit_code == 0 and f"Example: gptface {name}" in done.output
