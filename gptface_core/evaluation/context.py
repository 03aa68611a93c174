"""What benchmarks run on: a model, the splits of a release with what is known about them, and shared helpers.

Everything costly is made when it is first asked for, so a quick suite pays for nothing that it does not use.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.errors import InputError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.intervals import bootstrap, wilson
from gptface_core.evaluation.kept import Arrays, KeptWork
from gptface_core.evaluation.labels import Labels
from gptface_core.evaluation.rows import RowValues
from gptface_core.evaluation_options import EvaluationOptions
from gptface_core.figures import contact_sheet
from gptface_core.image_tokenizer import batches
from gptface_core.regions import CANONICAL, Points
from gptface_core.shards import Pictures, ShardIndex, decode_jpeg, read_shard
from gptface_core.tokens import decode_split

if TYPE_CHECKING:
    from gptface_core.evaluation.attribute_classifier import AttributeClassifier
    from gptface_core.faces.embed import Embedder


CHUNK = 20  # faces; editing so many takes a minute or two


class NotMeasuredError(Exception):
    """A benchmark, or a part of it, cannot run here; the message says why, and what would help."""


@dataclass(frozen=True)
class Split:
    """`pictures` uint8 (R, P, P, 3) at the model's size, `codes` (R, N) ids of its table."""

    row_ids: list[str]
    captions: list[str]
    pictures: Pictures
    codes: torch.Tensor


@dataclass(frozen=True)
class Faces:
    """Some rows of a split: aligned crops as the shards hold them, the faces' five points in them, and labels."""

    rows: list[int]
    crops: list[Pictures]
    points: list[Points]
    labels: list[dict[str, Any]]

    def rows_of(self, places: slice) -> Faces:
        return Faces(self.rows[places], self.crops[places], self.points[places], self.labels[places])


@dataclass
class Context:
    bundle: Bundle
    index: ShardIndex
    out: Path
    seed: int = 0
    truth: Labels | None = None
    options: EvaluationOptions = field(default_factory=EvaluationOptions)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: RowValues = field(default_factory=dict)  # of the headline figures, for comparing models face by face
    drawn: list[str] = field(default_factory=list)  # pictures' names
    kept: KeptWork | None = None  # of the benchmark under way
    tell: Callable[[str], None] = lambda note: None  # how far it is, in words

    @cached_property
    def train(self) -> Split:
        return self._load("train")

    @cached_property
    def val(self) -> Split:
        return self._load("val")

    @cached_property
    def test(self) -> Split:
        found = self._load("test")
        if len(found.row_ids) < 2:
            raise InputError(
                f"release {self.index.release} has {len(found.row_ids)} test samples: build a larger corpus first"
            )
        return found

    def split(self, name: str) -> Split:
        found: Split = getattr(self, name)
        return found

    @cached_property
    def rng(self) -> np.random.Generator:
        """One stream for the quick suite's figures, in the registry's order; others take `rng_for`."""
        return np.random.default_rng(self.seed)

    def rng_for(self, benchmark: str) -> np.random.Generator:
        """A stream that does not depend on which benchmarks ran before."""
        return np.random.default_rng([self.seed, zlib.crc32(benchmark.encode())])

    # -- what a benchmark may need

    def missing(self, need: str) -> str | None:
        """Why a need (registry.NEEDS) is not met here; None where it is."""
        if need == "data":
            return None if self.options.data else "needs public data sets: name their folder with --data"
        if self.truth is None:
            return "needs labels: the attributes of these faces are not known"
        if need == "classifier":
            return self._why_no_classifier()
        return None

    def _why_no_classifier(self) -> str | None:
        from gptface_core.evaluation.attribute_classifier import LEAST_FACES

        assert self.truth is not None
        labelled = sum(row_id in self.truth for row_id in self.train.row_ids)
        if labelled >= LEAST_FACES:
            return None
        return f"needs {LEAST_FACES} labelled training faces for an independent classifier: there are {labelled}"

    @cached_property
    def classifier(self) -> AttributeClassifier:
        """Trained once per release, and kept beside the results."""
        from gptface_core.evaluation.attribute_classifier import trained_classifier

        assert self.truth is not None
        steps = self.options.classifier_steps
        return trained_classifier(self.train, self.truth, self.index.digest(), self.out / "classifier", steps)

    @cached_property
    def embedder(self) -> Embedder:
        """Only where a user named its folder (biometric data). Raises InputError where there are no weights."""
        from gptface_core.faces.embed import Embedder

        if not self.options.face_models:
            raise InputError("needs a face recogniser: name the folder of InsightFace's models/ with --face-models")
        return Embedder(self.options.pack, Path(self.options.face_models))

    # -- faces

    def labelled(self, split: str) -> list[int]:
        """Rows of a split whose attributes are known."""
        truth = self.truth or {}
        return [i for i, row_id in enumerate(self.split(split).row_ids) if row_id in truth]

    def faces(self, split: str, rows: Sequence[int]) -> Faces:
        """Crops at the shards' size with points, in the order of `rows`; labels are empty where none are known."""
        wanted, found = set(rows), {}
        samples = (sample for shard in self.index.splits.get(split, ()) for sample in read_shard(shard))
        for number, sample in enumerate(samples):
            if number in wanted:
                crop = decode_jpeg(sample.jpeg, self.index.crop_px)
                label = (self.truth or {}).get(sample.row_id, {})
                found[number] = (crop, crop_points(json.loads(sample.metadata), self.index.crop_px), label)
        crops, points, labels = (list(part) for part in zip(*(found[row] for row in rows), strict=True))
        return Faces(list(rows), crops, points, labels)

    def _load(self, split: str) -> Split:
        shards = self.index.splits.get(split, ())
        samples = [(sample.row_id, sample.caption) for shard in shards for sample in read_shard(shard)]
        pictures = decode_split(shards, self.bundle.image.config.image_px)
        codes = self.bundle.image_ids(pictures)
        return Split([row_id for row_id, _ in samples], [caption for _, caption in samples], pictures, codes)

    # -- results

    def in_chunks(self, name: str, count: int, compute: Callable[[slice], Arrays], size: int = CHUNK) -> Arrays:
        """`compute` of `size` rows after the other, joined. Chunks that are done are kept until their benchmark is, so
        that a run that was stopped goes on after them."""
        parts = []
        for rows in batches(count, size):
            self.tell(f"{name}: {rows.start} of {count}")
            place = f"{name.replace(' ', '-')}-{rows.start:05d}"
            found = self.kept.chunk(place) if self.kept else None
            if found is None:
                found = compute(rows)
                if self.kept:
                    self.kept.save_chunk(place, found)
            parts.append(found)
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def draw(self, name: str, rows: Sequence[Sequence[Pictures]], titles: Sequence[str] = ()) -> None:
        """A contact sheet among the evaluation's pictures."""
        contact_sheet(rows, self.picture(name), titles=titles)
        self.drawn.append(name)

    def picture(self, name: str) -> Path:
        return self.out / self.options.pictures / f"{name}.png"

    def share(self, benchmark: str, metric: str, success: npt.ArrayLike, **more: Any) -> Figure:
        """Share of successes (R,) with Wilson's interval."""
        flags = np.asarray(success, bool)
        low, high = wilson(float(flags.sum()), len(flags))
        return self._figure(benchmark, metric, float(flags.mean()), low, high, len(flags), more)

    def mean(self, benchmark: str, metric: str, values: npt.ArrayLike, **more: Any) -> Figure:
        """Mean of values (R,) with its bootstrap interval."""
        numbers = np.asarray(values, np.float64)
        low, high = bootstrap(numbers, self.rng_for(f"{benchmark} {metric}"))
        return self._figure(benchmark, metric, float(numbers.mean()), low, high, len(numbers), more)

    def _figure(
        self, benchmark: str, metric: str, value: float, low: float, high: float, count: int, more: Mapping[str, Any]
    ) -> Figure:
        """`more` may hold the baseline; all else are details."""
        details = {name: thing for name, thing in more.items() if name != "baseline"}
        return Figure(benchmark, metric, value, low, high, more.get("baseline"), count, self.seed, details)


def crop_points(metadata: Mapping[str, Any], crop_px: int) -> Points:
    """The five points (5, 2) in pixels of the crop, from those of the photo; where none are stored, the usual ones."""
    from gptface_core.faces.align import frame_to_crop, points_array

    if "points_px" not in metadata:
        return CANONICAL * crop_px
    marks = points_array(metadata["points_px"])
    matrix = frame_to_crop(marks, crop_px)
    return np.asarray((marks - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5)
