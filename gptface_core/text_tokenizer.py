"""Captions <-> token ids: CLIP's byte-pair encoding as open_clip ships it, its vocabulary pruned to the corpus.

The merges are CLIP's, so a caption is always cut the same way; pruning only renumbers the tokens that occur, because a
table of 49,408 rows costs a small model more than its transformer. A token outside the vocabulary becomes `<unk>`.
Every caption and prompt is cleaned here, on its way to ids, so that a prompt cannot differ from a caption in spaces,
unseen characters, marks at its ends, or case.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from gptface_core.config import FORMAT_VERSION
from gptface_core.errors import InputError
from gptface_core.files import write_text

FILE = "text_tokenizer.json"
UNKNOWN = 0  # id of <unk>; ids here count from 0, the model shifts them past its special tokens
_CLIP_MODULE = "gptface_core._open_clip_tokenizer"
_EDGES = " ,;:|-–—•·"


def clean_caption(text: str) -> str:
    """A caption as the corpus has it (`warehouse/captions.py`), addresses and numbers apart: NFC, single spaces, no
    unseen characters, empty brackets or doubled marks. Cleaning twice changes nothing. CLIP's own cleaning (mended
    encodings and entities, lower case) follows in `TextTokenizer`."""
    spaced = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text))
    seen = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf", "Co"))
    bare = re.sub(r"\(\s*\)|\[\s*\]", " ", seen)
    marked = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", re.sub(r"\s+([,.;:!?])", r"\1", bare))
    return re.sub(" +", " ", marked).strip(_EDGES)


def _clip() -> Any:
    """CLIP's tokenizer. Its module is loaded by itself: the package around it (timm, torchvision) takes 7 s more."""
    module = sys.modules.get("open_clip.tokenizer") or sys.modules.get(_CLIP_MODULE) or _load_clip()
    return module.SimpleTokenizer()


def _load_clip() -> ModuleType:
    package = importlib.util.find_spec("open_clip")  # finds, but does not execute, the package
    if package is None or not package.submodule_search_locations:
        raise ImportError("open_clip_torch is not installed: run `make setup`")
    file = Path(next(iter(package.submodule_search_locations))) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location(_CLIP_MODULE, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    module = sys.modules[_CLIP_MODULE] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_CLIP_MODULE]
        raise
    return module


class TextTokenizer:
    """`encode` and `decode` between captions and ids 0..size-1 (0 is `<unk>`)."""

    def __init__(self, clip_ids: Sequence[int]) -> None:
        self.clip_ids = tuple(clip_ids)  # id i+1 of ours is CLIP's clip_ids[i]
        self._ours = {clip_id: i + 1 for i, clip_id in enumerate(self.clip_ids)}

    @cached_property
    def _bpe(self) -> Any:
        return _clip()

    @property
    def size(self) -> int:
        return len(self.clip_ids) + 1

    @classmethod
    def from_corpus(cls, captions: Iterable[str]) -> TextTokenizer:
        """The tokens of these captions, the most frequent first (ties by CLIP's number: deterministic)."""
        bpe, counts = _clip(), Counter[int]()
        for caption, times in Counter(captions).items():
            for clip_id in bpe.encode(clean_caption(caption)):
                counts[clip_id] += times
        tokenizer = cls(sorted(counts, key=lambda i: (-counts[i], i)))
        tokenizer.__dict__["_bpe"] = bpe
        return tokenizer

    @classmethod
    def full(cls) -> TextTokenizer:
        """All of CLIP's vocabulary but its two special tokens, which the model has of its own."""
        bpe = _clip()
        return cls([i for i in range(bpe.vocab_size) if i not in bpe.all_special_ids])

    def extended(self, other: TextTokenizer) -> TextTokenizer:
        """This vocabulary, every id as it is, and after it the tokens that only `other` has."""
        return TextTokenizer((*self.clip_ids, *(i for i in other.clip_ids if i not in self._ours)))

    def encode(self, caption: str, limit: int | None = None) -> list[int]:
        """Ids of a caption, cut to `limit`."""
        return [self._ours.get(i, UNKNOWN) for i in self._bpe.encode(clean_caption(caption))][:limit]

    def decode(self, ids: Iterable[int]) -> str:
        known = [self.clip_ids[i - 1] for i in ids if 0 < i < self.size]
        return str(self._bpe.decode(known)).strip()

    def unknown_words(self, text: str) -> list[str]:
        """The words of `text` with a token that the corpus never showed: the model cannot know them."""
        return [word for word in text.split() if UNKNOWN in self.encode(word)]

    def digest(self) -> str:
        return hashlib.blake2b(json.dumps(self.clip_ids).encode(), digest_size=16).hexdigest()

    def save(self, folder: Path) -> None:
        words = [self._bpe.decoder[i] for i in self.clip_ids]  # for the reader; loading needs the numbers alone
        document = {"version": FORMAT_VERSION, "bpe": "open_clip", "clip_ids": self.clip_ids, "tokens": words}
        write_text(folder / FILE, json.dumps(document, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Raises InputError where `folder` holds no text vocabulary, or one of another version."""
        try:
            document = json.loads((folder / FILE).read_text(encoding="utf-8"))
            version, clip_ids = document["version"], [int(i) for i in document["clip_ids"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} holds no text vocabulary ({FILE}): name the folder of a trained model"
            ) from error
        if version != FORMAT_VERSION:
            raise InputError(
                f"{folder} has model format {version}, this program reads {FORMAT_VERSION}: train it again"
            )
        return cls(clip_ids)
