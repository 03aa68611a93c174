"""The masked-image loss in nats, beside what the codes' frequencies alone give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.config import MaskingConfig
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import bootstrap
from gptface_core.evaluation.registry import Benchmark
from gptface_core.image_tokenizer import batches
from gptface_core.masking import draw_masks
from gptface_core.model import MASK_I
from gptface_core.train_tokenizer import entropy

_FACES = 512

HEADLINE = "mim_gain_nats"


def run(context: Context) -> list[Figure]:
    model, test = context.bundle.model, context.test
    masking = MaskingConfig(**_tuples((model.config.resolved or {}).get("masking", {})))
    counts = np.zeros((model.config.image_slots, model.config.codes), np.int64)
    np.add.at(counts, (np.arange(len(counts))[None, :], (context.train.codes - model.first_code).numpy()), 1)
    codes, captions = test.codes[:_FACES], test.captions[:_FACES]
    found = masked_image_gain(context.bundle, codes, captions, counts, masking, context.rng)
    context.rows[HEADLINE] = dict(zip(test.row_ids, found.pop("per_row"), strict=False))
    value, low, high = (found.pop(name) for name in ("value", "low", "high"))
    return [Figure("mim", HEADLINE, value, low, high, 0.0, len(captions), context.seed, found)]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


BENCHMARK = Benchmark("mim", ("quick", "full"), run, headline=HEADLINE)


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
