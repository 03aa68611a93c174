"""The three stages of the transformer: masked modelling alone, a contrastive warm-up, then all losses together.

A small model learns to match captions and faces only after a spell of contrast alone; then the similarity is a term of
the matching logit. That spell comes second, not first: started from it, masked modelling stayed 0.3 nats behind after
the same steps, while contrast after modelling is learnt in half the steps (measured at width 64).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptface_core.config import Preset
from gptface_core.masking import CLEAN, KEEP, MASK, RANDOM, Masks, draw_masks
from gptface_core.model import MASK_I, MASK_T, SPECIALS, GPTFace
from gptface_core.objectives import Indices, info_nce, itm_loss, masked_cross_entropy, mismatch, same_caption
from gptface_core.optimise import History, Progress, adamw, cosine, take_step
from gptface_core.tokens import TokenSet


@dataclass(frozen=True)
class Pairs:
    """A batch after masking: ids as the model sees them (B, L), (B, N), and what was there before."""

    text: Tensor
    image: Tensor
    text_before: Tensor
    image_before: Tensor
    text_hidden: Tensor
    image_hidden: Tensor


def shuffled(count: int, size: int, rng: np.random.Generator) -> Iterator[Indices]:
    """Row numbers in batches of `size`, epoch after epoch, each epoch in an order of its own."""
    pool = np.zeros(0, np.int64)
    while True:
        while len(pool) < size:
            pool = np.concatenate([pool, rng.permutation(count)])
        yield pool[:size]
        pool = pool[size:]


def make_pairs(model: GPTFace, tokens: TokenSet, rows: Indices, captions: Indices, masks: Masks, seed: int) -> Pairs:
    """Pictures of `rows` with the captions of `captions`, masked; views and random text tokens come from `seed`."""
    slots = masks.text.shape[1]
    text = torch.from_numpy(tokens.text[captions][:, :slots])
    image = torch.from_numpy(tokens.codes_of(rows, np.random.default_rng(seed))) + model.first_code
    action, hidden = torch.from_numpy(masks.text), torch.from_numpy(masks.image)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(SPECIALS, model.first_code, text.shape, generator=generator)
    seen = torch.where(action == MASK, torch.full_like(text, MASK_T), text)
    seen = torch.where(action == RANDOM, random, seen)
    assert KEEP not in (CLEAN, MASK, RANDOM)  # kept tokens are seen as they are, and predicted
    return Pairs(seen, torch.where(hidden, torch.full_like(image, MASK_I), image), text, image, action != CLEAN, hidden)


def draw_pairs(
    model: GPTFace,
    tokens: TokenSet,
    rows: Indices,
    captions: Indices,
    preset: Preset,
    rng: np.random.Generator,
    clean_share: float,
) -> Pairs:
    lengths = tokens.lengths[captions]
    slots = max(1, int(tokens.lengths[np.concatenate([rows, captions])].max()))
    masks = draw_masks(lengths, slots, model.config.grid, preset.masking, rng, clean_share)
    return make_pairs(model, tokens, rows, captions, masks, int(rng.integers(2**62)))


def milm_losses(model: GPTFace, text_hidden: Tensor, image_hidden: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Masked-text and masked-image loss of matched pairs, from their last hidden states."""
    words = masked_cross_entropy(
        model.text_logits(text_hidden[pairs.text_hidden]), pairs.text_before[pairs.text_hidden] - SPECIALS
    )
    codes = masked_cross_entropy(
        model.image_logits(image_hidden[pairs.image_hidden]), pairs.image_before[pairs.image_hidden] - model.first_code
    )
    return words, codes


def contrastive_step(model: GPTFace, tokens: TokenSet, rows: Indices) -> Tensor:
    """InfoNCE between captions read alone and pictures seen alone."""
    slots = max(1, int(tokens.lengths[rows].max()))
    text = model.text_features(torch.from_numpy(tokens.text[rows][:, :slots]))
    image = model.image_features(torch.from_numpy(tokens.codes[rows]) + model.first_code)
    return info_nce(image, text, model.log_temperature, same_caption(tokens.caption_keys[rows]))


def joint_step(
    model: GPTFace, tokens: TokenSet, milm_rows: Indices, itm_rows: Indices, preset: Preset, rng: np.random.Generator
) -> dict[str, Tensor]:
    """All four losses. The matching pairs and the modelling pairs are drawn apart: the first half mismatched, half of
    them masked by the same law whether they match or not; the second matched, and masked all."""
    share = 1 - preset.training.itm_masked_share
    source, matched = mismatch(tokens.caption_keys[itm_rows], rng)
    milm = draw_pairs(model, tokens, milm_rows, milm_rows, preset, rng, 0.0)
    itm = draw_pairs(model, tokens, itm_rows, itm_rows[source], preset, rng, share)
    milm_states = model.encode(milm.text, milm.image)
    assert milm_states.text is not None and milm_states.image is not None
    words, codes = milm_losses(model, milm_states.text, milm_states.image, milm)
    # The similarity sees the pair as the joint pass does: masked where that is masked.
    text, image = model.text_features(itm.text), model.image_features(itm.image)
    logits = model.match_logits(model.encode(itm.text, itm.image).cls, (text * image).sum(-1))
    # Text j belongs to picture source[j], so contrast pairs by caption and not by place.
    keys = tokens.caption_keys[itm_rows]
    same = torch.from_numpy(keys[:, None] == keys[source][None, :])
    return {
        "mlm": words,
        "mim": codes,
        "itm": itm_loss(logits, torch.from_numpy(matched).long(), preset.training.label_smoothing),
        "itc": info_nce(image, text, model.log_temperature, same),
    }


@dataclass(frozen=True)
class Stage:
    """What a stage trains with, whichever stage it is."""

    model: GPTFace
    train: TokenSet
    validation: TokenSet
    preset: Preset
    history: History
    rng: np.random.Generator


def _names(tokens: TokenSet, rows: Indices) -> list[str]:
    return [tokens.row_ids[row] for row in rows]


def model_masked(stage: Stage) -> None:
    """Masked modelling of matched pairs alone, for `modelling_steps`."""
    config, model, train = stage.preset.training, stage.model, stage.train
    batches = shuffled(len(train), config.milm_batch, stage.rng)
    optimizer = adamw(model, config.learning_rate, config.betas, config.weight_decay)
    model.train()
    for step in range(config.modelling_steps):
        rows = next(batches)
        pairs = draw_pairs(model, train, rows, rows, stage.preset, stage.rng, 0.0)
        states = model.encode(pairs.text, pairs.image)
        assert states.text is not None and states.image is not None
        words, codes = milm_losses(model, states.text, states.image, pairs)
        # No decay to nothing, here and in the warm-up: the next stage goes on at full rate.
        rate = config.learning_rate * cosine(step, 4 * config.modelling_steps, config.schedule_warmup)
        loss = words + config.weight_image * codes
        take_step(optimizer, loss, rate, config.clip, _names(train, rows), f"modelling step {step}")
        losses = {"mlm": words.item(), "mim": codes.item()}
        stage.history.add(Progress("modelling", step + 1, config.modelling_steps, losses))


def warm_up(stage: Stage) -> None:
    """InfoNCE alone, for `warmup_steps`."""
    config, train = stage.preset.training, stage.train
    batches = shuffled(len(train), config.warmup_batch, stage.rng)
    optimizer = adamw(stage.model, config.learning_rate, config.betas, config.weight_decay)
    stage.model.train()
    for step in range(config.warmup_steps):
        rows = next(batches)
        loss = contrastive_step(stage.model, train, rows)
        rate = config.learning_rate * cosine(step, 4 * config.warmup_steps, config.schedule_warmup)
        take_step(optimizer, loss, rate, config.clip, _names(train, rows), f"warm-up step {step}")
        stage.history.add(Progress("warm-up", step + 1, config.warmup_steps, {"itc": loss.item()}))


def train_jointly(stage: Stage) -> None:
    """All four losses, for `steps`; validation losses every `validate_every` steps and at the end."""
    config, model, train = stage.preset.training, stage.model, stage.train
    milm_rows = shuffled(len(train), config.milm_batch, stage.rng)
    itm_rows = shuffled(len(train), config.itm_batch, stage.rng)
    optimizer = adamw(model, config.learning_rate, config.betas, config.weight_decay)
    weights = {"mlm": 1.0, "mim": config.weight_image, "itm": config.weight_itm, "itc": config.weight_itc}
    model.train()
    for step in range(config.steps):
        milm, itm = next(milm_rows), next(itm_rows)
        losses = joint_step(model, train, milm, itm, stage.preset, stage.rng)
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        rows = _names(train, np.concatenate([milm, itm]))
        rate = config.learning_rate * cosine(step, config.steps, config.schedule_warmup)
        take_step(optimizer, total, rate, config.clip, rows, f"main step {step}")
        values = {name: loss.item() for name, loss in losses.items()}
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            values |= {f"validation_{name}": loss for name, loss in validate(stage).items()}
        stage.history.add(Progress("main", step + 1, config.steps, values))


@torch.no_grad()
def validate(stage: Stage) -> dict[str, float]:
    """The four losses on held-out rows, always the same rows under the same masks."""
    rows = np.arange(min(len(stage.validation), stage.preset.training.validation_rows))
    if len(rows) < 2:
        return {}
    stage.model.eval()
    losses = joint_step(stage.model, stage.validation, rows, rows, stage.preset, np.random.default_rng(0))
    stage.model.train()
    return {name: loss.item() for name, loss in losses.items()}
