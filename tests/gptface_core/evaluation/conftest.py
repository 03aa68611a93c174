"""Drawn faces with labels, and a model trained on them for seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from gptface_core.bundle import load_bundle
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.labels import read_labels
from gptface_core.evaluation_options import EvaluationOptions
from gptface_core.shards import open_index
from gptface_core.training import train

from ..drawn import write_drawn_corpus
from ..micro import micro_preset


@dataclass(frozen=True)
class Drawn:
    shards: Path
    labels: Path
    model_dir: Path

    def context(self, out: Path, options: EvaluationOptions | None = None, labelled: bool = True) -> Context:
        truth = read_labels(self.labels) if labelled else None
        chosen = options or EvaluationOptions(faces=24, classifier_steps=3)
        return Context(load_bundle(self.model_dir), open_index(self.shards), out, 0, truth, chosen)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    shards, labels = write_drawn_corpus(folder, train=220, val=60, test=80)
    train(shards, folder / "model", micro_preset(), seed=5)
    return Drawn(shards, labels, folder / "model")
