"""Training of the image tokenizer, and what it is worth: code use, PSNR, SSIM."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.config import Preset
from gptface_core.image_tokenizer import ImageTokenizer, PictureTokenizer, batches, reconstruction_loss
from gptface_core.optimise import History, Progress, adamw, cosine, take_step
from gptface_core.pretrain import shuffled
from gptface_core.shards import Pictures
from gptface_core.tokens import to_tensor


def fit_tokenizer(
    pictures: Pictures, row_ids: list[str], preset: Preset, history: History, rng: np.random.Generator
) -> ImageTokenizer:
    """An ImageTokenizer trained on uint8 pictures (R, P, P, 3)."""
    config, tokenizer = preset.tokenizer_training, ImageTokenizer(preset.tokenizer)
    optimizer = adamw(tokenizer, config.learning_rate, (0.9, 0.98), 0.01)
    rows = shuffled(len(pictures), config.batch, rng)
    tokenizer.train()
    for step in range(config.steps):
        batch = next(rows)
        target = to_tensor(pictures[batch])
        loss = reconstruction_loss(tokenizer(target), target, config.gradient_weight)
        rate = config.learning_rate * cosine(step, config.steps)
        take_step(optimizer, loss, rate, 1.0, [row_ids[i] for i in batch], f"tokenizer step {step}")
        history.add(Progress("tokenizer", step + 1, config.steps, {"reconstruction": loss.item()}))
    return tokenizer.eval()


@torch.no_grad()
def measure_tokenizer(tokenizer: PictureTokenizer, pictures: Pictures) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM of reconstructions, codes in use, entropy of their use (nats)."""
    psnr, ssim, counts = [], [], np.zeros(tokenizer.codes, np.int64)
    for rows in batches(len(pictures), 64):
        target = to_tensor(pictures[rows])
        codes = tokenizer.encode(target)
        output = tokenizer.decode(codes)
        counts += np.bincount(codes.numpy().reshape(-1), minlength=len(counts))
        psnr += psnr_db(output, target).tolist()
        ssim += structural_similarity(output, target).tolist()
    if not psnr:
        return {}
    return {
        "psnr_db": float(np.mean(psnr)),
        "ssim": float(np.mean(ssim)),
        "codes": float(len(counts)),
        "codes_used": float((counts > 0).sum()),
        "code_entropy_nats": entropy(counts),
    }


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """Entropy in nats of the law that counts follow."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def psnr_db(output: Tensor, target: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio (B,) of pictures in [0, 1], within `region` (B, 1, P, P) where given."""
    error = (output - target) ** 2
    if region is None:
        mean = error.mean((1, 2, 3))
    else:
        mean = (error * region).sum((1, 2, 3)) / (region.sum((1, 2, 3)) * error.shape[1])
    return -10 / math.log(10) * mean.clamp(min=1e-10).log()


def structural_similarity(output: Tensor, target: Tensor) -> Tensor:
    """SSIM (B,) with an 11 px Gaussian window of sigma 1.5 (Wang et al. 2004), pictures in [0, 1]."""
    line = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line[None, :] / line.sum() ** 2).expand(3, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=3)

    a, b = blur(output), blur(target)
    var_a, var_b, cov = blur(output**2) - a * a, blur(target**2) - b * b, blur(output * target) - a * b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * a * b + c1) * (2 * cov + c2) / ((a * a + b * b + c1) * (var_a + var_b + c2))
    return score.mean((1, 2, 3))
