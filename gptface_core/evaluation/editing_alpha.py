"""The strength of guidance against success, on validation faces alone: how the default is chosen, never on test."""

from __future__ import annotations

import numpy as np

from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.editing import TASKS, Task, chosen_faces
from gptface_core.evaluation.edits import UNGUIDED, Method, edit_faces
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark
from gptface_core.guidance import Guidance


def run(context: Context) -> list[Figure]:
    """For each of `options.alphas`, and unguided: success; the change of other attributes and s_1 in the details."""
    if not context.options.alphas:
        raise NotMeasuredError("needs strengths to compare: name them with --alphas 0.1,0.3,1")
    methods = [UNGUIDED, *(Method(f"alpha_{alpha:g}", Guidance(alpha=alpha)) for alpha in context.options.alphas)]
    return [figure for task in TASKS for figure in _compare(context, task, methods)]


def _compare(context: Context, task: Task, methods: list[Method]) -> list[Figure]:
    faces = chosen_faces(context, task, "val")
    judge = context.classifier.predict
    before = judge(faces.crops)
    figures = []
    for method in methods:
        made = edit_faces(context, task.attribute, faces, task.prompt, method, judge)
        others = [(made.answers[other] != before[other]).mean() for other in before if other != task.attribute]
        details = {
            "others_changed": float(np.mean(others)),
            "match": float(made.match.mean()),
        }
        success = made.answers[task.attribute] == task.wanted
        figures.append(context.share("editing_alpha", f"success_{task.attribute}_{method.name}", success, **details))
    return figures


BENCHMARK = Benchmark(
    "editing_alpha", (), run, needs=("labels", "classifier"), options=("faces", "alphas", "classifier_steps")
)
