from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from gptface_core.text_tokenizer import UNKNOWN, TextTokenizer, clean_caption
from warehouse.captions import clean_sql

CAPTIONS = [
    "A smiling woman with  eyeglasses",
    "Ju\u0301lia\u200b \u2014 a\u00a0portrait ,",
    "  man ,; with a beard ( ) ",
    "tab\tand\nnewline [ ]...",
    "\u202eright to left\u202c: 'quoted' – and | more·",
    "日本の女性 的 顔",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_corpus(["a smiling woman", "a man with a beard", "woman"])


def test_cleaning_is_that_of_the_corpus() -> None:
    """Captions pass warehouse's SQL, prompts only this: both must give the same text."""
    for caption in CAPTIONS:
        (corpus,) = duckdb.sql(f"SELECT {clean_sql('$text')}", params={"text": caption}).fetchone() or ("",)
        assert clean_caption(caption) == corpus
        assert clean_caption(corpus) == corpus


@pytest.mark.parametrize(
    "prompt",
    ["A Smiling  WOMAN", " a smiling woman, ", "a smiling\u200b woman", "a smiling&nbsp;woman", "a smiling\nwoman"],
)
def test_a_prompt_is_read_as_the_caption_it_means(tokenizer: TextTokenizer, prompt: str) -> None:
    assert tokenizer.encode(prompt) == tokenizer.encode("a smiling woman")
    assert UNKNOWN not in tokenizer.encode(prompt)


def test_ids_go_back_to_words_and_unknown_words_are_named(tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a woman with a beard")) == "a woman with a beard"
    assert tokenizer.unknown_words("a zebra - smiling") == ["zebra"]
    assert len(tokenizer.encode("a woman with a beard", 3)) == 3


def test_frequent_tokens_come_first_whatever_the_order(tokenizer: TextTokenizer) -> None:
    again = TextTokenizer.from_corpus(["woman", "a man with a beard", "a smiling woman"])
    assert again.clip_ids == tokenizer.clip_ids and again.digest() == tokenizer.digest()
    assert tokenizer.encode("a")[0] == 1, "'a' occurs most often"


def test_the_full_vocabulary_is_clips_without_its_two_marks(tmp_path: Path) -> None:
    full = TextTokenizer.full()
    assert full.size == 49408 - 2 + 1
    assert full.unknown_words("zebra façade 日本 🙂 xqzzt") == []
    full.save(tmp_path)
    assert TextTokenizer.load(tmp_path).encode("a zebra") == full.encode("a zebra")


def test_the_rest_of_open_clip_is_not_imported() -> None:
    """It would take longer than to load a small model."""
    code = """
import sys
from gptface_core.text_tokenizer import TextTokenizer
tokenizer = TextTokenizer.from_corpus(["a smiling person"])
assert tokenizer.decode(tokenizer.encode("a person")) == "a person"
assert not {"open_clip", "timm", "torchvision"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.e2e  # seconds of imports
def test_ids_are_those_of_the_whole_package() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    full = TextTokenizer.full()
    text = "A smiling woman, 30 years old, with \u201ccurly\u201d hair"
    assert [full.clip_ids[i - 1] for i in full.encode(text)] == SimpleTokenizer().encode(text)
