"""Training of the image tokenizer, and what it is worth: code use, PSNR, SSIM."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptface_core.batches import Shuffled, Stream
from gptface_core.config import Preset
from gptface_core.distributed import compile_blocks, share_batch_norms
from gptface_core.flops import tokenizer_step_flops
from gptface_core.image_tokenizer import ImageTokenizer, PictureTokenizer, ResidualBlock, batches, reconstruction_loss
from gptface_core.loop import Loop, Surroundings, Validation, Work
from gptface_core.objectives import Indices
from gptface_core.optimise import adamw, cosine
from gptface_core.shards import Pictures
from gptface_core.telemetry import mosaic
from gptface_core.tokens import to_pictures, to_tensor

SHOWN = 8  # pictures of a validation


@dataclass(frozen=True)
class PictureBatch:
    """`rows` and their `pictures` (B, 3, P, P); a part's loss times `share` is what it adds to the whole's."""

    rows: Indices
    pictures: Tensor
    share: float = 1.0

    def split(self, parts: int) -> list[PictureBatch]:
        if parts == 1:
            return [self]
        size = len(self.pictures) // parts
        cuts = [self.pictures[part * size : (part + 1) * size] for part in range(parts)]
        return [replace(self, pictures=cut, share=self.share / parts) for cut in cuts]

    cut = split

    def to(self, device: torch.device) -> PictureBatch:
        if device.type == "cpu":
            return self
        return replace(self, pictures=self.pictures.pin_memory().to(device, non_blocking=True))


class _Reconstruction(nn.Module):
    def __init__(self, tokenizer: ImageTokenizer, gradient_weight: float) -> None:
        super().__init__()
        self.tokenizer, self._gradient_weight = tokenizer, gradient_weight

    def forward(self, batch: PictureBatch) -> dict[str, Tensor]:
        loss = reconstruction_loss(self.tokenizer(batch.pictures).float(), batch.pictures, self._gradient_weight)
        return {"reconstruction": loss * batch.share}


def fit_tokenizer(
    pictures: Pictures,
    row_ids: list[str],
    held_out: Pictures,
    preset: Preset,
    around: Surroundings,
    rng: np.random.Generator,
) -> ImageTokenizer:
    """An ImageTokenizer trained on uint8 pictures (R, P, P, 3), validated on others; it comes back on the CPU."""
    config, tokenizer = preset.tokenizer_training, ImageTokenizer(preset.tokenizer)
    tokenizer.to(around.engine.device)
    share_batch_norms(tokenizer, around.engine)
    compile_blocks([block for block in tokenizer.modules() if isinstance(block, ResidualBlock)], around.engine)
    order = Shuffled(len(pictures), config.batch, rng)

    def draw() -> PictureBatch:
        rows = next(order)
        return PictureBatch(rows, to_tensor(pictures[rows]))

    work = Work(
        stage="tokenizer",
        steps=config.steps,
        model=tokenizer,
        losses=_Reconstruction(tokenizer, config.gradient_weight),
        weights={"reconstruction": 1.0},
        optimizer=adamw(tokenizer, config.learning_rate, (0.9, 0.98), 0.01),
        rate=lambda step: config.learning_rate * cosine(step, config.steps),
        clip=1.0,
        stream=Stream(rng, (order,), draw),
        sizes={"tokenizer_training.batch": config.batch},
        samples=lambda batch: len(batch.rows),
        flops=lambda batch: tokenizer_step_flops(preset.tokenizer, len(batch.rows)),
        names=lambda batch: [row_ids[row] for row in batch.rows],
        validate=lambda: _validate(tokenizer, held_out, config.gradient_weight),
        validate_every=config.validate_every,
    )
    Loop(work, around).run()
    return tokenizer.to("cpu").eval()


@torch.no_grad()
def _validate(tokenizer: ImageTokenizer, held_out: Pictures, gradient_weight: float) -> Validation:
    """Loss on the first held-out pictures, and some of them above what becomes of them."""
    if not len(held_out):
        return Validation()
    target = to_tensor(held_out[:64]).to(tokenizer.head.weight.device)
    output = tokenizer(target).float()
    loss = reconstruction_loss(output, target, gradient_weight).item()
    shown = to_pictures(output[:SHOWN].cpu())
    return Validation({"reconstruction": loss}, {"reconstructions": mosaic([list(held_out[:SHOWN]), list(shown)])})


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
