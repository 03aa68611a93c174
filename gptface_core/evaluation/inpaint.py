"""Masked-region inpainting in pixels, and the masked-image loss in nats, each beside its baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.config import MaskingConfig
from gptface_core.evaluation.intervals import bootstrap
from gptface_core.image_tokenizer import batches
from gptface_core.masking import draw_masks
from gptface_core.model import MASK_I
from gptface_core.sampling import SamplingConfig, fill_image
from gptface_core.shards import Pictures
from gptface_core.tokens import to_pictures, to_tensor
from gptface_core.train_tokenizer import entropy, psnr_db

Flags = npt.NDArray[np.bool_]


def random_rectangles(count: int, grid: int, rng: np.random.Generator) -> Flags:
    """(count, G, G): one rectangle each, sides from a quarter to five eighths of the grid, anywhere."""
    low, high = max(1, grid // 4), max(1, 5 * grid // 8)
    masks = np.zeros((count, grid, grid), bool)
    for mask in masks:
        height, width = rng.integers(low, high + 1, 2)
        top, left = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
        mask[top : top + height, left : left + width] = True
    return masks


def inpainting(
    bundle: Bundle,
    pictures: Pictures,
    captions: list[str],
    train_mean: npt.NDArray[np.float64],
    train_face: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[dict[str, Any], list[list[Pictures]]]:
    """PSNR within hidden rectangles of uint8 pictures (R, P, P, 3), and rows of pictures for a figure.

    Baselines: one colour per picture, the mean of its visible part, and the mean colour of the training set; the gain
    is over the stronger one. Also the mean training face, and the tokenizer's own reconstruction: the ceiling.
    `train_mean` (3,), `train_face` (P, P, 3) in [0, 1].
    """
    masks = random_rectangles(len(pictures), bundle.model.config.grid, rng)
    filled = _fill(bundle, pictures, captions, masks)
    patch = pictures.shape[1] // masks.shape[1]
    region = torch.from_numpy(masks).repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None].float()
    target = to_tensor(pictures)
    visible = (target * (1 - region)).sum((2, 3), keepdim=True) / (1 - region).sum((2, 3), keepdim=True)
    candidates = {
        "model": to_tensor(filled),
        "visible_mean": visible.expand_as(target),
        "train_mean": torch.from_numpy(train_mean).float()[None, :, None, None].expand_as(target),
        "mean_face": torch.from_numpy(train_face).float().permute(2, 0, 1)[None].expand_as(target),
        "tokenizer": bundle.image.decode(bundle.image.encode(target)),
    }
    psnr = {name: psnr_db(picture, target, region).double().numpy() for name, picture in candidates.items()}
    baseline = max("visible_mean", "train_mean", key=lambda name: float(psnr[name].mean()))
    gain = psnr["model"] - psnr[baseline]
    low, high = bootstrap(gain, rng)
    result = {
        "value": float(gain.mean()),
        "low": low,
        "high": high,
        "baseline": baseline,
        "pictures": len(pictures),
        "psnr_db": {name: float(values.mean()) for name, values in psnr.items()},
        "per_row": gain.tolist(),
    }
    return result, _figure(pictures, filled, to_pictures(candidates["tokenizer"]), region)


def _figure(
    pictures: Pictures, filled: Pictures, floor: Pictures, region: Tensor, columns: int = 12
) -> list[list[Pictures]]:
    """Rows: original, hidden, filled (inside the original), the tokenizer's reconstruction."""
    hidden = region[:columns, 0].bool().numpy()[..., None]
    shown = pictures[:columns]
    rows = [shown, np.where(hidden, np.uint8(127), shown), np.where(hidden, filled[:columns], shown), floor[:columns]]
    return [list(row) for row in rows]


def _fill(bundle: Bundle, pictures: Pictures, captions: list[str], masks: Flags) -> Pictures:
    """Most likely fillings, step by step; conditioned on the caption that the shard has."""
    config, generator = SamplingConfig(steps=8, temperature=0.0, noise=0.0), torch.Generator().manual_seed(0)
    parts = []
    for rows in batches(len(pictures), 64):
        unknown = torch.from_numpy(masks[rows].reshape(-1, masks[0].size))
        ids = bundle.image_ids(pictures[rows])
        parts.append(
            bundle.decode(fill_image(bundle.model, bundle.text_ids(captions[rows]), ids, unknown, config, generator))
        )
    return np.concatenate(parts)


@torch.no_grad()
def masked_image_gain(
    bundle: Bundle,
    codes: Tensor,
    captions: list[str],
    train_counts: npt.NDArray[np.int64],
    masking: MaskingConfig,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Nats by which the model beats the unigram law of the training codes on the same held-out masked slots.

    `train_counts` (N, codes): how often each code stood in each slot; the law is that of all slots together (add-one),
    and the law slot by slot is reported beside it.
    """
    model = bundle.model
    whole = MaskingConfig(**{**masking.__dict__, "image_share": 1.0, "text_share": 0.0})
    anywhere = np.log((train_counts.sum(0) + 1) / (train_counts.sum() + train_counts.shape[1]))
    by_slot = np.log((train_counts + 0.1) / (train_counts.sum(1, keepdims=True) + 0.1 * train_counts.shape[1]))
    gains, sums = [], np.zeros(3)
    for rows in batches(len(captions), 64):
        masks = draw_masks(np.zeros(len(captions[rows]), np.int64), 1, model.config.grid, whole, rng)
        hidden, ids = torch.from_numpy(masks.image), codes[rows]
        states = model.encode(bundle.text_ids(captions[rows]), ids.masked_fill(hidden, MASK_I)).image
        assert states is not None
        log_p = model.image_logits(states).log_softmax(-1).gather(-1, (ids - model.first_code)[..., None])[..., 0]
        true = (ids - model.first_code).numpy()
        for picture, mask, law in zip(true, masks.image, log_p.double().numpy(), strict=True):
            slots = np.flatnonzero(mask)
            losses = -np.array(
                [law[slots].mean(), anywhere[picture[slots]].mean(), by_slot[slots, picture[slots]].mean()]
            )
            sums += losses
            gains.append(losses[1] - losses[0])
    low, high = bootstrap(np.array(gains), rng)
    loss, unigram, slot_unigram = sums / len(gains)
    return {
        "value": float(np.mean(gains)),
        "low": low,
        "high": high,
        "loss_nats": float(loss),
        "unigram_nats": float(unigram),
        "unigram_by_slot_nats": float(slot_unigram),
        "train_entropy_nats": entropy(train_counts.sum(0)),
        "pictures": len(captions),
        "per_row": [float(gain) for gain in gains],
    }
