"""Classifiers on top of the transformer: attributes (several may hold) and expression (exactly one does).

Both see the picture alone; a caption can be given beside it. Loaded from a folder of pre-training, the transformer is
taken over and the classifier is new; loaded from their own folder, both are as they were saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutput

from gptface_core.errors import InputError
from gptface_core.model import GPTFace, GPTFaceConfig, GPTFacePreTrainedModel, Hidden

CELLS = 4  # per side


def features_width(config: GPTFaceConfig) -> int:
    """Number of features of a picture under `config.pooling`; InputError for one that does not exist."""
    widths = {"mean": 1, "cls": 1, "cells": min(CELLS, config.grid) ** 2}
    if config.pooling not in widths:
        raise InputError(f"no pooling '{config.pooling}': choose {', '.join(widths)}")
    return widths[config.pooling] * config.width


def pool(states: Hidden, config: GPTFaceConfig) -> Tensor:
    """(B, F) of the last hidden states: those of the image averaged, or over 4 x 4 cells (where a feature lies counts:
    a mouth, a beard), or the one of [CLS]."""
    if config.pooling == "cls":
        return states.cls
    assert states.image is not None
    if config.pooling == "mean":
        return states.image.mean(1)
    cells = states.image.transpose(1, 2).unflatten(2, (config.grid, config.grid))
    return F.adaptive_avg_pool2d(cells, min(CELLS, config.grid)).flatten(1)


class GPTFaceClassifier(GPTFacePreTrainedModel):
    """One linear layer on pooled features; `config.id2label` names its outputs.

    `config.freeze_trunk` trains that layer alone (a linear probe), else everything is fine-tuned.
    """

    problem_type = ""

    def __init__(self, config: GPTFaceConfig) -> None:
        super().__init__(config)
        config.problem_type = self.problem_type or None
        self.gptface = GPTFace(config)
        self.classifier = nn.Linear(features_width(config), config.num_labels)
        self.post_init()
        self.freeze(config.freeze_trunk)

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, labels: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """As in transformers, from a folder of pre-training or of a classifier. `labels` names the outputs.

        `pooling` and `freeze_trunk` can be given as well. Raises InputError as `GPTFace.from_pretrained` does, and for
        labels that are not as many as a trained classifier has.
        """
        if labels is not None:
            kwargs["id2label"] = dict(enumerate(labels))
            kwargs["label2id"] = {name: index for index, name in enumerate(labels)}
        loaded = super().from_pretrained(path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze(model.config.freeze_trunk)
        return loaded

    def freeze(self, frozen: bool = True) -> None:
        """Train the classifier alone, or everything again."""
        self.config.freeze_trunk = frozen
        self.gptface.requires_grad_(not frozen)

    def features(self, image_ids: Tensor, text_ids: Tensor | None = None) -> Tensor:
        """(B, F) of pictures (B, N), with captions (B, L) where given; without gradient while the trunk is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_trunk):
            return pool(self.gptface.encode(text_ids, image_ids), self.config)

    def forward(
        self, image_ids: Tensor, text_ids: Tensor | None = None, labels: Tensor | None = None
    ) -> ImageClassifierOutput:
        """`logits` (B, labels), and `loss` where labels are given."""
        logits = self.classifier(self.features(image_ids, text_ids))
        return ImageClassifierOutput(loss=None if labels is None else self.loss(logits, labels), logits=logits)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def probabilities(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, image_ids: Tensor, text_ids: Tensor | None = None) -> list[dict[str, float]]:
        """Probability by label name, one table per picture."""
        rows = self.probabilities(self(image_ids, text_ids).logits).tolist()
        names: Any = self.config.id2label
        return [{names[index]: value for index, value in enumerate(row)} for row in rows]


class GPTFaceForAttributes(GPTFaceClassifier):
    """Attributes, each present or not, independently of the others."""

    problem_type = "multi_label_classification"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean binary cross-entropy of labels (B, A) in [0, 1]; NaN is unknown and left out."""
        known = ~labels.isnan()
        losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num().to(logits.dtype), reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class GPTFaceForExpression(GPTFaceClassifier):
    """Expression: one class out of several."""

    problem_type = "single_label_classification"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of labels (B,); -100 is unknown and left out."""
        total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        return total / (labels != -100).sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)
