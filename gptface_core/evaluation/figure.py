"""One figure of a benchmark: a number with its interval, what it is compared with, and what it was taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`value` with a 95 % interval; `baseline` is the chance level or a simple method's value on the same samples."""

    benchmark: str  # its module in gptface_core.evaluation: "expression", "editing", ...
    metric: str  # "balanced_accuracy", "success_smiling", ...
    value: float
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    samples: int | None = None
    seed: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)  # plain JSON: tables by class, confusion matrix, curves
