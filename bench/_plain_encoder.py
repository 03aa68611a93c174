"""The plain side of `bench.train_step`: PyTorch's own pre-norm `nn.TransformerEncoderLayer`s in place of our blocks.

Embeddings, logits, heads and losses are ours; the encoder has learned positions, the padding mask that PyTorch takes,
and no bias by offset: what somebody would write with what PyTorch brings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gptface_core.model import PAD, GPTFace, GPTFaceConfig, Hidden


class PlainEncoder(GPTFace):
    """GPTFace whose passes go through `nn.TransformerEncoder`."""

    def __init__(self, config: GPTFaceConfig) -> None:
        super().__init__(config)
        layers = [
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.mlp_ratio * config.width,
                dropout=0.0,
                activation=_gelu,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        ]
        self.blocks = nn.ModuleList(layers)
        del self.offset_bias

    def encode(
        self,
        text_ids: Tensor | None = None,
        image_ids: Tensor | None = None,
        *,
        text_embeddings: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Hidden:
        parts, padding = [], []
        if text_ids is not None:
            parts.append(self._text_part(text_ids, text_embeddings))
            padding.append(nn.functional.pad(text_ids == PAD, (1, 1), value=False))
        if image_ids is not None:
            parts.append(self._image_part(self.embed_image(image_ids), alone=text_ids is None))
            padding.append(torch.zeros(parts[-1].shape[:2], dtype=torch.bool, device=image_ids.device))
        h, mask = torch.cat(parts, 1), torch.cat(padding, 1) if text_ids is not None else None
        for block in self.blocks:
            h = block(h, src_key_padding_mask=mask)
        h = self.norm(h)
        text = h[:, 1 : 1 + text_ids.shape[1]] if text_ids is not None else None
        image = h[:, -1 - self.config.image_slots : -1] if image_ids is not None else None
        return Hidden(h[:, 0], text, image, text_ids != PAD if text_ids is not None else None)


def _gelu(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")
