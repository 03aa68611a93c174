"""Faces found, measured and embedded per second, beside InsightFace's own loop: `python -m bench.detect`.

60 % LFW, 20 % portraits of the US Congress, 20 % pages of 1,500 px and more with drawn faces. Ours: two worker
processes of one thread, everything that the detect step does (decode, faces, pose, sharpness, hash, ...) and an
embedding per face, in bfloat16 where that can be had (with openvino, on a processor that has it): a build does so when
asked to, `--embed-precision float32` is its default. Theirs: `FaceAnalysis(det_size=640).get` over the same bytes in
one process with its default threads. Blocks alternate; both are warm. A worker takes the next picture when it is done
with one, so that none waits long at the end of a block, and embeds in full batches, as the step does. Extra faces on
pages are judged by where the heads were drawn. One line of JSON last.

Needs GPTFACE_TEST_DATA (lfw, congress) and GPTFACE_TEST_MODELS (insightface/models/<pack> with a recogniser).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._faces import SEED, Sample, data_folder, mixed

TARGET_RATIO, TARGET_RECALL = 5.0, 0.995
_WORKERS = 2
_WARM_UP = 20  # pictures that every worker sees first
_GIB = 2**30

_state: dict[str, Any] = {}  # of a worker process: its file, its models and the counter that all workers share


@dataclass(frozen=True, eq=False)
class Answer:
    """Boxes float32 (N, 4) by number of the picture; how many vectors; processor seconds; peak memory; who."""

    boxes: dict[int, NDArray[np.float32]]
    vectors: int
    cpu_s: float
    peak_bytes: int
    pid: int


Place = tuple[int, int]  # offset and length of a picture in the file


Task = tuple[list[Place], bool]  # pictures; whether they are dealt among the workers, or every worker takes all


def start_ours(dealt: Any, file: str, models: str, pack: str, precision: str) -> None:
    from flows.steps.detect import settle_worker
    from gptface_core.faces.detector import load_detector
    from gptface_core.faces.embed import Embedder

    settle_worker()
    root = Path(models)
    embedder = Embedder(pack, root, precision=precision)
    _state.update(dealt=dealt, file=file, detector=load_detector("insightface", pack, root), embedder=embedder)


def run_ours(task: Task) -> Answer:
    from flows.steps.embeddings import EMBED_DAYS, EmbeddingRows
    from flows.steps.examine import examine_many

    started = time.process_time()
    boxes, vectors = {}, EmbeddingRows(_state["embedder"], EMBED_DAYS)
    for number, data in _pictures(*task):
        (found,) = examine_many([(str(number), data)], _state["detector"])
        rows = [[row["x0_px"], row["y0_px"], row["x1_px"], row["y1_px"]] for row in found.faces]
        boxes[number] = np.array(rows, dtype=np.float32).reshape(-1, 4)
        vectors.add(str(number), found.crops)
    return _answer(boxes, len(vectors.finish()), started)


def start_theirs(dealt: Any, file: str, models: str, pack: str) -> None:
    warnings.simplefilter("ignore")  # a deprecation, once per face
    sys.stdout = sys.stderr  # the last line of our output is ours
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name=pack, root=models)
    app.prepare(ctx_id=0, det_size=(640, 640))
    _state.update(dealt=dealt, file=file, app=app)


def run_theirs(task: Task) -> Answer:
    import cv2

    started = time.process_time()
    boxes, vectors = {}, 0
    for number, data in _pictures(*task):
        bgr = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        faces = _state["app"].get(bgr)
        height, width = bgr.shape[:2]
        rows = np.array([face.bbox for face in faces], dtype=np.float32).reshape(-1, 4)
        boxes[number] = np.clip(rows, 0, np.array([width, height] * 2, dtype=np.float32))
        vectors += sum(face.embedding is not None for face in faces)
    return _answer(boxes, vectors, started)


def _pictures(places: list[Place], deal: bool) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each picture that falls to this worker."""
    with Path(_state["file"]).open("rb") as file:
        for number in _dealt(len(places)) if deal else range(len(places)):
            offset, length = places[number]
            file.seek(offset)
            yield number, file.read(length)


def _dealt(count: int) -> Iterator[int]:
    """The next number that no worker has had, while there are any below `count`."""
    while True:
        with _state["dealt"].get_lock():
            number = _state["dealt"].value
            _state["dealt"].value += 1
        if number >= count:
            return
        yield number


def _answer(boxes: dict[int, NDArray[np.float32]], vectors: int, started: float) -> Answer:
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return Answer(boxes, vectors, time.process_time() - started, kib * 1024, os.getpid())


class Side:
    """One of the two: its processes, its clock and what it found."""

    def __init__(self, start: Callable[..., None], run: Callable[..., Answer], workers: int, *options: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._run = run
        self._dealt = context.Value("q", 0)
        self._pool = ProcessPoolExecutor(workers, context, start, (self._dealt, *options))
        self.workers, self.seconds, self.cpu_s, self.vectors = workers, 0.0, 0.0, 0
        self.boxes: list[NDArray[np.float32]] = []
        self.peaks: dict[int, int] = {}

    def warm_up(self, places: list[Place]) -> None:
        """Every process has loaded its models and seen all the pictures once."""
        while len(self.peaks) < self.workers:
            for answer in self._pool.map(self._run, [(places, False)] * self.workers):
                self.peaks[answer.pid] = answer.peak_bytes

    def work(self, places: list[Place]) -> None:
        self._dealt.value = 0
        started = time.perf_counter()
        answers = list(self._pool.map(self._run, [(places, True)] * self.workers))
        self.seconds += time.perf_counter() - started
        found = {number: boxes for answer in answers for number, boxes in answer.boxes.items()}
        self.boxes += [found[number] for number in range(len(places))]
        for answer in answers:
            self.cpu_s += answer.cpu_s
            self.vectors += answer.vectors
            self.peaks[answer.pid] = max(self.peaks[answer.pid], answer.peak_bytes)

    def close(self) -> None:
        self._pool.shutdown()


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None).astype(np.float64), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64) for boxes in (a, b)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9))


def compare(samples: list[Sample], ours: Side, theirs: Side) -> dict[str, Any]:
    """Per kind: their faces, those that we miss, ours beyond theirs; on pages the true and false ones among these."""
    kinds = {kind: {"faces": 0, "missed": 0, "extra": 0} for kind in ("lfw", "congress", "page")}
    kinds["page"] |= {"extra_true": 0, "extra_false": 0, "heads": 0}
    for sample, mine, wanted in zip(samples, ours.boxes, theirs.boxes, strict=True):
        same = overlaps(wanted, mine) > 0.5
        count = kinds[sample.kind]
        count["faces"] += len(wanted)
        count["missed"] += int((~same.any(axis=1)).sum())
        extra = mine[~same.any(axis=0)]
        count["extra"] += len(extra)
        if sample.heads is not None:
            true = sum(_on_a_head(box, sample.heads) for box in extra)
            count["extra_true"] += true
            count["extra_false"] += len(extra) - true
            count["heads"] += len(sample.heads)
    return kinds


def _on_a_head(box: NDArray[np.float32], heads: NDArray[np.float64]) -> bool:
    """Whether the middle of the box lies on a head, and the box is not another size altogether."""
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    inside = (heads[:, 0] <= x) & (x <= heads[:, 2]) & (heads[:, 1] <= y) & (y <= heads[:, 3])
    ratio = float(box[2] - box[0]) / (heads[:, 2] - heads[:, 0])
    return bool((inside & (ratio > 0.4) & (ratio < 2)).any())


def best_precision() -> str:
    """bfloat16 where embeddings can be computed like that here."""
    from gptface_core.errors import InputError
    from gptface_core.faces.embed import BFLOAT16, FLOAT32, check_precision

    try:
        check_precision(BFLOAT16)
    except InputError as error:
        print(error, flush=True)
        return FLOAT32
    return BFLOAT16


def measure(samples: list[Sample], rounds: int, models: Path, pack: str, precision: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.bin"
        file.write_bytes(b"".join(sample.data for sample in samples))
        ends = np.cumsum([len(sample.data) for sample in samples]).tolist()
        places = [(end - len(sample.data), len(sample.data)) for end, sample in zip(ends, samples, strict=True)]
        options = (str(file), str(models), pack)
        ours = Side(start_ours, run_ours, _WORKERS, *options, precision)
        theirs = Side(start_theirs, run_theirs, 1, *options)
        for side in (ours, theirs):
            side.warm_up(places[:_WARM_UP])
        bounds = np.linspace(0, len(places), rounds + 1).astype(int)
        block_ratios = []
        for number, (start, end) in enumerate(itertools.pairwise(bounds)):
            before = theirs.seconds, ours.seconds
            for side in (ours, theirs) if number % 2 else (theirs, ours):
                side.work(places[start:end])
            block_ratios.append(round((theirs.seconds - before[0]) / (ours.seconds - before[1]), 2))
            rates = [len(s.boxes) / s.seconds for s in (ours, theirs)]
            print(f"block {number + 1} of {rounds}: ours {rates[0]:.1f}, theirs {rates[1]:.1f} images/s", flush=True)
        for side in (ours, theirs):
            side.close()
    return result(samples, ours, theirs) | {"block_ratios": block_ratios, "embed_precision": precision}


def result(samples: list[Sample], ours: Side, theirs: Side) -> dict[str, Any]:
    kinds = compare(samples, ours, theirs)
    faces, missed = (sum(kind[key] for kind in kinds.values()) for key in ("faces", "missed"))
    ratio, recall = theirs.seconds / ours.seconds, 1 - missed / max(faces, 1)
    return {
        "ratio": round(ratio, 2),
        "recall": round(recall, 5),
        "peak_gib": round(sum(ours.peaks.values()) / _GIB, 3),
        "theirs_peak_gib": round(sum(theirs.peaks.values()) / _GIB, 3),
        "images": len(samples),
        "images_per_s": round(len(samples) / ours.seconds, 1),
        "theirs_images_per_s": round(len(samples) / theirs.seconds, 1),
        "cpu_ms_per_image": round(1e3 * ours.cpu_s / len(samples), 2),
        "theirs_cpu_ms_per_image": round(1e3 * theirs.cpu_s / len(samples), 2),
        "cpu_ratio": round(theirs.cpu_s / ours.cpu_s, 2),
        "embeddings": ours.vectors,
        "theirs_embeddings": theirs.vectors,
        "missed": missed,
        "kinds": kinds,
        "load_average": round(os.getloadavg()[0], 1),
        "ok": ratio >= TARGET_RATIO and recall >= TARGET_RECALL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="blocks, which alternate between the two")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--pack", default="test_sc", help="a pack with a recogniser")
    parser.add_argument("--embed-precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of ours")
    options = parser.parse_args()
    precision = best_precision() if options.embed_precision == "auto" else options.embed_precision
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    data = data_folder("GPTFACE_TEST_DATA", "data")
    models = data_folder("GPTFACE_TEST_MODELS", "models") / "insightface"
    print(
        f"{options.images} pictures: 60 % LFW, 20 % congress, 20 % pages; on {os.cpu_count()} cores, {precision}",
        flush=True,
    )
    found = measure(mixed(options.images, data, options.seed), options.rounds, models, options.pack, precision)
    print(f"ratio {found['ratio']} (target {TARGET_RATIO}), recall {found['recall']} (target {TARGET_RECALL})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
