"""What decoding fills: the slots of one modality, image or text, of pairs whose other modality is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.model import MASK_I, MASK_T, PAD, SPECIALS, GPTFace


@dataclass(frozen=True)
class Canvas:
    """Pairs of `text_ids` (B, L) and `image_ids` (B, N); the modality that is filled changes and is passed as `ids`."""

    model: GPTFace
    text_ids: Tensor
    image_ids: Tensor
    fills_image: bool

    @property
    def start(self) -> Tensor:
        """The ids of the filled modality before anything is hidden."""
        return self.image_ids if self.fills_image else self.text_ids

    @property
    def mask_id(self) -> int:
        return MASK_I if self.fills_image else MASK_T

    @property
    def first_id(self) -> int:
        """Id of the table that the first logit stands for."""
        return self.model.first_code if self.fills_image else SPECIALS

    def matrix(self) -> Tensor:
        """(V, D) embeddings of what a slot may hold."""
        return self.model.image_matrix() if self.fills_image else self.model.text_matrix()

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.image_logits(hidden) if self.fills_image else self.model.text_logits(hidden)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_image(ids) if self.fills_image else self.model.embed_text(ids)

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states (B, S, D) of the filled modality's slots."""
        states = self.model.encode(*self._pair(ids))
        filled = states.image if self.fills_image else states.text
        assert filled is not None
        return filled

    def hidden_without_condition(self, ids: Tensor) -> Tensor:
        """The same where every slot of the other modality is hidden."""
        if self.fills_image:
            words = self.text_ids != PAD
            return Canvas(self.model, self.text_ids.masked_fill(words, MASK_T), ids, True).hidden(ids)
        return Canvas(self.model, ids, torch.full_like(self.image_ids, MASK_I), False).hidden(ids)

    @cached_property
    def condition(self) -> Tensor:
        """Unit vectors (B, P) of the given modality alone: the same in every step."""
        with torch.no_grad():
            if self.fills_image:
                return self.model.text_features(self.text_ids)
            return self.model.image_features(self.image_ids)

    def log_match(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """log s_1 (B,), the matching head's belief in the pairs; `embeddings` (B, S, D) stand in for the ids' own."""
        model = self.model
        text_ids, image_ids = self._pair(ids)
        if self.fills_image:
            cls = model.encode(text_ids, image_ids, image_embeddings=embeddings).cls
            features = model.image_features(image_ids, embeddings)
        else:
            cls = model.encode(text_ids, image_ids, text_embeddings=embeddings).cls
            features = model.text_features(text_ids, embeddings)
        return F.log_softmax(model.match_logits(cls, (self.condition * features).sum(-1)), -1)[:, 1]

    @torch.no_grad()
    def matches(self, ids: Tensor) -> list[float]:
        """s_1 of each pair."""
        found: list[float] = self.log_match(ids).exp().tolist()
        return found

    def repeated(self, times: int) -> Canvas:
        """Every pair `times` times, copies side by side."""
        text, image = (ids.repeat_interleave(times, 0) for ids in (self.text_ids, self.image_ids))
        return Canvas(self.model, text, image, self.fills_image)

    def _pair(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return (self.text_ids, ids) if self.fills_image else (ids, self.image_ids)
