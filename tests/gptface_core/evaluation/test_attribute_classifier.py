from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gptface_core.evaluation import attribute_classifier
from gptface_core.evaluation.attribute_classifier import distort, trained_classifier
from gptface_core.evaluation.labels import Labels, read_labels
from gptface_core.tokens import to_tensor

from .conftest import Drawn

STEPS = 60


def _accuracy(drawn: Drawn, folder: Path, truth: Labels) -> float:
    """On held-out drawn faces, by their true labels, of eyeglasses: what is seen best after few steps."""
    context = drawn.context(folder)
    classifier = trained_classifier(context.train, truth, "r", folder, STEPS)
    known = context.truth or {}
    labels = np.array([known[row_id]["eyeglasses"] for row_id in context.test.row_ids])
    return float((classifier.predict(list(context.test.pictures))["eyeglasses"] == labels).mean())


@pytest.mark.e2e
def test_it_learns_what_is_drawn_and_from_shuffled_labels_nothing(drawn: Drawn, tmp_path: Path) -> None:
    truth = read_labels(drawn.labels)
    keys = list(truth)
    order = np.random.default_rng(1).permutation(len(keys))
    shuffled = {key: truth[keys[other]] for key, other in zip(keys, order, strict=True)}
    assert _accuracy(drawn, tmp_path / "true", truth) > 0.8
    assert 0.3 < _accuracy(drawn, tmp_path / "shuffled", shuffled) < 0.7


@pytest.mark.e2e
def test_it_is_trained_once_per_release_and_kept(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, truth = drawn.context(tmp_path), read_labels(drawn.labels)
    first = trained_classifier(context.train, truth, "one", tmp_path, 2).predict(list(context.test.pictures))
    fits: list[int] = []
    monkeypatch.setattr(attribute_classifier, "fit", lambda *arguments: fits.append(arguments[-1]))
    again = trained_classifier(context.train, truth, "one", tmp_path, 2).predict(list(context.test.pictures))
    assert fits == [] and all(np.array_equal(first[name], again[name]) for name in first)
    trained_classifier(context.train, truth, "another", tmp_path, 2)
    assert fits == [2], "other shards, another classifier: a face that was taken down is not learnt from"


def test_distortions_keep_a_picture_recognisable_and_come_from_their_seed() -> None:
    picture = np.zeros((8, 64, 64, 3), np.uint8)
    picture[:, 20:44, 20:44] = 200
    once, twice = (distort(to_tensor(picture), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, twice) and once.shape == (8, 3, 64, 64)
    assert once.min() >= 0 and once.max() <= 1
    inside, outside = once[:, :, 26:38, 26:38].mean((1, 2, 3)), once[:, :, :12, :12].mean((1, 2, 3))
    assert (inside - outside > 0.4).all() and not torch.equal(once[0], once[1])
