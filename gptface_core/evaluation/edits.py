"""Edits of many faces as benchmarks count them: made in chunks that are kept, and what a judge says of each.

Of the pictures themselves only the first few stay, to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.editing import DEFAULT_GUIDANCE, EditResult, edit_each
from gptface_core.evaluation.attribute_classifier import Answers
from gptface_core.evaluation.context import Context, Faces
from gptface_core.evaluation.kept import Arrays
from gptface_core.guidance import AnyGuidance, ClassifierFree, OneGradient
from gptface_core.regions import AUTO, Region
from gptface_core.shards import Pictures
from gptface_core.tokens import to_tensor
from gptface_core.train_tokenizer import psnr_db

SHOWN = 4  # faces of each task on a sheet
_SAID = "said_"
Judge = Callable[[list[Pictures]], Answers]
Embed = Callable[[list[Pictures], Faces], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Method:
    name: str
    guidance: AnyGuidance | None
    best_of: int = 1


GUIDED, UNGUIDED = Method("guided", DEFAULT_GUIDANCE), Method("unguided", None)
BASELINES = (
    Method("best_of", None, 4),
    Method("classifier_free", ClassifierFree()),
    Method("one_gradient", OneGradient()),
)


@dataclass(frozen=True)
class Edits:
    """What a method made of R faces.

    `answers`: the judge's, each (R,); `match`: s_1; `outside_db` and `unpasted_db`: PSNR outside of the region, after
    and before pasting; `identity`: cosine of face embeddings, before and after, NaN without a recogniser. Each (R,).
    `shown`: the first SHOWN edited faces.
    """

    answers: Answers
    match: npt.NDArray[np.float64]
    outside_db: npt.NDArray[np.float64]
    unpasted_db: npt.NDArray[np.float64]
    identity: npt.NDArray[np.float64]
    shown: Pictures


def edit_faces(
    context: Context,
    name: str,
    faces: Faces,
    prompt: str,
    method: Method,
    judge: Judge,
    region: str | Region = AUTO,
    embed: Embed | None = None,
) -> Edits:
    """Edit every face by `prompt` in a region (a name, or one mask for all); the same seed belongs to a face whatever
    the method. `name`: of the kept chunks."""

    def chunk(rows: slice) -> Arrays:
        some = faces.rows_of(rows)
        seeds = [1000 * context.seed + number for number in range(rows.start, rows.stop)]
        where = region if isinstance(region, str) else [region] * len(seeds)
        results = list(
            edit_each(
                context.bundle,
                some.crops,
                prompt,
                where,
                points=some.points,
                seeds=seeds,
                guidance=method.guidance,
                best_of=method.best_of,
            )
        )
        edited = [result.images[0] for result in results]
        empty = np.empty((0, *edited[0].shape), np.uint8)
        return {
            "match": np.array([result.matches[0] for result in results]),
            "outside_db": _outside_db(some, results, edited),
            "unpasted_db": _outside_db(some, results, [result.fills[0] for result in results]),
            "identity": _cosine(some, edited, embed),
            "shown": np.stack(edited[:SHOWN]) if rows.start == 0 else empty,
            **{_SAID + attribute: said for attribute, said in judge(edited).items()},
        }

    made = context.in_chunks(f"{name} {method.name}", len(faces.crops), chunk)
    answers = {key.removeprefix(_SAID): made.pop(key) for key in list(made) if key.startswith(_SAID)}
    return Edits(answers, **made)


def _outside_db(faces: Faces, results: list[EditResult], edited: list[Pictures]) -> npt.NDArray[np.float64]:
    """(R,) against the input, in the pixels that no edit may touch."""
    values = []
    for crop, result, picture in zip(faces.crops, results, edited, strict=True):
        outside = torch.from_numpy(~result.region)[None, None].float()
        values.append(float(psnr_db(to_tensor(picture[None]), to_tensor(crop[None]), outside)[0]))
    return np.array(values)


def _cosine(faces: Faces, edited: list[Pictures], embed: Embed | None) -> npt.NDArray[np.float64]:
    if embed is None:
        return np.full(len(edited), np.nan)
    return np.asarray((embed(faces.crops, faces) * embed(edited, faces)).sum(1), np.float64)
