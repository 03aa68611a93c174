"""The three stages of the transformer: masked modelling alone, a contrastive warm-up, then all losses together.

A small model learns to match captions and faces only after a spell of contrast alone; then the similarity is a term of
the matching logit. That spell comes second, not first: started from it, masked modelling stayed 0.3 nats behind after
the same steps, while contrast after modelling is learnt in half the steps (measured at width 64).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gptface_core.batches import PairBatch, Pairs, Shuffled, Stream
from gptface_core.claims import POOL, claim_codes, opposed
from gptface_core.config import Preset
from gptface_core.distributed import Engine, gather
from gptface_core.figures import gray_out
from gptface_core.flops import StepShape, step_flops
from gptface_core.image_tokenizer import PictureTokenizer
from gptface_core.loop import Loop, Surroundings, Validation, Work
from gptface_core.masking import CLEAN, KEEP, MASK, RANDOM, Masks, draw_masks
from gptface_core.model import MASK_I, MASK_T, SPECIALS, GPTFace
from gptface_core.objectives import (
    Indices,
    info_nce,
    info_nce_part,
    itm_loss,
    masked_cross_entropy,
    mismatch,
    same_caption,
)
from gptface_core.optimise import adamw, cosine
from gptface_core.shards import Pictures
from gptface_core.telemetry import mosaic
from gptface_core.tokens import TokenSet, to_pictures

SHOWN = 6  # pictures of a validation


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


def contradicting(
    tokens: TokenSet, rows: Indices, otherwise: Indices, share: float, rng: np.random.Generator
) -> Indices:
    """For a `share` of `rows` a row whose caption contradicts theirs in one attribute, if a few hundred rows drawn at
    random hold one (`gptface_core.claims`); for the rest `otherwise` (B,)."""
    if share == 0:
        return otherwise
    pool = rng.integers(len(tokens), size=POOL)
    codes = claim_codes([tokens.captions[row] for row in np.concatenate([rows, pool])])
    found = opposed(codes[: len(rows)], codes[len(rows) :], rng)
    return np.where((found >= 0) & (rng.random(len(rows)) < share), pool[found], otherwise)


def contrastive_batch(model: GPTFace, tokens: TokenSet, rows: Indices, rng: np.random.Generator) -> PairBatch:
    """Captions and pictures of `rows`, nothing hidden; views are drawn from `rng`."""
    slots = max(1, int(tokens.lengths[rows].max()))
    nothing = Masks(np.zeros((len(rows), slots), np.int8), np.zeros((len(rows), tokens.codes.shape[1]), bool))
    text = torch.from_numpy(tokens.text[rows][:, :slots])
    image = torch.from_numpy(tokens.codes_of(rows, rng)) + model.first_code
    whole = Pairs(text, image, text, image, torch.from_numpy(nothing.text != CLEAN), torch.from_numpy(nothing.image))
    return PairBatch(rows, itm=whole, same=same_caption(tokens.caption_keys[rows]))


def joint_batch(
    model: GPTFace, tokens: TokenSet, milm_rows: Indices, itm_rows: Indices, preset: Preset, rng: np.random.Generator
) -> PairBatch:
    """A batch for all four losses. The matching pairs and the modelling pairs are drawn apart: the first half
    mismatched, half of them masked by the same law whether they match or not; the second matched, and masked all."""
    share = 1 - preset.training.itm_masked_share
    keys = tokens.caption_keys
    source, matched = mismatch(keys[itm_rows], rng)
    captions, wrong = itm_rows[source], np.flatnonzero(~matched)
    captions[wrong] = contradicting(tokens, itm_rows[wrong], captions[wrong], preset.training.opposed_share, rng)
    milm = draw_pairs(model, tokens, milm_rows, milm_rows, preset, rng, 0.0)
    itm = draw_pairs(model, tokens, itm_rows, captions, preset, rng, share)
    # Text j belongs to picture captions[j], so contrast pairs by caption and not by place.
    same = torch.from_numpy(keys[itm_rows][:, None] == keys[captions][None, :])
    rows = np.concatenate([milm_rows, itm_rows])
    return PairBatch(rows, milm, itm, torch.from_numpy(matched).long(), same)


def pair_losses(model: GPTFace, batch: PairBatch, label_smoothing: float, spread: bool = False) -> dict[str, Tensor]:
    """The losses that the batch is for, in nats: mlm, mim, itm, itc. `spread`: the processes hold parts of a batch."""
    losses: dict[str, Tensor] = {}
    if batch.milm is not None:
        states = model.encode(batch.milm.text, batch.milm.image)
        assert states.text is not None and states.image is not None
        losses["mlm"], losses["mim"] = milm_losses(model, states.text, states.image, batch.milm)
    if batch.itm is not None and batch.same is not None:
        itm = batch.itm
        # The similarity sees the pair as the joint pass does: masked where that is masked.
        text, image = model.text_features(itm.text), model.image_features(itm.image)
        if batch.matched is not None:
            logits = model.match_logits(model.encode(itm.text, itm.image).cls, (text * image).sum(-1))
            losses["itm"] = itm_loss(logits, batch.matched, label_smoothing)
        if spread:
            every = gather(torch.stack([image, text], 1))
            losses["itc"] = info_nce_part(
                (image, text), (every[:, 0], every[:, 1]), model.log_temperature, batch.same, batch.first
            )
        else:
            losses["itc"] = info_nce(image, text, model.log_temperature, batch.same)
    shares = dict(batch.shares)
    return {name: loss * shares[name] if name in shares else loss for name, loss in losses.items()}


def joint_step(
    model: GPTFace, tokens: TokenSet, milm_rows: Indices, itm_rows: Indices, preset: Preset, rng: np.random.Generator
) -> dict[str, Tensor]:
    """All four losses of a batch drawn now."""
    batch = joint_batch(model, tokens, milm_rows, itm_rows, preset, rng)
    return pair_losses(model, batch.to(model.device), preset.training.label_smoothing)


class PairLosses(nn.Module):
    """`pair_losses` as a module, which is what exchanges gradients between processes."""

    def __init__(self, model: GPTFace, label_smoothing: float, engine: Engine) -> None:
        super().__init__()
        self.model, self._label_smoothing, self._spread = model, label_smoothing, engine.world > 1

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        return pair_losses(self.model, batch, self._label_smoothing, self._spread)


@dataclass(frozen=True)
class Stage:
    """What a stage trains with, whichever stage it is."""

    model: GPTFace
    train: TokenSet
    validation: TokenSet
    preset: Preset
    image: PictureTokenizer
    rng: np.random.Generator
    around: Surroundings


def model_masked(stage: Stage) -> None:
    """Masked modelling of matched pairs alone, for `modelling_steps`."""
    config, model, train = stage.preset.training, stage.model, stage.train
    order = Shuffled(len(train), config.milm_batch, stage.rng)

    def draw() -> PairBatch:
        rows = next(order)
        return PairBatch(rows, milm=draw_pairs(model, train, rows, rows, stage.preset, stage.rng, 0.0))

    # No decay to nothing, here and in the warm-up: the next stage goes on at full rate.
    weights, sizes = {"mlm": 1.0, "mim": config.weight_image}, {"training.milm_batch": config.milm_batch}
    stream = Stream(stage.rng, (order,), draw)
    Loop(_work(stage, "modelling", config.modelling_steps, 4, weights, stream, sizes), stage.around).run()


def warm_up(stage: Stage) -> None:
    """InfoNCE alone, for `warmup_steps`."""
    config = stage.preset.training
    order = Shuffled(len(stage.train), config.warmup_batch, stage.rng)

    def draw() -> PairBatch:
        rows = next(order)
        asked, rest = np.split(rows, [len(rows) // 2])  # partners bring their own pictures: hard both ways
        partners = contradicting(stage.train, asked, rest[: len(asked)], config.opposed_share, stage.rng)
        rows = np.concatenate([asked, partners, rest[len(asked) :]])
        return contrastive_batch(stage.model, stage.train, rows, stage.rng)

    stream = Stream(stage.rng, (order,), draw)
    sizes = {"training.warmup_batch": config.warmup_batch}
    Loop(_work(stage, "warm-up", config.warmup_steps, 4, {"itc": 1.0}, stream, sizes), stage.around).run()


def train_jointly(stage: Stage) -> None:
    """All four losses, for `steps`; validation every `validate_every` steps and at the end."""
    Loop(main_work(stage), stage.around).run()


def main_work(stage: Stage) -> Work[PairBatch]:
    config, model, train = stage.preset.training, stage.model, stage.train
    milm, itm = (Shuffled(len(train), size, stage.rng) for size in (config.milm_batch, config.itm_batch))

    def draw() -> PairBatch:
        milm_rows, itm_rows = next(milm), next(itm)
        return joint_batch(model, train, milm_rows, itm_rows, stage.preset, stage.rng)

    weights = {"mlm": 1.0, "mim": config.weight_image, "itm": config.weight_itm, "itc": config.weight_itc}
    sizes = {"training.milm_batch": config.milm_batch, "training.itm_batch": config.itm_batch}
    stream = Stream(stage.rng, (milm, itm), draw)
    return _work(stage, "main", config.steps, 1, weights, stream, sizes, lambda: validate(stage))


def _work(
    stage: Stage,
    name: str,
    steps: int,
    horizon: int,
    weights: dict[str, float],
    stream: Stream[PairBatch],
    sizes: dict[str, int],
    check: Callable[[], Validation] | None = None,
) -> Work[PairBatch]:
    """A stage of the transformer; its cosine ends after `horizon` times its steps."""
    config, model, row_ids = stage.preset.training, stage.model, stage.train.row_ids
    return Work(
        stage=name,
        steps=steps,
        model=model,
        losses=PairLosses(model, config.label_smoothing, stage.around.engine),
        weights=weights,
        optimizer=adamw(model, config.learning_rate, config.betas, config.weight_decay),
        rate=lambda step: config.learning_rate * cosine(step, horizon * steps, config.schedule_warmup),
        clip=config.clip,
        stream=stream,
        sizes=sizes,
        samples=lambda batch: len(batch.rows),
        flops=lambda batch: batch_flops(model, stage.preset, batch),
        names=lambda batch: [row_ids[row] for row in batch.rows],
        validate=check,
        validate_every=config.validate_every,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay if name == "main" else 0.0,
        find_unused=name != "main",
    )


def batch_flops(model: GPTFace, preset: Preset, batch: PairBatch) -> float:
    """Operations of a step on this batch (see gptface_core.flops)."""
    milm, itm = batch.milm, batch.itm
    shape = StepShape(
        milm_rows=0 if milm is None else len(milm.text),
        itm_rows=0 if itm is None else len(itm.text),
        milm_text_slots=0 if milm is None else milm.text.shape[1],
        itm_text_slots=0 if itm is None else itm.text.shape[1],
        hidden_text=0.0 if milm is None else float(milm.text_hidden.sum()),
        hidden_image=0.0 if milm is None else float(milm.image_hidden.sum()),
        matching=batch.matched is not None,
    )
    return step_flops(preset.model, model.config.text_vocab_size, model.config.codes, model.config.grid, shape)


@torch.no_grad()
def validate(stage: Stage) -> Validation:
    """The four losses on held-out rows, always the same rows under the same masks, and what fills hidden slots.

    The sheet has pictures as the tokenizer gives them back, hidden slots in gray, and the likeliest code in each slot.
    """
    model, tokens = stage.model, stage.validation
    rows = np.arange(min(len(tokens), stage.preset.training.validation_rows))
    if len(rows) < 2:
        return Validation()
    batch = joint_batch(model, tokens, rows, rows, stage.preset, np.random.default_rng(0)).to(model.device)
    losses = pair_losses(model, batch, stage.preset.training.label_smoothing)
    found = {name: loss.item() for name, loss in losses.items()}
    assert batch.milm is not None
    return Validation(found, {"filled": _filled(stage, batch.milm)} if stage.around.board else {})


def _filled(stage: Stage, pairs: Pairs) -> Pictures:
    model = stage.model
    shown = pairs.rows(0, SHOWN)
    states = model.encode(shown.text, shown.image)
    assert states.image is not None
    likeliest = model.image_logits(states.image).argmax(-1)
    before = shown.image_before - model.first_code
    codes = torch.where(shown.image_hidden, likeliest, before).cpu()
    original, filled = (to_pictures(stage.image.decode(c)) for c in (before.cpu(), codes))
    grid, patch = model.config.grid, stage.preset.tokenizer.patch_px
    hidden = shown.image_hidden.cpu().numpy().reshape(-1, grid, grid).repeat(patch, 1).repeat(patch, 2)
    covered = [gray_out(picture, region) for picture, region in zip(original, hidden, strict=True)]
    return mosaic([list(original), covered, list(filled)])
