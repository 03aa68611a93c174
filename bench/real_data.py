"""A model and its baselines on real faces: `python -m bench.real_data MODEL --out results.json`.

LFW attributes by person and FER2013 PrivateTest, each by the same code on the same pictures: most frequent class,
HOG, the InsightFace embedding, the network with random initialisation (probe, and trained from scratch), an open_clip
model trained contrastively on the same corpus (`bench.contrastive`), and the model itself (frozen probe, fine-tuned).
Without MODEL, the network is the preset's, untrained.

Parts are `SET:METHOD`; each is written to the results when it is done, and not run again unless --again. The table is
printed in the end, and one line of JSON last. Fine-tuning takes hours on a CPU: --steps is its budget.

Needs GPTFACE_TEST_DATA (lfw, fer2013) and GPTFACE_TEST_MODELS (insightface/models/{buffalo_sc,test_sc}).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bench._env import cache_folder
from bench._faces import data_folder
from bench._results import Results
from bench.corpus import corpus_detector
from gptface_core.bundle import load_bundle
from gptface_core.config import load_preset
from gptface_core.datasets import FaceSet, align, load_faces, load_pictures
from gptface_core.datasets.framing import find_points
from gptface_core.errors import InputError
from gptface_core.evaluation.encoders import EmbeddingEncoder, FaceEncoder, HogEncoder, ModelEncoder
from gptface_core.evaluation.finetune import FineTuning
from gptface_core.evaluation.protocol import SEEDS, majority, probes, tuned, without_look_alikes
from gptface_core.evaluation.supervised import (
    Attempt,
    Problem,
    attribute_problem,
    expression_problem,
    figures,
)
from gptface_core.evaluation.untrained import untrained_like, untrained_preset
from gptface_core.image_tokenizer import PictureTokenizer
from gptface_core.model import GPTFace, check_version

logger = logging.getLogger("bench.real_data")
SETS = ("fer2013", "lfw")
METHODS = ("majority", "hog", "insightface", "random", "scratch", "contrastive", "model", "finetuned")
NEEDS_MODEL = ("model", "finetuned")
CALIBRATION_ROWS, FRAME_ROWS = 2048, 500
# Pairs whose difference is told with an interval: what the project claims.
PAIRS = (
    ("model", "random"),
    ("finetuned", "scratch"),
    ("model", "hog"),
    ("model", "contrastive"),
    ("model", "insightface"),
)


def main(words: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    try:
        parts = _chosen(options)
        results = Results(options.out)
        for name in parts:
            if options.again or not results.has(name, model_digest(options.model)):
                _run_part(name, options, results)
    except InputError as error:
        logger.error("%s", error)
        return 2
    print(results.table())
    print(json.dumps(results.summary()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="folder of a trained GPTFace")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file of the results; gone on with where it exists"
    )
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--methods", default="", help=f"of {', '.join(METHODS)} (default: all that can be run)")
    parser.add_argument(
        "--fractions", type=_shares, default=(1.0,), help="shares of the training set for probes, e.g. 0.01,0.1,1"
    )
    parser.add_argument("--preset", default="mini", help="shape of the untrained network where there is no MODEL")
    parser.add_argument("--contrastive", type=Path, help="folder that bench.contrastive wrote")
    parser.add_argument("--steps", type=int, default=1000, help="of fine-tuning, and of training from scratch")
    parser.add_argument("--tuning-seeds", type=int, default=1, help="fine-tunings, each with its own seed")
    parser.add_argument("--learning-rate", type=float, default=FineTuning.learning_rate)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of training")
    parser.add_argument("--compile", action="store_true", help="torch.compile: minutes at first, then a third faster")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run parts anew that the results have")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "faces", help="points, pictures, features")
    return parser


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(share) for share in text.split(","))


def _chosen(options: argparse.Namespace) -> list[str]:
    """Parts by name, cheapest method first. Raises InputError for what does not exist or cannot be run."""
    able = [
        m for m in METHODS if (m not in NEEDS_MODEL or options.model) and (m != "contrastive" or options.contrastive)
    ]
    methods = options.methods.split(",") if options.methods else able
    for given, known in ((options.sets.split(","), SETS), (methods, METHODS)):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"unknown {', '.join(unknown)}: choose from {', '.join(known)}")
    if unable := [name for name in methods if name not in able]:
        raise InputError(f"{', '.join(unable)} cannot be run: name a MODEL folder, or --contrastive FOLDER")
    return [f"{name}:{method}" for method in METHODS if method in methods for name in options.sets.split(",")]


class Task:
    """One data set, framed, with what several methods need."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.options, self.cache = options, options.cache
        self.source = load_faces(name, data_folder("GPTFACE_TEST_DATA", "data"))
        self.faces = align(self.source, None if self.source.framed else corpus_detector(), self.cache)
        self.problem: Problem = (expression_problem if self.faces.classes else attribute_problem)(self.faces)
        self.test = self.faces.part("test")

    def embedder(self) -> FaceEncoder:
        from gptface_core.faces.embed import Embedder

        root = data_folder("GPTFACE_TEST_MODELS", "models") / "insightface"
        # Tight faces are all framed alike, and detection in 48 px is slow and noisy: one alignment for all of them.
        looked_at = self.sample(FRAME_ROWS) if self.source.framed else self.source
        points = find_points(looked_at, corpus_detector(), self.cache)
        return EmbeddingEncoder(Embedder("test_sc", root), self.source, {} if self.source.framed else points, points)

    def sample(self, rows: int) -> FaceSet:
        """So many pictures of train, evenly spaced."""
        train = self.faces.part("train")
        return train.rows(np.unique(np.linspace(0, len(train) - 1, rows).astype(int)))

    @cached_property
    def network(self) -> tuple[GPTFace, PictureTokenizer, str]:
        """The network with random initialisation, its image tokenizer, and in words what that is."""
        if self.options.model:
            bundle = load_bundle(self.options.model)
            return untrained_like(bundle), bundle.image, "random transformer, the model's image tokenizer"
        preset = load_preset(self.options.preset)
        pictures = load_pictures(self.sample(CALIBRATION_ROWS), preset.tokenizer.image_px)
        return *untrained_preset(preset, pictures), f"preset {self.options.preset}, transformer and tokenizer untrained"


def model_digest(folder: Path | None) -> str | None:
    """12 hex digits over a model's weights. Raises InputError where the folder holds none."""
    if folder is None:
        return None
    check_version(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def _run_part(name: str, options: argparse.Namespace, results: Results) -> None:
    set_name, method = name.split(":")
    started = time.monotonic()
    logger.info("part %s", name)
    task = Task(set_name, options)
    attempts = _attempts(task, method)
    parts = without_look_alikes(task.source, task.test, task.cache)
    made = [figure for attempt in attempts for figure in figures(task.problem, task.test, attempt, parts)]
    notes = {
        "seconds": round(time.monotonic() - started, 1),
        "model": model_digest(options.model),
        "threads": options.threads,
    }
    results.add(name, attempts, made, notes)
    for pair in PAIRS:
        if method in pair:
            results.compare_pair(set_name, pair, task.problem, task.test)


def _attempts(task: Task, method: str) -> list[Attempt]:
    options = task.options
    budget = FineTuning(
        steps=options.steps,
        learning_rate=options.learning_rate,
        precision=options.precision,
        compile=options.compile,
    )
    seeds = tuple(range(options.tuning_seeds))
    if method == "majority":
        return [majority(task.problem, task.faces)]
    if method == "scratch":
        model, tokenizer, what = task.network
        made = tuned(task.problem, model.config, None, tokenizer, task.faces, budget, seeds=seeds, name="from scratch")
        return [replace(made, details={**(made.details or {}), "network": what})]
    if method == "finetuned":
        bundle = load_bundle(options.model)
        network = bundle.model.config, bundle.model, bundle.image
        return [tuned(task.problem, *network, task.faces, budget, seeds=seeds)]
    encoder, what = _encoder(task, method)
    made_all = probes(task.problem, encoder, task.faces, options.fractions, SEEDS, task.cache)
    return [replace(attempt, details={**(attempt.details or {}), "network": what}) for attempt in made_all]


def _encoder(task: Task, method: str) -> tuple[FaceEncoder, str]:
    """The encoder of a probe, and in words what it is."""
    if method == "hog":
        return HogEncoder(task.cache), "64 px grey, 1,764 numbers"
    if method == "insightface":
        encoder = task.embedder()
        return encoder, encoder.key.split(" ")[0]
    if method == "contrastive":
        from bench.contrastive import ContrastiveEncoder

        contrastive = ContrastiveEncoder(task.options.contrastive, task.cache)
        return contrastive, contrastive.description
    if method == "model":
        bundle = load_bundle(task.options.model)
        return ModelEncoder("GPTFace", bundle.model, bundle.image, task.cache), task.options.model.name
    model, tokenizer, what = task.network
    return ModelEncoder("random initialisation", model, tokenizer, task.cache), what


if __name__ == "__main__":
    sys.exit(main())
