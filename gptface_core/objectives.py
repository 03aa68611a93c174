"""The losses, and who is paired with whom: pure functions.

L = L_MILM + lambda_m L_ITM + L_ITC. Masked modelling is taken on matched pairs alone; matching sees matched and
mismatched pairs masked by one law; the contrastive term (ALBEF, Li et al. 2021, here with one encoder) is our addition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Indices = npt.NDArray[np.int64]


def masked_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats over masked slots: logits (M, V), targets (M,). Zero where M = 0."""
    if len(targets) == 0:
        return logits.sum() * 0.0  # keeps the graph, so gradients are zeros and not missing
    return F.cross_entropy(logits, targets)


def itm_loss(logits: Tensor, matched: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy of (B, 2) logits against `matched` (B,) 0 or 1, labels smoothed."""
    return F.cross_entropy(logits, matched, label_smoothing=smoothing)


def info_nce(image: Tensor, text: Tensor, log_temperature: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE over unit vectors (B, P).

    `same` (B, B) is True where picture i has the caption of row j: those share the target, as calling a picture a
    negative of the very caption it has would be noise. A row or column without any is left out.
    """
    logits = _scaled_similarities(image, text, log_temperature)
    return (_soft_cross_entropy(logits, same) + _soft_cross_entropy(logits.T, same.T)) / 2


def info_nce_part(
    mine: tuple[Tensor, Tensor], every: tuple[Tensor, Tensor], log_temperature: Tensor, same: Tensor, first: int
) -> Tensor:
    """What the rows from `first` on add to `info_nce` over all: `mine` (b, P) and `every` (B, P) are image and text.

    Scaled so that the mean over parts of equal size is the whole.
    """
    total = torch.zeros_like(log_temperature)
    rows = slice(first, first + len(mine[0]))
    for anchor, other, target in ((mine[0], every[1], same), (mine[1], every[0], same.T)):
        logits = _scaled_similarities(anchor, other, log_temperature)
        counted, part = (target.any(1)).sum().clamp(min=1), target[rows]
        total = total + _soft_cross_entropies(logits, part).sum() / counted
    return total / 2 * len(same) / len(mine[0])


def _scaled_similarities(a: Tensor, b: Tensor, log_temperature: Tensor) -> Tensor:
    """(A, B) of unit vectors (A, P) and (B, P); never in bf16, whose steps the temperature would blow up."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T * log_temperature.exp()


def _soft_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    """Mean over rows with at least one True of the cross-entropy against the uniform law over the True ones."""
    return _soft_cross_entropies(logits, same).sum() / same.any(1).sum().clamp(min=1)


def _soft_cross_entropies(logits: Tensor, same: Tensor) -> Tensor:
    """By row; zero where there is no True one."""
    target = same.to(logits.dtype)
    count = target.sum(1)
    loss = -(target * F.log_softmax(logits, 1)).sum(1) / count.clamp(min=1)
    return loss * (count > 0)


def same_caption(keys: Sequence[int] | Indices) -> Tensor:
    """(B, B) True where the caption keys agree."""
    tensor = torch.as_tensor(np.asarray(keys))
    return tensor[:, None] == tensor[None, :]


def mismatch(keys: Indices, rng: np.random.Generator, share: float = 0.5) -> tuple[Indices, npt.NDArray[np.bool_]]:
    """Half the rows get another row's caption, never one with an equal caption.

    Returns `source` (B,), the row that each caption comes from, and `matched` (B,). A row for which the batch holds no
    different caption stays matched.
    """
    count = len(keys)
    source, matched = np.arange(count), np.ones(count, bool)
    for row in rng.permutation(count)[: round(share * count)]:
        others = np.flatnonzero(keys != keys[row])
        if len(others):
            source[row] = others[rng.integers(len(others))]
            matched[row] = False
    return source, matched
