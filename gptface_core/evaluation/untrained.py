"""The same network with random initialisation: the floor that pre-training has to rise from."""

from __future__ import annotations

import torch

from gptface_core.bundle import Bundle
from gptface_core.config import Preset
from gptface_core.configuration import GPTFaceConfig
from gptface_core.image_tokenizer import ImageTokenizer, PictureTokenizer, batches
from gptface_core.model import GPTFace
from gptface_core.shards import Pictures
from gptface_core.tokens import to_tensor

WORDS = 512  # rows of a text table that no picture meets


def untrained_like(bundle: Bundle, seed: int = 0) -> GPTFace:
    """The transformer of a bundle with new random weights; its (trained) image tokenizer is to be used with it."""
    torch.manual_seed(seed)
    return GPTFace(GPTFaceConfig.from_dict(bundle.model.config.to_dict())).eval()


def untrained_preset(preset: Preset, pictures: Pictures, seed: int = 0) -> tuple[GPTFace, PictureTokenizer]:
    """Transformer and image tokenizer of a preset, neither of them trained.

    The tokenizer's normalisation takes its statistics from `pictures` (R, P, P, 3): without them every picture would
    have the same codes. Nothing else is fitted.
    """
    torch.manual_seed(seed)
    tokenizer = ImageTokenizer(preset.tokenizer)
    tokenizer.spread.momentum = None  # a plain mean over the batches
    tokenizer.train()
    with torch.no_grad():
        for rows in batches(len(pictures), 64):
            tokenizer.latent(to_tensor(pictures[rows]))
    model = GPTFace(GPTFaceConfig.of_preset(preset, WORDS, fsq_levels=list(preset.tokenizer.levels)))
    return model.eval(), tokenizer.eval()
