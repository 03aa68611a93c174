"""Protocol 1, attributes: mean over attributes of accuracy and of balanced accuracy, frozen probe and fine-tuned.

LFW with the opposed attributes, by person; CelebA and LFWA for those who have them. Unknown labels count nowhere.
"""

from __future__ import annotations

from gptface_core.evaluation.public_sets import set_benchmark
from gptface_core.evaluation.supervised import attribute_problem

BENCHMARKS = tuple(set_benchmark("attributes", name, attribute_problem) for name in ("lfw", "celeba", "lfwa"))
