"""The two ways to judge a network on a labelled set: a linear probe of it frozen, and all of it fine-tuned.

The same code for every method, ours and baselines: train on the train split (or a share of it), choose on val, answer
for test once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle
from gptface_core.configuration import GPTFaceConfig
from gptface_core.datasets import FaceSet
from gptface_core.datasets.twins import fingerprints, leaks
from gptface_core.errors import InputError
from gptface_core.evaluation.encoders import FaceEncoder, ModelEncoder, cached_features
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.finetune import Examples, FineTuning, examples, fine_tune, logits
from gptface_core.evaluation.linear import probe
from gptface_core.evaluation.resampling import Numbers
from gptface_core.evaluation.supervised import Attempt, Problem, constant_prediction, figures, subset
from gptface_core.heads import GPTFaceClassifier, GPTFaceForAttributes, GPTFaceForExpression
from gptface_core.image_tokenizer import PictureTokenizer
from gptface_core.model import GPTFace
from gptface_core.shards import SPLITS

logger = logging.getLogger(__name__)
SEEDS = (0, 1, 2)
FRACTIONS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Parts:
    """The three splits of a framed set. Raises InputError for an empty one, or people in two of them."""

    train: FaceSet
    val: FaceSet
    test: FaceSet

    @classmethod
    def of(cls, faces: FaceSet) -> Parts:
        parts = [faces.part(split) for split in SPLITS]
        for split, part in zip(SPLITS, parts, strict=True):
            if not len(part):
                raise InputError(f"{faces.name} has no {split} pictures: choose another data set")
        check_people(faces)
        return cls(*parts)


def check_people(faces: FaceSet) -> None:
    """Raises InputError where a person lies in two splits."""
    homes: dict[str, str] = {}
    for item in faces.items:
        if item.person and homes.setdefault(item.person, item.split) != item.split:
            splits = f"{homes[item.person]} and {item.split}"
            raise InputError(f"{faces.name} has pictures of one person in {splits} ({item.id}): split it by person")


def majority(problem: Problem, faces: FaceSet) -> Attempt:
    """Each column's most frequent training class."""
    parts = Parts.of(faces)
    predicted = constant_prediction(problem, problem.truth(parts.train), len(parts.test))
    return Attempt("most frequent class", "majority", predicted)


def probes(
    problem: Problem,
    encoder: FaceEncoder,
    faces: FaceSet,
    fractions: Sequence[float] = (1.0,),
    seeds: Sequence[int] = SEEDS,
    folder: Path | None = None,
) -> list[Attempt]:
    """A linear probe for each share of the training set; all of it has one answer, a share one for every seed.

    `folder` keeps features.
    """
    parts = Parts.of(faces)
    train, val, test = (cached_features(encoder, part, folder) for part in (parts.train, parts.val, parts.test))
    truth = problem.truth(parts.train), problem.truth(parts.val)
    attempts = []
    for fraction in fractions:
        answers, strengths = [], []
        for seed in seeds if fraction < 1 else (0,):
            rows = subset(len(parts.train), fraction, seed)
            predicted, chosen = probe((train[rows], val, test), (truth[0][rows], truth[1]))
            answers.append(predicted)
            strengths.append(chosen)
        details = {"features": int(train.shape[1]), "strengths": strengths, "training_rows": len(rows)}
        attempts.append(Attempt(encoder.name, "probe", np.stack(answers), fraction, details))
        logger.info("probe of %s on %s of %s: done", encoder.name, f"{fraction:.0%}", faces.name)
    return attempts


def classifier(problem: Problem, config: GPTFaceConfig, trunk: GPTFace | None, seed: int = 0) -> GPTFaceClassifier:
    """A classifier of this shape, with the trunk's weights, or (None) with random ones: then `mode` is scratch."""
    kind = GPTFaceForExpression if problem.benchmark == "expression" else GPTFaceForAttributes
    labels = problem.classes if problem.benchmark == "expression" else problem.columns
    settings = {**config.to_dict(), "id2label": dict(enumerate(labels))}
    settings["label2id"] = {name: number for number, name in enumerate(labels)}
    torch.manual_seed(seed)
    model = kind(GPTFaceConfig.from_dict(settings))
    if trunk is not None:
        model.gptface.load_state_dict(trunk.state_dict())
    return model


def targets(problem: Problem, truth: Numbers) -> Tensor:
    """Labels as the classifiers' losses take them."""
    if problem.benchmark == "expression":
        return torch.from_numpy(truth[:, 0])
    return torch.from_numpy(np.where(truth >= 0, truth, np.nan).astype(np.float32))


def decide(problem: Problem, scores: Tensor) -> Numbers:
    """(R, T) classes of logits."""
    if problem.benchmark == "expression":
        return scores.argmax(1, keepdim=True).numpy()
    return (scores > 0).long().numpy()


def tuned(
    problem: Problem,
    config: GPTFaceConfig,
    trunk: GPTFace | None,
    tokenizer: PictureTokenizer,
    faces: FaceSet,
    settings: FineTuning,
    fraction: float = 1.0,
    seeds: Sequence[int] = (0,),
    name: str = "GPTFace",
) -> Attempt:
    """All of the network trained, from the trunk's weights or from random ones; one answer per seed."""
    parts = Parts.of(faces)
    made: list[Examples] = []
    for part, views in ((parts.train, settings.views), (parts.val, 1), (parts.test, 1)):
        made.append(examples(part, tokenizer, targets(problem, problem.truth(part)), views))
    answers, runs = [], []
    for seed in seeds:
        model = classifier(problem, config, trunk, seed)
        rows = subset(len(parts.train), fraction, seed)
        runs.append(fine_tune(model, made[0].rows(rows), made[1], settings, seed))
        answers.append(decide(problem, logits(model, made[2])))
    details: dict[str, Any] = {"settings": dict(vars(settings)), "runs": runs, "training_rows": len(rows)}
    mode = "scratch" if trunk is None else "finetuned"
    return Attempt(name, mode, np.stack(answers), fraction, details)


def measure(
    problem: Problem,
    bundle: Bundle,
    faces: FaceSet,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
    fine_tuning: FineTuning | None = None,
    folder: Path | None = None,
    seed: int = 0,
    parts: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> list[Figure]:
    """Figures of a model on a framed set: frozen probes, and fine-tuned where a budget is given.

    `folder` keeps features; `parts` are test rows to be scored by themselves as well. Raises InputError for an empty
    split, or a person in two splits.
    """
    encoder = ModelEncoder("GPTFace", bundle.model, bundle.image, folder)
    attempts = probes(problem, encoder, faces, fractions, seeds, folder)
    if fine_tuning is not None:
        config = bundle.model.config
        attempts.append(tuned(problem, config, bundle.model, bundle.image, faces, fine_tuning, seeds=seeds))
    test = faces.part("test")
    return [figure for attempt in attempts for figure in figures(problem, test, attempt, parts, seed)]


def without_look_alikes(source: FaceSet, test: FaceSet, folder: Path | None) -> dict[str, npt.NDArray[np.bool_]]:
    """The rows of `test` without a look-alike in training, as a part of that name, where some have one.

    `source` is the set as it is stored, before framing.
    """
    prints = {split: fingerprints(source.part(split), folder) for split in ("train", "test")}
    leaked = leaks(prints["train"], prints["test"])
    rows = np.array([f"{source.name}/{item.id}" not in leaked for item in test.items])
    return {} if rows.all() else {"without_look_alikes": rows}
