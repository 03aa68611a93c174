"""Regions, chained edits, generation, captions and the finding of occluders, on a model trained for seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gptface_core import InputError
from gptface_core.bundle import Bundle, load_bundle
from gptface_core.captioning import caption
from gptface_core.editing import edit, edit_each, paste, soft_edge
from gptface_core.generating import DEFAULT_SAMPLING, generate
from gptface_core.model import SPECIALS
from gptface_core.occluder import WORK_PX, find_occluder
from gptface_core.regions import AUTO_WORDS, CANONICAL, REGIONS, auto_region, region_mask, resize_mask
from gptface_core.sampling import SamplingConfig
from gptface_core.shards import shrink

from .conftest import Micro

QUICK = SamplingConfig(steps=2)


@pytest.fixture(scope="module")
def bundle(micro: Micro) -> Bundle:
    return load_bundle(micro.model_dir)


@pytest.fixture
def crop() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("prompt", "region"),
    [
        ("smiling", "mouth"),
        ("A SERIOUS person", "mouth"),
        ("with eyeglasses", "eyes"),
        ("red hair", "hair"),
        ("clean-shaven, no moustache", "beard"),
        ("a smiling person with glasses", "mouth+eyes"),
        ("an old woman", "all"),
        ("an old woman with a hat", "hair"),  # what names a part wins over what is about the whole face
    ],
)
def test_the_region_is_read_from_the_prompt(prompt: str, region: str) -> None:
    assert auto_region(prompt) == region


def test_a_prompt_that_tells_no_region_asks_for_one() -> None:
    with pytest.raises(InputError, match="no word of 'many captains' tells which part"):
        auto_region("many captains")  # neither "man" nor "cap"
    assert set(AUTO_WORDS) == set(REGIONS)


def test_regions_hang_on_the_faces_own_points() -> None:
    low = CANONICAL + np.array([0.0, 0.1]) * (np.arange(5) >= 3)[:, None]  # the mouth of a long face
    usual, moved = (region_mask("mouth", 200, points * 200) for points in (CANONICAL, low))
    assert np.array_equal(region_mask("mouth", 200), usual)
    assert np.array_equal(np.roll(usual, 20, axis=0), moved)
    assert np.array_equal(region_mask("eyes", 200, low * 200), region_mask("eyes", 200))
    both = region_mask("mouth+eyes", 200)
    assert np.array_equal(both, usual | region_mask("eyes", 200))


def test_a_region_outside_of_the_crop_is_refused() -> None:
    with pytest.raises(InputError, match="'mouth' lies outside"):
        region_mask("mouth", 64, (CANONICAL + np.array([0, 0.6])) * 64)
    with pytest.raises(InputError, match="no region 'knee'"):
        region_mask("mouth+knee", 64)


def test_chained_edits_fill_each_region_by_its_own_prompt(bundle: Bundle, crop: np.ndarray) -> None:
    regions = ["mouth", "hair"]
    both = edit(bundle, crop, ["red face", "blue face"], regions, seed=1, samples=2, steps=2)
    expected = region_mask("mouth+hair", 64)
    assert np.array_equal(both.region, expected)
    for image in both.images:
        assert np.array_equal(image[~expected], crop[~expected])
    first = edit(bundle, crop, "red face", "mouth", seed=1, samples=2, steps=2)
    # The second edit starts from the first one's tokens: where it does not reach, those are left.
    inner = region_mask("mouth", 64) & ~resize_mask(edit(bundle, crop, "blue face", "hair", steps=1).slots, 64)
    kept = np.abs(both.fills[0].astype(int) - first.fills[0].astype(int))[inner]
    untouched = edit(bundle, crop, "blue face", "hair", seed=1, steps=2).fills[0]
    assert kept.mean() < np.abs(both.fills[0].astype(int) - untouched.astype(int))[inner].mean()


def test_prompts_and_regions_must_pair_up(bundle: Bundle, crop: np.ndarray) -> None:
    with pytest.raises(InputError, match="2 regions for 3 prompts"):
        edit(bundle, crop, ["a", "b", "c"], ["mouth", "hair"])
    with pytest.raises(InputError, match="region auto is read from the prompt"):
        edit(bundle, crop, [])


def test_a_region_can_be_filled_without_a_prompt(bundle: Bundle, crop: np.ndarray) -> None:
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    result = edit(bundle, crop, [], mask, samples=2, steps=2, temperature=1.0)
    assert result.matches == []
    for image in result.images:
        assert np.array_equal(image[~mask], crop[~mask]) and not np.array_equal(image, crop)


def test_many_crops_at_once_are_edited_as_one_by_one(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    crops = [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(5)]
    # Faces of several lengths: their mouths cover different numbers of tokens.
    points = [(CANONICAL + np.array([0, 0.03 * i]) * (np.arange(5) >= 3)[:, None]) * 64 for i in range(5)]
    many = list(edit_each(bundle, crops, "smiling red face", points=points, seeds=range(5), steps=3, batch=2))
    for seed, (crop, place, found) in enumerate(zip(crops, points, many, strict=True)):
        alone = edit(bundle, crop, "smiling red face", points=place, seed=seed, steps=3)
        assert np.array_equal(found.images[0], alone.images[0]) and np.array_equal(found.region, alone.region)
        assert found.matches == pytest.approx(alone.matches, abs=1e-5) and found.unknown_words == alone.unknown_words
    masks = [region_mask("hair", 64), region_mask("mouth", 64)]
    for seed, (mask, found) in enumerate(
        zip(masks, edit_each(bundle, crops[:2], "", masks, seeds=[0, 1]), strict=True)
    ):
        assert found.matches == [] and np.array_equal(found.region, mask)
        assert np.array_equal(found.images[0], edit(bundle, crops[seed], [], mask, seed=seed).images[0])


def test_the_sheet_shows_input_region_and_samples(bundle: Bundle, crop: np.ndarray, tmp_path: Path) -> None:
    edit(bundle, crop, "red face " * 3, "mouth", samples=3, steps=1, sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        cells = 5
        assert sheet.width == cells * 256 + (cells - 1) * 2 and sheet.height > 256
        title = np.asarray(sheet.convert("L"))[: sheet.height - 256]
    assert (title < 100).any()


def test_the_soft_edge_rises_inwards_and_the_photo_has_an_edge_at_the_crops_border() -> None:
    mask = np.zeros((100, 100), bool)
    mask[:40] = True
    soft = soft_edge(mask)
    assert soft[~mask].max() == 0 and soft[0].min() == 1 and 0 < soft[39, 50] < soft[38, 50] <= 1
    assert soft_edge(mask, border=True)[0].max() < 1
    black, white = np.zeros((100, 100, 3), np.uint8), np.full((100, 100, 3), 255, np.uint8)
    pasted = paste(black, white, mask)[:, 50, 0]
    assert (np.diff(pasted[:60].astype(int)) <= 0).all() and set(pasted[40:]) == {0}


def test_faces_from_a_prompt(bundle: Bundle) -> None:
    made = generate(bundle, "red face zebra", 3, QUICK, seed=2)
    size = bundle.image.config.image_px
    assert made.images.shape == (3, size, size, 3) and made.unknown_words == ["zebra"]
    assert len(made.matches) == 3 and all(0 < match < 1 for match in made.matches)
    assert np.array_equal(made.images, generate(bundle, "red face zebra", 3, QUICK, seed=2).images)
    assert not np.array_equal(made.images[0], made.images[1])
    with pytest.raises(InputError, match="prompt is empty"):
        generate(bundle, " ")
    assert DEFAULT_SAMPLING.guidance is not None


def test_captions_are_words_of_the_corpus_best_first(bundle: Bundle, crop: np.ndarray) -> None:
    found = caption(bundle, crop, samples=4, config=QUICK, seed=1)
    known = {word for token in range(1, bundle.text.size) for word in bundle.text.decode([token]).split()}
    assert 1 <= len(found) <= 4 and len({each.text for each in found}) == len(found)
    assert [each.match for each in found] == sorted((each.match for each in found), reverse=True)
    for each in found:
        assert each.text and bundle.text.encode(each.text) and "<" not in each.text
        assert set(each.text.split()) <= known
    assert found == caption(bundle, crop, samples=4, config=QUICK, seed=1)


def test_a_template_keeps_its_words(bundle: Bundle, crop: np.ndarray) -> None:
    (found,) = caption(bundle, crop, "a ___ face number ___", config=QUICK)
    ids = bundle.text.encode(found.text)
    assert len(ids) == 5
    assert [ids[0], ids[2], ids[3]] == bundle.text.encode("a face number")
    with pytest.raises(InputError, match="has no blank: write ___"):
        caption(bundle, crop, "a red face")
    with pytest.raises(InputError, match="has 13 tokens, this model reads 12"):
        caption(bundle, crop, "a ___ face " + "a " * 10)


def _likes_blue(bundle: Bundle, crop: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tokens of `crop`'s middle unlikely and all others certain, whatever is hidden."""
    model = bundle.model
    ids = bundle.image_ids(shrink(crop, bundle.image.config.image_px)[None]) - model.first_code
    middle = torch.zeros(4, 4, dtype=torch.bool)
    middle[2:, 1:3] = True
    logits = torch.nn.functional.one_hot(ids, model.config.codes).float() * 12
    logits[0, middle.flatten()] *= -1
    monkeypatch.setattr(model, "image_logits", lambda states: logits.expand(len(states), -1, -1))


def test_an_occluder_is_what_is_unlikely_and_of_one_colour(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    crop = np.full((64, 64, 3), (200, 170, 150), np.uint8)
    covered = np.zeros((64, 64), bool)
    covered[34:60, 18:46] = True
    crop[covered] = (40, 60, 160)
    crop[2:12, 2:20] = (40, 160, 60)  # another patch of one colour, which the model finds likely
    _likes_blue(bundle, crop, monkeypatch)
    found = find_occluder(bundle, crop)
    overlap = (found.region & covered).sum() / (found.region | covered).sum()
    assert overlap > 0.6 and found.region[covered].mean() > 0.85 and not found.region[:14].any()
    assert found.sure
    wide = found.to_fill()
    assert wide[found.region].all() and wide.sum() > 1.1 * found.region.sum()


def test_a_plain_crop_holds_no_occluder(bundle: Bundle) -> None:
    assert WORK_PX < 256
    with pytest.raises(InputError, match="nothing in this picture could cover the face"):
        find_occluder(bundle, np.full((64, 64, 3), 90, np.uint8))


def test_captions_never_hold_special_tokens(bundle: Bundle, crop: np.ndarray) -> None:
    before = bundle.model.text_bias.data.clone()
    bundle.model.text_bias.data[0] = 50.0  # <unk>
    try:
        (found,) = caption(bundle, crop, "a ___ face", config=QUICK)
    finally:
        bundle.model.text_bias.data = before
    assert len(bundle.text.encode(found.text)) == 3 and SPECIALS == 5
