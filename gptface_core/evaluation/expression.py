"""Protocol 2, expression: overall and mean-class accuracy with the confusion matrix, frozen probe and fine-tuned.

FER2013 with its official split; RAF-DB and AffectNet for those who have them. Selection is on validation alone.
"""

from __future__ import annotations

from gptface_core.evaluation.public_sets import set_benchmark
from gptface_core.evaluation.supervised import expression_problem

BENCHMARKS = tuple(set_benchmark("expression", name, expression_problem) for name in ("fer2013", "rafdb", "affectnet"))
