"""What benchmarks on public data sets share: a set that a user has, framed, and one benchmark for each.

A set that is not in the folder is left out with what its loader says; nothing takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gptface_core.datasets import FaceSet, align, load_faces
from gptface_core.errors import InputError
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.finetune import FineTuning
from gptface_core.evaluation.protocol import measure, without_look_alikes
from gptface_core.evaluation.registry import Benchmark
from gptface_core.evaluation.supervised import Problem

OPTIONS = ("data", "face_models", "pack")


def set_benchmark(kind: str, data_set: str, problem_of: Callable[[FaceSet], Problem]) -> Benchmark:
    """`KIND_SET`: frozen probes on 1, 10 and 100 % of the training split, and fine-tuning where steps are given."""
    name = f"{kind}_{data_set}"

    def run(context: Context) -> list[Figure]:
        steps, folder = context.options.fine_tune, set_folder(context)
        tuning = FineTuning(steps=steps) if steps else None
        source = load_set(context, data_set)
        faces, framing = framed(context, source)
        parts = without_look_alikes(source, faces.part("test"), folder)
        made = measure(
            problem_of(faces),
            context.bundle,
            faces,
            fine_tuning=tuning,
            folder=folder,
            seed=context.seed,
            parts=parts,
        )
        return [replace(f, benchmark=name, details={**f.details, "framing": framing}) for f in made]

    return Benchmark(name, ("full",), run, needs=("data",), options=(*OPTIONS, "fine_tune"))


def load_set(context: Context, data_set: str) -> FaceSet:
    """Raises NotMeasuredError with the loader's own line where the set is not there, or not whole."""
    try:
        return load_faces(data_set, context.options.data)
    except InputError as error:
        raise NotMeasuredError(str(error)) from error


def framed(context: Context, faces: FaceSet) -> tuple[FaceSet, str]:
    """The set as crops, and by what they were framed: its own frame or points, else a detector's.

    InsightFace's detector where its models are named, as docs/results.md has it, else OpenCV's cascade: figures of the
    two do not compare, so their details say which.
    """
    from gptface_core.faces.detector import load_detector

    if faces.framed:
        return faces, "as it is"
    if all(item.points is not None for item in faces.items):
        return align(faces, None), "its own points"
    models = context.options.face_models
    try:
        name = "insightface" if models else "cascade"
        detector = load_detector(name, context.options.pack, Path(models) if models else None)
    except InputError as error:
        raise NotMeasuredError(str(error)) from error
    return align(faces, detector, set_folder(context)), detector.describe()


def set_folder(context: Context) -> Path:
    """Keeps points, pictures, fingerprints and features of public sets."""
    return Path(context.options.cache) if context.options.cache else context.out / "sets"
