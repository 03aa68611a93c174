"""Protocol 2, expression: overall and mean-class accuracy with the confusion matrix, frozen probe and fine-tuned.

FER2013 with its official split; RAF-DB and AffectNet for those who have them. Selection is on validation alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gptface_core.bundle import Bundle
from gptface_core.datasets import FaceSet
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.finetune import FineTuning
from gptface_core.evaluation.protocol import FRACTIONS, SEEDS, measure
from gptface_core.evaluation.supervised import expression_problem


def run(
    bundle: Bundle,
    faces: FaceSet,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
    fine_tuning: FineTuning | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> list[Figure]:
    """Figures of a framed set with expressions; fine-tuned ones where a budget is given. `folder` keeps features.

    Raises InputError for a set without classes, an empty split, or a person in two splits.
    """
    return measure(expression_problem(faces), bundle, faces, fractions, seeds, fine_tuning, folder, seed)
