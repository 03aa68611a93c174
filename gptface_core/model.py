"""GPTFace: one bidirectional transformer over `[CLS] words [SEP] image codes [SEP]`, one embedding table.

Ids of the table: PAD, CLS, SEP, MASK_T, MASK_I, then the text vocabulary, then the image codes. A code's embedding has
a second term, a linear map of its FSQ coordinates where it has any, so that similar codes start out similar; the same
sum serves as the output matrix. A slot's logits range over its own modality alone.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from gptface_core.attention import Block, distance_penalty
from gptface_core.config import FORMAT_VERSION
from gptface_core.configuration import GPTFaceConfig
from gptface_core.errors import InputError
from gptface_core.image_tokenizer import FSQ

__all__ = [
    "CLS",
    "MASK_I",
    "MASK_T",
    "PAD",
    "SEP",
    "SPECIALS",
    "GPTFace",
    "GPTFaceConfig",
    "GPTFacePreTrainedModel",
    "Hidden",
    "check_version",
]

logger = logging.getLogger(__name__)
PAD, CLS, SEP, MASK_T, MASK_I = range(5)
SPECIALS = 5
NEW_WEIGHTS = "classifier."  # what a checkpoint of pre-training need not hold


@dataclass(frozen=True)
class Hidden:
    """Last hidden states: `cls` (B, D); `text` (B, L, D) and `image` (B, N, D), None for a modality not given."""

    cls: Tensor
    text: Tensor | None
    image: Tensor | None
    text_mask: Tensor | None  # (B, L) True where a caption has a token

    def pooled(self) -> Tensor:
        """Mean over the slots of the modality that was given alone, padding left out; (B, D)."""
        if self.image is not None:
            return self.image.mean(1)
        assert self.text is not None and self.text_mask is not None
        weights = self.text_mask[..., None].to(self.text.dtype)
        return (self.text * weights).sum(1) / weights.sum(1).clamp(min=1)


class GPTFacePreTrainedModel(PreTrainedModel):
    """What the transformer and the classifiers on top of it share: initialisation and loading."""

    config_class = GPTFaceConfig
    base_model_prefix = "gptface"
    config: GPTFaceConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal of 0.5 / sqrt(width): GPT-2's 0.02 at width 625, and large enough for small models to start learning.

        Measured at width 64: with 0.02 the image loss is half a nat worse after the same steps. transformers calls this
        for modules of ours that hold parameters themselves, not for a `Block`, which only holds modules.
        """
        std = 0.5 / math.sqrt(self.config.width)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std if module.in_features > 8 else 0.1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GPTFace):
            for position in (self.text_position, self.row_position, self.column_position, self.end_position):
                nn.init.normal_(position, std=std)
            nn.init.normal_(self.segment, std=std)
            self.offset_bias.copy_(distance_penalty(self.config.heads, self.config.grid))
            nn.init.zeros_(self.text_bias)
            nn.init.zeros_(self.image_bias)
            nn.init.ones_(self.similarity_weight)
            nn.init.constant_(self.log_temperature, math.log(1 / 0.07))

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but strict: a folder without a GPTFace of this version, damaged or missing weights are
        an InputError. Only a classifier may be new on top of a checkpoint of pre-training, and the log says so.
        """
        wants_report = kwargs.pop("output_loading_info", False)
        if path is not None and Path(path).is_dir():
            check_version(Path(path))
        try:
            model, report = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"{path} cannot be loaded ({reason}): name the folder of a trained GPTFace") from error
        new = sorted(report["missing_keys"])
        if lost := [name for name in new if not name.startswith(NEW_WEIGHTS)]:
            raise InputError(f"{path} lacks {len(lost)} weights ({lost[0]}, ...): name the folder of a trained GPTFace")
        if new:
            logger.warning("%s has no %s: new and untrained, all else is loaded", path, ", ".join(new))
        return (model, report) if wants_report else model


class GPTFace(GPTFacePreTrainedModel):
    """The transformer with its heads; no tokenizers (`gptface_core.bundle.load_bundle` brings all three together)."""

    coordinates: Tensor

    def __init__(self, config: GPTFaceConfig) -> None:
        super().__init__(config)
        width = config.width
        self.first_code = SPECIALS + config.text_vocab_size
        self.table = nn.Embedding(self.first_code + config.codes, width)
        self.coordinate_map = nn.Linear(len(config.levels), width, bias=False) if config.levels else None
        self.text_position = nn.Parameter(torch.empty(config.max_text_tokens + 2, width))
        self.row_position = nn.Parameter(torch.empty(config.grid, width))
        self.column_position = nn.Parameter(torch.empty(config.grid, width))
        self.end_position = nn.Parameter(torch.empty(1, width))
        self.segment = nn.Parameter(torch.empty(2, width))
        reach = 2 * config.grid - 1
        self.offset_bias = nn.Parameter(torch.empty(config.heads, reach, reach))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.text_bias = nn.Parameter(torch.zeros(config.text_vocab_size))
        self.image_bias = nn.Parameter(torch.zeros(config.codes))
        self.match_hidden = nn.Linear(width, width)
        self.match_out = nn.Linear(width, 2)
        self.similarity_weight = nn.Parameter(torch.tensor(1.0))
        self.project_text = nn.Linear(width, config.projection_dim)
        self.project_image = nn.Linear(width, config.projection_dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if config.levels:
            # Persistent: a model that is loaded lazily (meta device) must not end up with an unset constant.
            self.register_buffer("coordinates", FSQ(config.levels).to_coordinates(torch.arange(config.codes)))
        self.post_init()

    # -- embeddings and logits

    def text_matrix(self) -> Tensor:
        """(text vocabulary, D): input embeddings and output matrix of text slots."""
        return self.table.weight[SPECIALS : self.first_code]

    def image_matrix(self) -> Tensor:
        """(codes, D): table rows plus the map of the FSQ coordinates, where codes have any."""
        rows = self.table.weight[self.first_code :]
        return rows if self.coordinate_map is None else rows + self.coordinate_map(self.coordinates)

    def embed_text(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table.weight)

    def embed_image(self, ids: Tensor) -> Tensor:
        """Embeddings (B, N, D) of image ids: codes shifted by `first_code`, or MASK_I."""
        return F.embedding(ids, torch.cat([self.table.weight[: self.first_code], self.image_matrix()]))

    def text_logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.text_matrix(), self.text_bias)

    def image_logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.image_matrix(), self.image_bias)

    # -- passes

    def encode(
        self,
        text_ids: Tensor | None = None,
        image_ids: Tensor | None = None,
        *,
        text_embeddings: Tensor | None = None,
        image_embeddings: Tensor | None = None,
    ) -> Hidden:
        """One pass over the modalities given: text (B, L) padded with PAD, image (B, N).

        Embeddings (B, L, D) or (B, N, D) stand in for the embeddings of the ids (soft tokens in guided decoding);
        `text_ids` are still needed then, for the padding.
        """
        parts: list[Tensor] = []
        keys: list[Tensor] = []
        if text_ids is not None:
            parts.append(self._text_part(text_ids, text_embeddings))
            keys.append(F.pad(text_ids != PAD, (1, 1), value=True))
        if image_ids is not None or image_embeddings is not None:
            image = image_embeddings if image_embeddings is not None else self.embed_image(_given(image_ids))
            parts.append(self._image_part(image, alone=text_ids is None))
            keys.append(torch.ones(parts[-1].shape[:2], dtype=torch.bool, device=image.device))
        if not parts:
            raise ValueError("encode needs text, an image, or both")
        mask = self._attention_bias(torch.cat(keys, 1), has_image=len(parts) == 2 or text_ids is None)
        h = torch.cat(parts, 1)
        for block in self.blocks:
            h = block(h, mask)
        h = self.norm(h)
        text = h[:, 1 : 1 + text_ids.shape[1]] if text_ids is not None else None
        image_hidden = h[:, -1 - self.config.image_slots : -1] if len(parts) == 2 or text_ids is None else None
        return Hidden(h[:, 0], text, image_hidden, text_ids != PAD if text_ids is not None else None)

    def _attention_bias(self, keys: Tensor, has_image: bool) -> Tensor:
        """(B, H or 1, S, S or 1) to add to attention scores: no padding, and image slots by their offset (H tables)."""
        bias = torch.zeros(keys.shape, dtype=self.offset_bias.dtype, device=keys.device)
        bias = bias.masked_fill(~keys, torch.finfo(bias.dtype).min)[:, None, None, :]
        if not has_image:
            return bias
        grid, slots = self.config.grid, self.config.image_slots
        at = torch.arange(grid, device=keys.device)
        offset = at[:, None] - at[None, :] + grid - 1  # (G, G): from key to query, as an index of the tables
        table = self.offset_bias[:, offset[:, None, :, None], offset[None, :, None, :]].reshape(-1, slots, slots)
        before = keys.shape[1] - slots - 1  # the image's slots stand before the last [SEP]
        return bias + F.pad(table, (before, 1, before, 1))

    def _text_part(self, ids: Tensor, embeddings: Tensor | None) -> Tensor:
        """[CLS] words [SEP] with positions and segment. The [SEP] has the position after the longest caption."""
        if ids.shape[1] > self.config.max_text_tokens:
            raise ValueError(f"{ids.shape[1]} text tokens: this model reads at most {self.config.max_text_tokens}")
        words = self.embed_text(ids) if embeddings is None else embeddings
        positions = self.text_position[: ids.shape[1] + 1]
        cls, sep = (self.table.weight[i].expand(len(ids), 1, -1) for i in (CLS, SEP))
        head = torch.cat([cls, words], 1) + positions
        return torch.cat([head, sep + self.text_position[-1]], 1) + self.segment[0]

    def _image_part(self, image: Tensor, alone: bool) -> Tensor:
        """([CLS]) codes [SEP] with row + column positions and segment."""
        positions = (self.row_position[:, None] + self.column_position[None]).flatten(0, 1)
        sep = self.table.weight[SEP].expand(len(image), 1, -1)
        part = torch.cat([image + positions, sep + self.end_position], 1) + self.segment[1]
        if not alone:
            return part
        cls = self.table.weight[CLS] + self.text_position[0] + self.segment[1]
        return torch.cat([cls.expand(len(image), 1, -1), part], 1)

    def text_features(self, text_ids: Tensor, text_embeddings: Tensor | None = None) -> Tensor:
        """Unit vectors (B, P) of captions read alone."""
        return _unit(self.project_text(self.encode(text_ids, text_embeddings=text_embeddings).pooled()))

    def image_features(self, image_ids: Tensor | None, image_embeddings: Tensor | None = None) -> Tensor:
        """Unit vectors (B, P) of pictures seen alone."""
        hidden = self.encode(image_ids=image_ids, image_embeddings=image_embeddings)
        return _unit(self.project_image(hidden.pooled()))

    def match_logits(self, cls: Tensor, similarity: Tensor) -> Tensor:
        """(B, 2) for mismatched, matched: the head on h_CLS, the similarity (B,) a term of the second."""
        logits = self.match_out(torch.tanh(self.match_hidden(cls)))
        scaled = self.similarity_weight * self.log_temperature.exp() * similarity
        return logits + torch.stack([torch.zeros_like(scaled), scaled], -1)

    def match(self, text_ids: Tensor, image_ids: Tensor) -> Tensor:
        """Logits (B, 2) of pairs, with both passes that the similarity needs."""
        similarity = (self.text_features(text_ids) * self.image_features(image_ids)).sum(-1)
        return self.match_logits(self.encode(text_ids, image_ids).cls, similarity)

    def forward(self, text_ids: Tensor | None = None, image_ids: Tensor | None = None) -> Hidden:
        return self.encode(text_ids, image_ids)


def check_version(folder: Path) -> None:
    """InputError unless `folder` holds a GPTFace model that this program can read."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, version = settings["model_type"], settings["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no GPTFace model (config.json): run `gptface train` first") from error
    if kind != GPTFaceConfig.model_type:
        raise InputError(f"{folder} holds a '{kind}' model, not a GPTFace: name the folder of a trained GPTFace")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder} has model format {version}, this program reads {FORMAT_VERSION}: train it again")
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} holds no model.safetensors: its training did not finish, run `gptface train` again")


def _unit(vectors: Tensor) -> Tensor:
    """Of length 1, in fp32 at least: a similarity is scaled by 14 and more, and bf16 would round it to 0.05."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def _given(ids: Tensor | None) -> Tensor:
    if ids is None:
        raise ValueError("image ids or image embeddings are needed")
    return ids
