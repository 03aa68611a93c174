"""Expression manipulation: neutral held-out real faces edited by a prompt for an expression, judged by a stranger.

Faces are those of FER2013 PrivateTest labelled neutral that have no look-alike in Training. Each gets one expression,
in turn, guided and unguided from the same seed. The judge is trained on FER2013 Training and never sees the model; its
own accuracy on PrivateTest, and on the tokenizer's rendering of it, stands beside.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from gptface_core.datasets import EXPRESSION, FaceSet
from gptface_core.datasets.captions import EXPRESSIONS
from gptface_core.datasets.fer2013 import FRAME_POINTS
from gptface_core.evaluation.attribute_classifier import Answers
from gptface_core.evaluation.calibration import confusion
from gptface_core.evaluation.context import Context, Faces, NotMeasuredError
from gptface_core.evaluation.edits import GUIDED, SHOWN, UNGUIDED, Edits, edit_faces
from gptface_core.evaluation.expression_judge import ExpressionJudge, trained_judge
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.protocol import without_look_alikes
from gptface_core.evaluation.public_sets import load_set, set_folder
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import LEAST, Flags, by_subgroup, mcnemar
from gptface_core.regions import Region
from gptface_core.shards import Pictures

NAME, DATA_SET, NEUTRAL = "manipulation", "fer2013", "neutral"
TARGETS = ("happy", "surprise", "sad", "angry")
_JUDGED = 1000  # faces that tell the judge's accuracy on reconstructions
_INNER_FACE = (0.2, 0.95, 0.12, 0.88)  # brows to chin, temple to temple: top, bottom, left, right in FER2013's frame


def run(context: Context) -> list[Figure]:
    """Share of edits after which the judge finds the expression; draws `manipulation`."""
    prompts = {name: prompt for name in TARGETS if (prompt := prompt_for(context, name))}
    if not prompts:
        words = ", ".join(word for name in TARGETS for word in EXPRESSIONS[name])
        raise NotMeasuredError(f"the model's corpus never showed a word for an expression ({words})")
    source, folder = load_set(context, DATA_SET), set_folder(context)
    test = source.part("test")
    clean = without_look_alikes(source, test, folder).get("without_look_alikes", np.ones(len(test), bool))
    test = test.rows(np.flatnonzero(clean))
    faces = _neutral_faces(context, test, len(prompts))
    judge = trained_judge(source.part("train"), folder, context.options.judge_steps)
    made, sheet = _edited(context, faces, prompts, judge)
    context.draw(NAME, sheet, ["input", "guided", "unguided"])
    return [*_successes(context, faces, list(prompts), made, judge), *judge_figures(context, judge, test)]


def prompt_for(context: Context, expression: str) -> str:
    """A prompt in words that the model knows; empty, and told as left out, where it knows none."""
    for word in EXPRESSIONS[expression]:
        prompt = f"{'an' if word[0] in 'aeiou' else 'a'} {word} person"
        if not context.bundle.text.unknown_words(prompt):
            return prompt
    words = " nor ".join(EXPRESSIONS[expression])
    context.left_out[f"{NAME} {expression}"] = f"the model's corpus never showed {words}"
    return ""


def _neutral_faces(context: Context, test: FaceSet, targets: int) -> Faces:
    """Faces labelled neutral at the model's size, as many for each target, in an order that only the seed decides."""
    rows = [row for row, item in enumerate(test.items) if item.labels[EXPRESSION] == NEUTRAL]
    if len(rows) < LEAST:
        raise NotMeasuredError(f"needs {LEAST} neutral faces of {DATA_SET}'s test split, there are {len(rows)}")
    order = context.rng_for(NAME).permutation(len(rows))[: context.options.faces]
    if len(order) < targets:
        raise NotMeasuredError(f"needs a face for each of {targets} expressions, --faces is {len(order)}")
    chosen = [rows[place] for place in order[: len(order) // targets * targets]]
    side = context.bundle.image.config.image_px
    crops = [test.picture(test.items[row], side) for row in chosen]
    return Faces(chosen, crops, [FRAME_POINTS * side] * len(chosen), [dict(test.items[row].labels) for row in chosen])


def _edited(
    context: Context, faces: Faces, prompts: dict[str, str], judge: ExpressionJudge
) -> tuple[dict[str, list[Edits]], list[list[Pictures]]]:
    """By method, the edits of each target's faces; and the first of them to look at."""

    def judged(pictures: list[Pictures]) -> Answers:
        return {EXPRESSION: judge.predict(pictures)}

    made: dict[str, list[Edits]] = {GUIDED.name: [], UNGUIDED.name: []}
    sheet: list[list[Pictures]] = []
    for number, (target, prompt) in enumerate(prompts.items()):
        some = faces.rows_of(slice(number, None, len(prompts)))
        region = inner_face(some.crops[0].shape[0])
        for method in (GUIDED, UNGUIDED):
            made[method.name].append(edit_faces(context, target, some, prompt, method, judged, region))
        columns = [some.crops[:SHOWN], *(list(edits[-1].shown) for edits in made.values())]
        sheet += [list(row) for row in zip(*columns, strict=True)]
    return made, sheet


def inner_face(side: int) -> Region:
    """(side, side): where expressions are, in FER2013's frame."""
    top, bottom, left, right = (round(edge * side) for edge in _INNER_FACE)
    region = np.zeros((side, side), bool)
    region[top:bottom, left:right] = True
    return region


def _successes(
    context: Context, faces: Faces, targets: list[str], made: dict[str, list[Edits]], judge: ExpressionJudge
) -> list[Figure]:
    """Share of edits in which the judge finds what was asked for; baseline: the share of faces where it did before."""
    wanted = [name for number, name in enumerate(targets) for _ in faces.rows[number :: len(targets)]]
    before = np.concatenate([judge.predict(faces.crops[number :: len(targets)]) for number in range(len(targets))])
    flags: dict[str, Flags] = {
        name: np.concatenate([edits.answers[EXPRESSION] for edits in each]) == wanted for name, each in made.items()
    }
    unedited = float((before == wanted).mean())
    against = asdict(mcnemar(flags[GUIDED.name], flags[UNGUIDED.name]))
    figures = []
    for metric, name in (("success", GUIDED.name), ("success_unguided", UNGUIDED.name)):
        details = {"by": {"expression": by_subgroup(flags[name], wanted)}, "against_unguided": against}
        figures.append(context.share(NAME, metric, flags[name], baseline=unedited, **details))
    return figures


def judge_figures(context: Context, judge: ExpressionJudge, test: FaceSet) -> list[Figure]:
    """The judge's accuracy on held-out faces as they are, and on the tokenizer's rendering of them."""
    chosen = test.rows(np.sort(context.rng_for(f"{NAME} judge").permutation(len(test))[:_JUDGED]))
    truth = np.asarray(chosen.classes)[chosen.class_numbers()]
    most = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    pictures = np.stack([chosen.picture(item, context.bundle.image.config.image_px) for item in chosen.items])
    seen = {"": pictures, "_reconstructed": context.bundle.decode(context.bundle.image_ids(pictures))}
    figures = []
    for suffix, each in seen.items():
        said = judge.predict(list(each))
        metric, table = f"judge_accuracy{suffix}", confusion(truth, said)
        figures.append(context.share(NAME, metric, said == truth, baseline=most, **table))
    return figures


BENCHMARK = Benchmark(NAME, ("full",), run, needs=("data",), options=("data", "faces", "judge_steps"))
