"""Edits of held-out faces, judged by a classifier that has never seen the model.

Up to `options.faces` faces that lack an attribute are edited by a sentence, in the region that `gptface edit --region
auto` would take, guided and unguided from the same seeds, and by the baselines. Counted are: edits after which the
classifier finds the attribute; how often its answer on another attribute changes; how alike the identities stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gptface_core.errors import InputError
from gptface_core.evaluation.attribute_classifier import Answers
from gptface_core.evaluation.context import Context, Faces, NotMeasuredError
from gptface_core.evaluation.edits import BASELINES, GUIDED, SHOWN, UNGUIDED, Edits, Embed, Method, edit_faces
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import LEAST, by_subgroup, mcnemar
from gptface_core.guidance import check_guidance
from gptface_core.shards import Pictures

_BASELINE_FACES = 100  # the first of them, for what stands beside the two that are compared


@dataclass(frozen=True)
class Task:
    """After `prompt`, the classifier should answer `wanted` for `attribute`."""

    prompt: str
    attribute: str
    wanted: Any


TASKS = (
    Task("smiling", "smiling", True),
    Task("with eyeglasses", "eyeglasses", True),
    Task("no beard", "beard", False),
)


def run(context: Context) -> list[Figure]:
    """All methods on all tasks; draws `editing`."""
    figures: list[Figure] = []
    sheet: list[list[Pictures]] = []
    embed, judge = _embed(context), context.classifier.predict
    methods = [GUIDED, UNGUIDED, *(method for method in BASELINES if _can(context, method))]
    for task in TASKS:
        try:
            faces = chosen_faces(context, task, context.options.split)
        except NotMeasuredError as error:
            context.left_out[f"editing {task.attribute}"] = str(error)
            continue
        before = judge(faces.crops)
        made: dict[str, Edits] = {}
        for method in methods:
            some = faces.rows_of(slice(_BASELINE_FACES)) if method in BASELINES else faces
            made[method.name] = edit_faces(context, task.attribute, some, task.prompt, method, judge, embed=embed)
        figures += _successes(context, task, faces, before, made)
        figures += _side_effects(context, task, before, made)
        figures += _identities(context, task, faces, made, embed)
        shown = range(min(SHOWN, len(faces.crops)))
        sheet += [[faces.crops[row], *(each.shown[row] for each in made.values())] for row in shown]
    if sheet:
        context.draw("editing", sheet, ["input", *(method.name.replace("_", " ") for method in methods)])
    return figures


def chosen_faces(context: Context, task: Task, split: str) -> Faces:
    """Faces of a split that lack what the task asks for, in an order that only the seed decides."""
    truth, names = context.truth or {}, context.split(split).row_ids
    lacking = [row for row in context.labelled(split) if truth[names[row]][task.attribute] not in (task.wanted, None)]
    if len(lacking) < LEAST:
        raise NotMeasuredError(f"needs {LEAST} {split} faces to make '{task.prompt}', there are {len(lacking)}")
    order = context.rng_for(f"editing {task.attribute}").permutation(len(lacking))[: context.options.faces]
    return context.faces(split, [lacking[i] for i in order])


def _can(context: Context, method: Method) -> bool:
    try:
        check_guidance(context.bundle.model, method.guidance)
    except InputError as error:
        context.left_out[f"editing {method.name}"] = str(error)
        return False
    return True


def _successes(context: Context, task: Task, faces: Faces, before: Answers, made: Mapping[str, Edits]) -> list[Figure]:
    """Share of successes by method; its baseline is the classifier's share on the faces as they were."""
    success = {name: each.answers[task.attribute] == task.wanted for name, each in made.items()}
    unedited = float((before[task.attribute] == task.wanted).mean())
    figures = []
    for name, flags in success.items():
        details: dict[str, Any] = {"prompt": task.prompt, "baseline": unedited}
        if name != UNGUIDED.name:
            details["against_unguided"] = asdict(mcnemar(flags, success[UNGUIDED.name][: len(flags)]))
        if name == GUIDED.name:
            groups = {other: [face[other] for face in faces.labels] for other in before if other != task.attribute}
            details["by"] = {other: by_subgroup(flags, values) for other, values in groups.items()}
        figures.append(context.share("editing", _metric("success", task, name), flags, **details))
    return figures


def _side_effects(context: Context, task: Task, before: Answers, made: Mapping[str, Edits]) -> list[Figure]:
    """How often the answer on another attribute changes, and PSNR outside of the region (100 dB: identical)."""
    figures = []
    for name in (GUIDED.name, UNGUIDED.name):
        each = made[name]
        changed = {other: each.answers[other] != before[other] for other in before if other != task.attribute}
        shares = {other: float(flags.mean()) for other, flags in changed.items()}
        by_face = np.mean(list(changed.values()), axis=0)
        figures.append(context.mean("editing", _metric("others_changed", task, name), by_face, by_attribute=shares))
    guided = made[GUIDED.name]
    details = {"before_pasting_db": float(guided.unpasted_db.mean())}
    metric = _metric("outside_psnr_db", task, GUIDED.name)
    return [*figures, context.mean("editing", metric, guided.outside_db, **details)]


def _metric(what: str, task: Task, method: str) -> str:
    """The guided method is what is measured; others carry their name."""
    return f"{what}_{task.attribute}" + ("" if method == GUIDED.name else f"_{method}")


def _embed(context: Context) -> Embed | None:
    """Embeddings of faces by their points, where a recogniser's weights are at hand."""
    from gptface_core.faces.align import arcface_crop

    try:
        embedder = context.embedder
    except InputError as error:
        context.left_out["editing identity"] = str(error)
        return None

    def embed(crops: list[Pictures], faces: Faces) -> np.ndarray[Any, np.dtype[np.float32]]:
        tight = [arcface_crop(crop, points) for crop, points in zip(crops, faces.points, strict=True)]
        return embedder.embed(np.stack(tight))

    return embed


def _identities(
    context: Context, task: Task, faces: Faces, made: Mapping[str, Edits], embed: Embed | None
) -> list[Figure]:
    """Cosine of the face embeddings before and after, guided and unguided; baseline: of two different faces."""
    if embed is None:
        return []
    before = embed(faces.crops, faces)
    strangers = float((before * np.roll(before, 1, axis=0)).sum(1).mean())
    names = (GUIDED.name, UNGUIDED.name)
    metrics = {name: _metric("identity_cosine", task, name) for name in names}
    return [context.mean("editing", metrics[name], made[name].identity, baseline=strangers) for name in names]


BENCHMARK = Benchmark(
    "editing",
    ("full",),
    run,
    needs=("labels", "classifier"),
    options=("faces", "face_models", "pack", "classifier_steps"),
)
