from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gptface_core.config import MaskingConfig
from gptface_core.masking import CLEAN, KEEP, MASK, RANDOM, draw_masks, image_blocks, image_scattered, text_spans
from gptface_core.objectives import info_nce, itm_loss, masked_cross_entropy, mismatch, same_caption

LAW = MaskingConfig()


def test_text_spans_cover_the_ratio_and_never_exceed_the_cap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = text_spans(60, LAW, rng)
        assert (actions != CLEAN).sum() == round(0.15 * 60)
    assert (text_spans(1, LAW, rng) != CLEAN).sum() == 1
    assert len(text_spans(0, LAW, rng)) == 0


def test_span_lengths_are_geometric_and_actions_80_10_10() -> None:
    rng = np.random.default_rng(1)
    law = MaskingConfig(text_ratio=10 / 4000)  # a budget of 10 in 4,000 slots: the first span is hardly ever cut
    first, kinds = [], {MASK: 0, RANDOM: 0, KEEP: 0}
    for _ in range(600):
        actions = text_spans(4000, law, rng)
        starts = np.flatnonzero((actions != CLEAN) & (np.roll(actions, 1) == CLEAN))
        for start in starts:
            end = start + int(np.argmin(actions[start:] == actions[start]))
            first.append(end - start)
            kinds[int(actions[start])] += 1
    # Spans are cut by the budget, so only the share of length 1 is that of the law: p, plus single left-overs.
    assert 0.2 < np.mean(np.array(first) == 1) < 0.4
    assert max(first) <= LAW.span_cap
    shares = np.array([kinds[k] for k in (MASK, RANDOM, KEEP)]) / sum(kinds.values())
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.03


def test_image_blocks_cover_between_the_ratios() -> None:
    rng = np.random.default_rng(2)
    shares = [image_blocks(16, LAW, rng).mean() for _ in range(300)]
    assert min(shares) >= 0.14
    assert np.mean(shares) == pytest.approx(0.375 + 0.05, abs=0.06)  # U(0.15, 0.6), and the last rectangle's excess


def test_scattered_ratio_follows_the_cosine() -> None:
    rng = np.random.default_rng(3)
    shares = [image_scattered(256, rng).mean() for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(2 / math.pi, abs=0.02)  # mean of cos(pi u / 2)


def test_masks_choose_image_text_or_both_and_leave_the_clean_share() -> None:
    masks = draw_masks(np.full(4000, 10), 12, 4, LAW, np.random.default_rng(4), clean_share=0.5)
    text, image = (masks.text != CLEAN).any(1), masks.image.any(1)
    assert np.mean(~text & ~image) == pytest.approx(0.5, abs=0.03)
    assert np.mean(image & ~text) == pytest.approx(0.25, abs=0.03)
    assert np.mean(text & ~image) == pytest.approx(0.125, abs=0.03)
    assert not (masks.text[:, 10:] != CLEAN).any(), "padding is never masked"
    whole = (masks.text[:, :10] == MASK).all(1)[text]
    assert whole.mean() == pytest.approx(0.1, abs=0.03)


def test_mismatch_never_pairs_equal_captions() -> None:
    keys = np.array([0, 0, 0, 1, 1, 2, 3, 4] * 8)
    for seed in range(20):
        source, matched = mismatch(keys, np.random.default_rng(seed))
        assert (~matched).sum() == len(keys) // 2
        assert (keys[source[~matched]] != keys[~matched]).all()
        assert (source[matched] == np.flatnonzero(matched)).all()


def test_mismatch_keeps_a_batch_of_one_caption_matched() -> None:
    _, matched = mismatch(np.zeros(6, np.int64), np.random.default_rng(0))
    assert matched.all()


def test_losses_agree_with_a_slow_reference() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 7, dtype=torch.float64), torch.tensor([0, 3, 6, 1, 1])
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    slow = sum(-math.log(math.exp(r[t]) / sum(math.exp(v) for v in r)) for r, t in rows) / 5
    assert masked_cross_entropy(logits, targets).item() == pytest.approx(slow, abs=1e-12)

    pairs, matched = torch.randn(4, 2, dtype=torch.float64), torch.tensor([1, 0, 1, 1])
    slow = 0.0
    for row, label in zip(pairs.tolist(), matched.tolist(), strict=True):
        log_p = [v - math.log(sum(math.exp(u) for u in row)) for v in row]
        slow -= 0.95 * log_p[label] + 0.05 * log_p[1 - label]
    assert itm_loss(pairs, matched, 0.1).item() == pytest.approx(slow / 4, abs=1e-12)


def test_info_nce_agrees_with_a_slow_reference_and_shares_equal_captions() -> None:
    torch.manual_seed(1)
    image, text = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    same = same_caption([5, 5, 6, 7])
    slow = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(4):
            dots = [2.0 * float(a[i] @ b[j]) for j in range(4)]
            total = math.log(sum(math.exp(d) for d in dots))
            positives = [j for j in range(4) if same[i, j]]
            slow += sum(total - dots[j] for j in positives) / len(positives) / 8
    assert info_nce(image, text, torch.tensor(math.log(2.0)), same).item() == pytest.approx(slow, abs=1e-12)


def test_info_nce_leaves_out_pictures_without_their_caption() -> None:
    image, text = torch.eye(3), torch.eye(3)
    same = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    assert torch.isfinite(info_nce(image, text, torch.tensor(0.0), same))


def test_no_masked_slot_gives_zero_loss_and_zero_gradient() -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    loss = masked_cross_entropy(weight[:0], torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and weight.grad is not None and not weight.grad.any()
