"""GPTFaceProcessor: pictures and captions to what the model reads, and back.

It has the calls of a transformers processor but is no ProcessorMixin, whose parts must be transformers' own classes:
our image tokenizer is a network, our text tokenizer a pruned vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature

from gptface_core.config import FORMAT_VERSION
from gptface_core.errors import InputError
from gptface_core.files import write_text
from gptface_core.image_tokenizer import PictureTokenizer, load_image_tokenizer
from gptface_core.model import SPECIALS
from gptface_core.shards import Pictures, shrink
from gptface_core.text_tokenizer import TextTokenizer
from gptface_core.tokens import encode_pictures, pad_text, to_pictures

FILE = "processor_config.json"


class GPTFaceProcessor:
    """`processor(images, text)` gives `image_ids` (B, N) and `text_ids` (B, L); `decode_*` goes back."""

    def __init__(self, image_tokenizer: PictureTokenizer, text_tokenizer: TextTokenizer, max_text_tokens: int) -> None:
        self.image_tokenizer = image_tokenizer
        self.text_tokenizer = text_tokenizer
        self.max_text_tokens = max_text_tokens

    @property
    def first_code(self) -> int:
        """The id of image code 0 in the model's table."""
        return SPECIALS + self.text_tokenizer.size

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None) -> BatchFeature:
        """Aligned face crops and captions, one or several of each: `model(**processor(crop, "smiling"))`.

        Crops are square: PIL pictures or uint8 arrays (P, P, 3) of any size, or one array (B, P, P, 3). Captions are
        cut to the context. Raises InputError for a crop that is not square, and where neither is given.
        """
        if images is None and text is None:
            raise InputError("nothing to process: give images, text or both")
        ids = {}
        if text is not None:
            ids["text_ids"] = self.text_ids([text] if isinstance(text, str) else text)
        if images is not None:
            ids["image_ids"] = self.image_ids(self.crops(images))
        return BatchFeature(ids)

    def crops(self, images: Any) -> Pictures:
        """uint8 (B, P, P, 3) at the tokenizer's size."""
        several = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)
        size_px = self.image_tokenizer.config.image_px
        return np.stack([shrink(_rgb(image), size_px) for image in (images if several else [images])])

    def text_ids(self, captions: Sequence[str]) -> Tensor:
        """(B, L) ids of the model's table, cut to the context and padded to the longest of these captions."""
        rows = [self.text_tokenizer.encode(caption, self.max_text_tokens) for caption in captions]
        return torch.from_numpy(pad_text(rows, max([1, *(len(row) for row in rows)]))[0])

    def image_ids(self, pictures: Pictures) -> Tensor:
        """(B, N) ids of uint8 pictures (B, P, P, 3) at the tokenizer's size."""
        return torch.from_numpy(encode_pictures(self.image_tokenizer, pictures)) + self.first_code

    def decode_images(self, image_ids: Tensor) -> Pictures:
        """uint8 pictures (B, P, P, 3) of ids (B, N)."""
        return to_pictures(self.image_tokenizer.decode((image_ids - self.first_code).to(self.image_tokenizer.device)))

    def decode_text(self, text_ids: Tensor) -> list[str]:
        """Captions of ids (B, L); padding, masks and unknown words are left out."""
        return [self.text_tokenizer.decode([i - SPECIALS for i in row]) for row in text_ids.tolist()]

    def save_pretrained(self, folder: Path | str, **_: Any) -> None:
        """Both tokenizers and the context into `folder`, beside a model's files or alone."""
        folder = Path(folder)
        self.image_tokenizer.save(folder)
        self.text_tokenizer.save(folder)
        document = {
            "processor_class": type(self).__name__,
            "format_version": FORMAT_VERSION,
            "max_text_tokens": self.max_text_tokens,
        }
        write_text(folder / FILE, json.dumps(document, indent=1))

    @classmethod
    def from_pretrained(cls, folder: Path | str, **_: Any) -> GPTFaceProcessor:
        """From `save_pretrained`, or from the folder of a trained model, whose config.json has the context.

        Raises InputError where a part is missing, damaged or of another version.
        """
        folder = Path(folder)
        for name in (FILE, "config.json"):
            try:
                context = int(json.loads((folder / name).read_text(encoding="utf-8"))["max_text_tokens"])
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{folder / name} is damaged: name the folder of a trained model") from error
            return cls(load_image_tokenizer(folder), TextTokenizer.load(folder), context)
        raise InputError(f"{folder} holds no processor ({FILE} or config.json): name the folder of a trained model")


def _rgb(image: Any) -> Pictures:
    """uint8 (P, P, 3) of a PIL picture or an array."""
    rgb = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"crop of shape {rgb.shape}, {rgb.dtype}: an aligned square of uint8 RGB is needed")
    return rgb
