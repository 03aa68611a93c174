"""Mask removal: synthetic occluders on held-out faces, found and filled by the model alone.

IoU of the region found with the true one; PSNR, within the true one and at the model's size, of the filling beside the
tokenizer's own rendering of the uncovered face, which is the best that any filling can do, and beside a mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gptface_core.editing import EditResult, edit_each
from gptface_core.errors import InputError
from gptface_core.evaluation.context import Context, Faces, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.occluders import KINDS, occlude
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.statistics import by_subgroup
from gptface_core.occluder import Occluder, find_occluder
from gptface_core.regions import Region
from gptface_core.shards import Pictures, shrink
from gptface_core.tokens import to_tensor
from gptface_core.train_tokenizer import psnr_db

_FACES, _SHOWN = 120, 8
_GOOD_IOU = 0.6


@dataclass(frozen=True)
class Covered:
    """A face with an occluder: where it is, and where it was found."""

    crop: Pictures
    hidden: Pictures
    kind: str
    region: Region
    found: Occluder | None

    @property
    def iou(self) -> float:
        if self.found is None:
            return 0.0
        return float((self.region & self.found.region).sum() / (self.region | self.found.region).sum())

    def to_fill(self) -> Region:
        """What was found, with room around it; where nothing was, the true region."""
        return self.region if self.found is None else self.found.to_fill()


def run(context: Context) -> list[Figure]:
    """IoU, PSNR and diversity; draws `unmask`."""
    split, rng = context.options.split, context.rng_for("unmask")
    count = min(_FACES, context.options.faces, len(context.split(split).row_ids))
    if count < len(KINDS):
        raise NotMeasuredError(f"needs {len(KINDS)} {split} faces, there are {count}")
    faces = context.faces(split, sorted(rng.permutation(len(context.split(split).row_ids))[:count].tolist()))
    covered = [_cover(context, faces, row, rng) for row in range(count)]
    fillings = {
        "likeliest": _fill(context, covered, 0.0, 0),
        "first": _fill(context, covered, 1.0, 0),
        "second": _fill(context, covered, 1.0, 1),
    }
    _sheet(context, covered, fillings)
    return [*_found(context, covered), *_filled(context, covered, fillings)]


def _cover(context: Context, faces: Faces, row: int, rng: np.random.Generator) -> Covered:
    kind = KINDS[row % len(KINDS)]
    hidden, region = occlude(faces.crops[row], faces.points[row], kind, rng)
    try:
        found = find_occluder(context.bundle, hidden)
    except InputError:  # no patch of this crop could be one
        found = None
    return Covered(faces.crops[row], hidden, kind, region, found)


def _fill(context: Context, covered: list[Covered], temperature: float, seed: int) -> list[EditResult]:
    regions = [each.to_fill() for each in covered]
    seeds = [1000 * context.seed + 2 * number + seed for number in range(len(covered))]
    crops = [each.hidden for each in covered]
    return list(edit_each(context.bundle, crops, "", regions, seeds=seeds, temperature=temperature))


def _found(context: Context, covered: list[Covered]) -> list[Figure]:
    iou = np.array([each.iou for each in covered])
    kinds = by_subgroup(iou >= _GOOD_IOU, [each.kind for each in covered])
    means = {kind: float(iou[[each.kind == kind for each in covered]].mean()) for kind in KINDS}
    sure = float(np.mean([each.found is not None and each.found.sure for each in covered]))
    return [
        context.mean("unmask", "iou", iou, by_kind=means, sure=sure),
        context.share("unmask", "iou_over_0.6", iou >= _GOOD_IOU, by_kind=kinds),
    ]


def _filled(context: Context, covered: list[Covered], fillings: dict[str, list[EditResult]]) -> list[Figure]:
    """PSNR of the fillings within the true occluder, and how far two samples are apart there."""
    side = context.bundle.image.config.image_px
    target = to_tensor(np.stack([shrink(each.crop, side) for each in covered]))
    region = torch.from_numpy(np.stack([_shrunk(each.region, side) for each in covered]))[:, None].float()
    outside = (target * (1 - region)).sum((2, 3), keepdim=True) / (1 - region).sum((2, 3), keepdim=True)
    tokenizer = context.bundle.image
    pictures = {
        **{n: to_tensor(np.stack([shrink(r.images[0], side) for r in made])) for n, made in fillings.items()},
        "tokenizer": tokenizer.decode(tokenizer.encode(target)),
        "mean": outside.expand_as(target),
    }
    psnr = {name: psnr_db(picture, target, region).double().numpy() for name, picture in pictures.items()}
    mean = float(psnr["mean"].mean())
    figures = [context.mean("unmask", f"psnr_db_{n}", psnr[n], baseline=mean) for n in ("likeliest", "first")]
    figures.append(context.mean("unmask", "psnr_db_tokenizer", psnr["tokenizer"], baseline=mean))
    figures.append(context.mean("unmask", "below_tokenizer_db", psnr["tokenizer"] - psnr["likeliest"]))
    gaps = [
        np.abs(a.images[0].astype(int) - b.images[0].astype(int))[each.region].mean()
        for each, a, b in zip(covered, fillings["first"], fillings["second"], strict=True)
    ]
    differ = float(np.mean([gap > 0 for gap in gaps]))
    figures.append(context.mean("unmask", "samples_apart_levels", gaps, share_that_differ=differ))
    return figures


def _shrunk(region: Region, side: int) -> Region:
    """At another size: pixels that the region covers by more than half."""
    return shrink(np.where(region[..., None], np.uint8(255), np.uint8(0)).repeat(3, 2), side)[..., 0] > 127


def _sheet(context: Context, covered: list[Covered], fillings: dict[str, list[EditResult]]) -> None:
    rows = []
    for number, each in enumerate(covered[:_SHOWN]):
        marked = each.hidden.copy()
        marked[each.to_fill()] = 127
        filled = [fillings[name][number].images[0] for name in ("likeliest", "first", "second")]
        rows.append([each.crop, each.hidden, marked, *filled])
    context.draw("unmask", rows, ["face", "occluded", "found", "likeliest", "sample 1", "sample 2"])


BENCHMARK = Benchmark("unmask", ("full",), run, options=("faces",))
