"""GPTFaceConfig: the shape of a model as transformers saves and loads it."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedConfig

from gptface_core.config import FORMAT_VERSION, Preset


class GPTFaceConfig(PreTrainedConfig):
    """Shape of the model; `provenance` and `resolved` say what it was trained on and how.

    `fsq_levels` are those of the image tokenizer; one without levels gives its number of codes as `image_codes`.
    `pooling` and `freeze_trunk` are of the classifiers in `gptface_core.heads`, as are transformers' `id2label`.
    """

    model_type = "gptface"

    text_vocab_size: int = 512
    fsq_levels: list[int] | None = None
    image_codes: int | None = None
    grid: int = 8
    max_text_tokens: int = 32
    layers: int = 3
    width: int = 64
    heads: int = 4
    mlp_ratio: int = 4
    projection_dim: int = 64
    pooling: str = "cells"
    freeze_trunk: bool = False
    format_version: int = FORMAT_VERSION
    provenance: dict[str, Any] | None = None
    resolved: dict[str, Any] | None = None

    @classmethod
    def of_preset(cls, preset: Preset, text_vocab_size: int, **others: Any) -> GPTFaceConfig:
        """The shape that a preset names, for a vocabulary of this size."""
        shape = preset.model
        return cls(
            text_vocab_size=text_vocab_size,
            grid=preset.tokenizer.grid,
            max_text_tokens=shape.max_text_tokens,
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            mlp_ratio=shape.mlp_ratio,
            projection_dim=shape.projection_dim,
            **others,
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """Empty where image codes have no coordinates."""
        if self.image_codes is not None and not self.fsq_levels:
            return ()
        return tuple(self.fsq_levels or (8, 8, 4))

    @property
    def codes(self) -> int:
        return math.prod(self.levels) if self.levels else int(self.image_codes or 0)

    @property
    def image_slots(self) -> int:
        return self.grid**2
