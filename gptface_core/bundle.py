"""A trained model folder as one object: transformer, image tokenizer, text vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gptface_core.image_tokenizer import ImageTokenizer
from gptface_core.model import GPTFace
from gptface_core.shards import Pictures
from gptface_core.text_tokenizer import TextTokenizer
from gptface_core.tokens import encode_pictures, pad_text, to_pictures


@dataclass(frozen=True)
class Bundle:
    model: GPTFace
    image: ImageTokenizer
    text: TextTokenizer

    def text_ids(self, captions: list[str]) -> Tensor:
        """(B, L) ids of the model's table, cut to the context and padded to the longest of these captions."""
        limit = self.model.config.max_text_tokens
        rows = [self.text.encode(caption, limit) for caption in captions]
        return torch.from_numpy(pad_text(rows, max(1, *(len(row) for row in rows)))[0])

    def image_ids(self, pictures: Pictures) -> Tensor:
        """(B, N) ids of uint8 pictures (B, P, P, 3) at the tokenizer's size."""
        return torch.from_numpy(encode_pictures(self.image, pictures)) + self.model.first_code

    def decode(self, image_ids: Tensor) -> Pictures:
        """uint8 pictures (B, P, P, 3) of ids (B, N)."""
        return to_pictures(self.image.decode(image_ids - self.model.first_code))


def load_bundle(model_dir: Path | str) -> Bundle:
    """Raises InputError, one line, where the folder is no trained model or one of another version."""
    folder = Path(model_dir)
    model = GPTFace.from_pretrained(folder).eval()
    return Bundle(model, ImageTokenizer.load(folder), TextTokenizer.load(folder))
