"""A sheet of edits to look at: some held-out faces, one edit per column, guided. No figures."""

from __future__ import annotations

from gptface_core.editing import edit_each
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.registry import Benchmark
from gptface_core.shards import shrink

EDITS = (("mouth", "smiling"), ("eyes", "with eyeglasses"), ("beard", "a full beard"), ("hair", "red hair"))
_FACES = 6


def run(context: Context) -> list[Figure]:
    """One face per row: the face, then each of EDITS. Faces at four times the model's size, as a user sees them."""
    crops = [shrink(picture, 4 * context.bundle.image.config.image_px) for picture in context.test.pictures[:_FACES]]
    seeds = [context.seed] * len(crops)
    columns = [crops]
    for region, prompt in EDITS:
        edits = edit_each(context.bundle, crops, prompt, region, seeds=seeds)
        columns.append([result.images[0] for result in edits])
    context.draw("edits", list(zip(*columns, strict=True)), ["input", *(prompt for _, prompt in EDITS)])
    return []


BENCHMARK = Benchmark("edit_sheet", ("quick", "full"), run)
