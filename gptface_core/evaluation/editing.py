"""Edits of held-out faces, judged by a classifier that has never seen the model.

Up to `Options.faces` faces that lack an attribute are edited by a sentence, in the region that `gptface edit --region
auto` would take, guided and unguided from the same seeds, and by the baselines. Counted are: edits after which the
classifier finds the attribute; how often its answer on another attribute changes; how alike the identities stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from gptface_core.editing import DEFAULT_GUIDANCE, EditResult, edit_each
from gptface_core.errors import InputError
from gptface_core.evaluation.attribute_classifier import Answers
from gptface_core.evaluation.context import Context, Faces, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import LEAST, by_subgroup, mcnemar
from gptface_core.guidance import AnyGuidance, ClassifierFree, OneGradient, check_guidance
from gptface_core.shards import Pictures
from gptface_core.tokens import to_tensor
from gptface_core.train_tokenizer import psnr_db

_BEST_OF = 4
_BASELINE_FACES = 100  # the first of them, for what stands beside the two that are compared
_SHOWN = 4  # faces of each task on the sheet


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


@dataclass(frozen=True)
class Method:
    name: str
    guidance: AnyGuidance | None
    best_of: int = 1


GUIDED, UNGUIDED = Method("guided", DEFAULT_GUIDANCE), Method("unguided", None)
BASELINES = (
    Method("best_of", None, _BEST_OF),
    Method("classifier_free", ClassifierFree()),
    Method("one_gradient", OneGradient()),
)


@dataclass(frozen=True)
class Edited:
    """What a method made of the faces, and the classifier's answers on it."""

    results: list[EditResult]
    answers: Answers


def run(context: Context) -> list[Figure]:
    """All methods on all tasks; draws `editing`."""
    figures: list[Figure] = []
    sheet: list[list[Pictures]] = []
    identity = _Identity(context)
    for task in TASKS:
        try:
            faces = chosen_faces(context, task, context.options.split)
        except NotMeasuredError as error:
            context.left_out[f"editing {task.attribute}"] = str(error)
            continue
        before = context.classifier.predict(faces.crops)
        made = {m.name: apply(context, faces, task, m) for m in (GUIDED, UNGUIDED)}
        some = faces.first(_BASELINE_FACES)
        made |= {m.name: apply(context, some, task, m) for m in BASELINES if _can(context, m)}
        figures += _successes(context, task, faces, before, made)
        figures += _side_effects(context, task, faces, before, made)
        figures += identity.figures(task, faces, made)
        shown = range(min(_SHOWN, len(faces.crops)))
        sheet += [[faces.crops[row], *(each.results[row].images[0] for each in made.values())] for row in shown]
    if sheet:
        context.draw("editing", sheet, ["input", *(name.replace("_", " ") for name in made)])
    return figures


def chosen_faces(context: Context, task: Task, split: str) -> Faces:
    """Faces of a split that lack what the task asks for, in an order that only the seed decides."""
    truth, names = context.truth or {}, context.split(split).row_ids
    lacking = [row for row in context.labelled(split) if truth[names[row]][task.attribute] not in (task.wanted, None)]
    if len(lacking) < LEAST:
        raise NotMeasuredError(f"needs {LEAST} {split} faces to make '{task.prompt}', there are {len(lacking)}")
    order = context.rng_for(f"editing {task.attribute}").permutation(len(lacking))[: context.options.faces]
    return context.faces(split, [lacking[i] for i in order])


def apply(context: Context, faces: Faces, task: Task, method: Method) -> Edited:
    """Edit every face; the same seed belongs to a face whatever the method."""
    seeds = [1000 * context.seed + number for number in range(len(faces.crops))]
    results = list(
        edit_each(
            context.bundle,
            faces.crops,
            task.prompt,
            points=faces.points,
            seeds=seeds,
            guidance=method.guidance,
            best_of=method.best_of,
        )
    )
    return Edited(results, context.classifier.predict([result.images[0] for result in results]))


def _can(context: Context, method: Method) -> bool:
    try:
        check_guidance(context.bundle.model, method.guidance)
    except InputError as error:
        context.left_out[f"editing {method.name}"] = str(error)
        return False
    return True


def _successes(context: Context, task: Task, faces: Faces, before: Answers, made: Mapping[str, Edited]) -> list[Figure]:
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


def _side_effects(
    context: Context, task: Task, faces: Faces, before: Answers, made: Mapping[str, Edited]
) -> list[Figure]:
    """How often the answer on another attribute changes, and PSNR outside of the region (100 dB: identical)."""
    figures = []
    for name in (GUIDED.name, UNGUIDED.name):
        each = made[name]
        changed = {other: each.answers[other] != before[other] for other in before if other != task.attribute}
        shares = {other: float(flags.mean()) for other, flags in changed.items()}
        by_face = np.mean(list(changed.values()), axis=0)
        figures.append(context.mean("editing", _metric("others_changed", task, name), by_face, by_attribute=shares))
    guided = made[GUIDED.name].results
    kept = [_outside_db(c, r.images[0], r) for c, r in zip(faces.crops, guided, strict=True)]
    unpasted = [_outside_db(c, r.fills[0], r) for c, r in zip(faces.crops, guided, strict=True)]
    details = {"before_pasting_db": float(np.mean(unpasted))}
    figures.append(context.mean("editing", _metric("outside_psnr_db", task, GUIDED.name), kept, **details))
    return figures


def _outside_db(crop: Pictures, edited: Pictures, result: EditResult) -> float:
    outside = torch.from_numpy(~result.region)[None, None].float()
    return float(psnr_db(to_tensor(edited[None]), to_tensor(crop[None]), outside)[0])


def _metric(what: str, task: Task, method: str) -> str:
    """The guided method is what is measured; others carry their name."""
    return f"{what}_{task.attribute}" + ("" if method == GUIDED.name else f"_{method}")


class _Identity:
    """Cosine between the face embeddings before and after, where an embedder's weights are at hand."""

    def __init__(self, context: Context) -> None:
        self._context = context
        try:
            context.embedder  # noqa: B018  loads it
            self._works = True
        except InputError as error:
            context.left_out["editing identity"] = str(error)
            self._works = False

    def figures(self, task: Task, faces: Faces, made: Mapping[str, Edited]) -> list[Figure]:
        """For guided and unguided edits; the baseline is the cosine of two different faces."""
        if not self._works:
            return []
        before = self._embed(faces.crops, faces)
        strangers = float((before * np.roll(before, 1, axis=0)).sum(1).mean())
        figures = []
        for name in (GUIDED.name, UNGUIDED.name):
            after = self._embed([result.images[0] for result in made[name].results], faces)
            cosine = (before * after).sum(1)
            metric = _metric("identity_cosine", task, name)
            figures.append(self._context.mean("editing", metric, cosine, baseline=strangers))
        return figures

    def _embed(self, crops: list[Pictures], faces: Faces) -> np.ndarray[Any, np.dtype[np.float32]]:
        from gptface_core.faces.align import arcface_crop

        tight = [arcface_crop(crop, points) for crop, points in zip(crops, faces.points, strict=True)]
        return self._context.embedder.embed(np.stack(tight))


BENCHMARK = Benchmark("editing", ("full",), run, needs=("labels", "classifier"))
