"""Text to face: all image slots filled from nothing, to fit a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gptface_core.bundle import Bundle
from gptface_core.canvas import Canvas
from gptface_core.editing import DEFAULT_GUIDANCE, prompt_ids
from gptface_core.model import MASK_I
from gptface_core.sampling import SamplingConfig, fill
from gptface_core.shards import Pictures

DEFAULT_SAMPLING = SamplingConfig(steps=12, temperature=0.9, guidance=DEFAULT_GUIDANCE)


@dataclass(frozen=True)
class Generated:
    """`images` uint8 (S, P, P, 3) at the model's size, `matches` their s_1 with the prompt."""

    images: Pictures
    matches: list[float]
    unknown_words: list[str]


def generate(
    bundle: Bundle, prompt: str, samples: int = 4, config: SamplingConfig = DEFAULT_SAMPLING, seed: int = 0
) -> Generated:
    """Faces for a prompt; InputError where the prompt is empty or longer than the model's context."""
    text = prompt_ids(bundle, prompt).expand(samples, -1)
    image = torch.full((samples, bundle.model.config.image_slots), MASK_I)
    canvas = Canvas(bundle.model, text, image, fills_image=True)
    ids = fill(canvas, torch.ones_like(image, dtype=torch.bool), config, torch.Generator().manual_seed(seed))
    return Generated(bundle.decode(ids), canvas.matches(ids), bundle.text.unknown_words(prompt))
