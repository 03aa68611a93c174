"""Masked-region inpainting in pixels, beside simple fillings and the tokenizer's own reconstruction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import bootstrap
from gptface_core.evaluation.registry import Benchmark
from gptface_core.image_tokenizer import batches
from gptface_core.sampling import SamplingConfig, fill_image
from gptface_core.shards import Pictures
from gptface_core.tokens import to_pictures, to_tensor
from gptface_core.train_tokenizer import psnr_db

Flags = npt.NDArray[np.bool_]
_FACES, COLUMNS = 300, 12

HEADLINE = "inpaint_gain_db"


def run(context: Context) -> list[Figure]:
    """The gain over the stronger of two mean colours; draws `inpaintings`, and of them the best and the worst."""
    test = context.test
    mean_face = context.train.pictures.mean(0, dtype=np.float64) / 255
    pictures, captions = test.pictures[:_FACES], test.captions[:_FACES]
    found, sheets = inpainting(context.bundle, pictures, captions, mean_face.mean((0, 1)), mean_face, context.rng)
    gains = found.pop("per_row")
    context.rows[HEADLINE] = dict(zip(test.row_ids, gains, strict=False))
    context.draw("inpaintings", [list(row[:COLUMNS]) for row in sheets])
    half = min(COLUMNS, len(gains)) // 2
    order = np.argsort(gains)[::-1]
    extremes = [*order[:half], *order[len(order) - half :]]
    titles = [f"{gains[place]:+.1f} dB" for place in extremes]
    context.draw("inpaintings_extremes", [[row[place] for place in extremes] for row in sheets], titles)
    value, low, high = (found.pop(name) for name in ("value", "low", "high"))
    return [Figure("inpaint", HEADLINE, value, low, high, 0.0, len(pictures), context.seed, found)]


BENCHMARK = Benchmark("inpaint", ("quick", "full"), run, headline=HEADLINE)


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
) -> tuple[dict[str, Any], list[Pictures]]:
    """PSNR within hidden rectangles of uint8 pictures (R, P, P, 3), and to look at, each of that shape: the originals,
    what was hidden, what was filled in (inside the original), the tokenizer's reconstruction.

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
    hidden = region[:, 0].bool().numpy()[..., None]
    covered, inside = np.where(hidden, np.uint8(127), pictures), np.where(hidden, filled, pictures)
    return result, [pictures, covered, inside, to_pictures(candidates["tokenizer"])]


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
