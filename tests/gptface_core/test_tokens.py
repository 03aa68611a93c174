from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from gptface_core.augment import MIN_SIDE, mentions_side, views_of
from gptface_core.config import ImageTokenizerConfig, load_preset, override
from gptface_core.errors import InputError
from gptface_core.image_tokenizer import ImageTokenizer
from gptface_core.shards import decode_jpeg, open_index, read_shard
from gptface_core.text_tokenizer import TextTokenizer
from gptface_core.tokens import MappedCodes, TokenSet, encode_pictures, load_split, tokenise_split

from .micro import write_corpus


def tokenizers() -> tuple[ImageTokenizer, TextTokenizer]:
    torch.manual_seed(0)
    return ImageTokenizer(ImageTokenizerConfig(32, 4, (4, 4), 16, 1)).eval(), TextTokenizer.from_corpus(["a red face"])


def ramp() -> bytes:
    """A picture that tells where a view was cut: red rises to the right, green downwards."""
    line = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack([np.tile(line, (64, 1)), np.tile(line[:, None], (1, 64)), np.zeros((64, 64), np.uint8)], -1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=98, subsampling=0)
    return buffer.getvalue()


def split_with(folder: Path, views: int) -> TokenSet:
    index, (image, text) = open_index(folder / "shards"), tokenizers()
    tokenise_split(index, "train", image, text, folder / "tokens", views=views)
    return load_split(index, "train", image, text, folder / "tokens", 12, views)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    write_corpus(folder)
    return folder


def test_tokens_are_those_of_the_pictures_and_read_from_the_map(corpus: Path) -> None:
    before = pa.total_allocated_bytes()
    tokens = split_with(corpus, 1)
    samples = list(read_shard(open_index(corpus / "shards").splits["train"][0]))
    pictures = np.stack([decode_jpeg(sample.jpeg, 32) for sample in samples])
    assert tokens.row_ids == [sample.row_id for sample in samples] and tokens.views == 1
    assert np.array_equal(tokens.codes[np.arange(len(tokens))], encode_pictures(tokenizers()[0], pictures))
    assert isinstance(tokens.codes, MappedCodes)
    (part,) = tokens.codes.parts
    assert not part.flags.owndata and not part.flags.writeable, "a view of the file"
    assert pa.total_allocated_bytes() == before, "Arrow copied nothing"


def test_one_view_draws_nothing_and_many_are_drawn_from_the_seed(corpus: Path) -> None:
    one, many = split_with(corpus, 1), split_with(corpus, 3)
    rows, rng = np.arange(24), np.random.default_rng(0)
    state = rng.bit_generator.state
    assert np.array_equal(one.codes_of(rows, rng), one.codes[rows]) and rng.bit_generator.state == state
    assert many.views == 3 and np.array_equal(many.codes[rows], one.codes[rows]), "the first view is the picture itself"
    first, again, other = (many.codes_of(rows, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert isinstance(many.codes, MappedCodes)
    drawn = np.random.default_rng(1).integers(3, size=24)
    assert len(set(drawn)) == 3 and np.array_equal(first, many.codes.take(rows, drawn))


def test_files_of_different_views_do_not_meet(corpus: Path) -> None:
    for views in (1, 2):
        split_with(corpus, views)
    names = {path.name for path in (corpus / "tokens").glob("*.arrow")}
    assert len([name for name in names if "views" not in name]) == 1
    assert len([name for name in names if "-2views" in name]) == 1


def test_mapped_codes_index_as_an_array_does() -> None:
    whole = np.random.default_rng(0).integers(0, 99, (7, 2, 5)).astype(np.int32)
    mapped = MappedCodes([whole[:3], whole[3:3], whole[3:]], 5, 2)
    assert mapped.shape == (7, 5) and len(mapped) == 7
    for rows in (np.array([6, 0, 3, 3]), slice(2, 5), 4, np.array([], np.int64)):
        assert np.array_equal(mapped[rows], whole[rows, 0])
        assert mapped[rows].dtype == np.int64
    assert np.array_equal(mapped.take(np.array([6, 0]), np.array([1, 0])), np.stack([whole[6, 1], whole[0, 0]]))
    with pytest.raises(IndexError):
        mapped[np.array([7])]


def test_rows_that_were_taken_down_are_not_read_from_older_files(corpus: Path, tmp_path: Path) -> None:
    import hashlib
    import hmac

    shards, _ = write_corpus(tmp_path)
    everything = split_with(tmp_path, 2)
    gone, key = everything.row_ids[3], b"k" * 32
    stone = hmac.digest(key, f"sample\0{gone}".encode(), hashlib.sha256).hex()[:32]
    (shards / "tombstones.json").write_text(json.dumps({"version": 1, "key": key.hex(), "samples": [stone]}))
    rest = split_with(tmp_path, 2)
    kept = [row for row in range(len(everything)) if row != 3]
    assert rest.row_ids == [everything.row_ids[row] for row in kept]
    assert np.array_equal(rest.codes[:], everything.codes[kept])


@pytest.mark.parametrize(
    ("caption", "side"),
    [
        ("a woman looking LEFT", True),
        ("second from right", True),
        ("left-handed player", True),
        ("links im Bild", True),
        ("copyright 2019", False),
        ("a bright smile", False),
        ("wearing a cleft chin", False),
    ],
)
def test_captions_that_mention_left_or_right(caption: str, side: bool) -> None:
    assert mentions_side(caption) is side


def test_views_keep_most_of_the_face_and_flip_only_where_the_caption_allows() -> None:
    jpeg = ramp()
    for caption, flips in (("a face", True), ("a face from the left", False)):
        views = views_of(jpeg, caption, "row", 33, 32)
        assert views.shape == (33, 32, 32, 3) and np.array_equal(views[0], decode_jpeg(jpeg, 32))
        red = views[1:].astype(int)[:, :, [0, -1], 0].mean(1)  # at the left and at the right edge
        flipped = red[:, 0] > red[:, 1]
        assert (8 < flipped.sum() < 24) if flips else not flipped.any()
        share = np.abs(red[:, 1] - red[:, 0]) / 255
        assert share.min() > MIN_SIDE - 0.06 and share.max() <= 1, "edges are averages over a pixel of 8 levels"
        assert len({round(value, 2) for value in share}) > 5, "scales differ"


def test_views_depend_on_the_row_alone() -> None:
    jpeg = ramp()
    assert np.array_equal(views_of(jpeg, "a", "row", 4, 32), views_of(jpeg, "a", "row", 6, 32)[:4])
    assert not np.array_equal(views_of(jpeg, "a", "row", 4, 32), views_of(jpeg, "a", "other", 4, 32))


def test_the_preset_says_how_many_views() -> None:
    assert load_preset("demo").augment == 1
    with pytest.raises(InputError, match="augment 0: choose from 1"):
        override(load_preset("demo"), {"augment": 0})


def test_takedown_erases_token_files_with_views(tmp_path: Path) -> None:
    from flows.steps.erase_derived import erase_from_models
    from flows.steps.layout import Layout
    from warehouse.removal import Removal

    write_corpus(tmp_path)
    tokens = split_with(tmp_path, 2)
    layout = Layout(tmp_path)
    folder = layout.models / "m" / "tokens"
    folder.parent.mkdir(parents=True)
    (tmp_path / "tokens").rename(folder)
    nobody = Removal(row_ids=frozenset({"someone else"}))
    erase_from_models(layout, nobody, ["m"])
    assert len(list(folder.glob("*.arrow"))) == 1
    erase_from_models(layout, Removal(row_ids=frozenset({tokens.row_ids[5]})), ["m"])
    assert not list(folder.iterdir())
