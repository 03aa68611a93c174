"""A trained model folder as one object: the transformer, and the processor that feeds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from gptface_core.image_tokenizer import PictureTokenizer, load_image_tokenizer
from gptface_core.model import GPTFace, check_version
from gptface_core.processor import GPTFaceProcessor
from gptface_core.shards import Pictures
from gptface_core.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Bundle:
    model: GPTFace
    image: PictureTokenizer
    text: TextTokenizer

    @cached_property
    def processor(self) -> GPTFaceProcessor:
        return GPTFaceProcessor(self.image, self.text, self.model.config.max_text_tokens)

    def text_ids(self, captions: list[str]) -> Tensor:
        """(B, L) ids of the model's table, cut to the context and padded to the longest of these captions."""
        return self.processor.text_ids(captions)

    def image_ids(self, pictures: Pictures) -> Tensor:
        """(B, N) ids of uint8 pictures (B, P, P, 3) at the tokenizer's size."""
        return self.processor.image_ids(pictures)

    def decode(self, image_ids: Tensor) -> Pictures:
        """uint8 pictures (B, P, P, 3) of ids (B, N)."""
        return self.processor.decode_images(image_ids)


def load_bundle(model_dir: Path | str) -> Bundle:
    """Raises InputError, one line, where the folder is no trained model or one of another version."""
    folder = Path(model_dir)
    check_version(folder)  # first: a folder that is not there must not be looked for on the Hub
    model = GPTFace.from_pretrained(folder).eval()
    return Bundle(model, load_image_tokenizer(folder), TextTokenizer.load(folder))
