"""One micro training for all tests of this room that need a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gptface_core.training import TrainingSummary, train

from .micro import micro_preset, write_corpus


@dataclass(frozen=True)
class Micro:
    shards: Path
    labels: Path
    model_dir: Path
    summary: TrainingSummary


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Micro:
    folder = tmp_path_factory.mktemp("micro")
    shards, labels = write_corpus(folder)
    summary = train(shards, folder / "model", micro_preset(), seed=5)
    return Micro(shards, labels, folder / "model", summary)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
