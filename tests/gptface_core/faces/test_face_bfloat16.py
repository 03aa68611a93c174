"""Embeddings in bfloat16: nearly those of float32, marked as others, had where they can be had, and nobody is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces import load_detector
from gptface_core.faces.embed import BFLOAT16, FLOAT32, Embedder, check_precision, describe_embedder, weights_of
from tests.gptface_core.faces.test_face_lfw import FOLDS, aligned, fold_accuracies, read_pairs

PACK = "test_sc"


@pytest.fixture(scope="module")
def bfloat16() -> str:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    try:
        check_precision(BFLOAT16)
    except InputError as error:
        pytest.skip(str(error))
    return BFLOAT16


@pytest.fixture(scope="module")
def portraits(test_data: Path, test_models: Path) -> NDArray[np.uint8]:
    """Two pictures each of twelve people."""
    people, names = read_pairs(test_data / "lfw/pairs.txt"), list[str]()
    for first, second, same in people[::25]:
        names += [first, second] * same
    detector = load_detector("insightface", PACK, test_models / "insightface")
    with zipfile.ZipFile(test_data / "lfw/lfw-deepfunneled.zip") as archive:
        crops, missing = aligned(archive, names[:24], detector)
    assert not missing and len(crops) == 24
    return crops


@pytest.mark.realdata
def test_vectors_turn_little_and_tell_the_same_people(
    bfloat16: str, portraits: NDArray[np.uint8], test_models: Path
) -> None:
    root = test_models / "insightface"
    embedder = Embedder(PACK, root, precision=bfloat16)
    found, wanted = embedder.embed(portraits), Embedder(PACK, root).embed(portraits)
    assert found.shape == wanted.shape and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = (found * wanted).sum(axis=1)
    assert cosines.min() > 0.98 and 0.997 < cosines.mean() < 0.999999  # not float32 by another name
    assert np.abs(found @ found.T - wanted @ wanted.T).max() < 0.06


@pytest.mark.realdata
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be bound here")
def test_no_worker_is_bound_to_a_core_while_it_embeds(bfloat16: str, test_models: Path) -> None:
    # Every worker would be bound to the same first core, and wait there for the others.
    embedder = Embedder(PACK, test_models / "insightface", precision=bfloat16)
    thread, done, seen = threading.get_native_id(), threading.Event(), list[set[int]]()
    free = os.sched_getaffinity(thread)
    if len(free) < 2:
        pytest.skip("one core alone")

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(os.sched_getaffinity(thread))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            embedder.embed(np.zeros((8, 112, 112, 3), dtype=np.uint8))
    finally:
        done.set()
        watcher.join()
    assert len(seen) > 20 and all(cores == free for cores in seen)


@pytest.mark.realdata
def test_a_vector_does_not_depend_on_its_company(
    bfloat16: str, portraits: NDArray[np.uint8], test_models: Path
) -> None:
    embedder = Embedder(PACK, test_models / "insightface", precision=bfloat16)
    some = portraits[: embedder.batch + 3]
    together = embedder.embed(some)
    assert len(together) == len(some)
    np.testing.assert_array_equal(together, np.concatenate([embedder.embed(crop[None]) for crop in some]))
    np.testing.assert_array_equal(together[::-1], embedder.embed(some[::-1]))
    assert embedder.embed(some[:0]).shape[0] == 0


@pytest.mark.realdata
def test_the_description_tells_what_computes(bfloat16: str, test_models: Path) -> None:
    root = test_models / "insightface"
    plain, described = describe_embedder(PACK, root), describe_embedder(PACK, root, bfloat16)
    assert described == f"{plain}:openvino-bfloat16" == Embedder(PACK, root, precision=bfloat16).describe()
    assert weights_of(described) == weights_of(plain) == plain == Embedder(PACK, root).describe()


def test_what_cannot_be_had_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_precision(FLOAT32)
    with pytest.raises(InputError, match=r"^no precision 'int8': choose float32 or bfloat16$"):
        check_precision("int8")
    with pytest.raises(InputError, match="is for CPUExecutionProvider, not for CUDAExecutionProvider: choose float32"):
        check_precision(BFLOAT16, "CUDAExecutionProvider")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        InputError, match=r"^precision bfloat16 needs the package openvino \(.*\): install it, or choose float32$"
    ):
        check_precision(BFLOAT16)


def test_openvino_tells_nobody_that_it_runs(bfloat16: str, tmp_path: Path) -> None:
    """Its telemetry, where installed, sends an event at import and leaves a folder `intel` in the home folder."""
    code = (
        "import sys\n"
        "from gptface_core.faces.embed import check_precision\n"
        "check_precision('bfloat16')\n"
        "sys.exit(any(name.startswith('openvino_telemetry') for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"HOME": str(tmp_path)}, check=False)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.realdata
@pytest.mark.slow
def test_lfw_verification_loses_nothing(bfloat16: str, test_data: Path, test_models: Path) -> None:
    root = test_models / "insightface"
    pairs = read_pairs(test_data / "lfw" / "pairs.txt")
    names = sorted({name for first, second, _ in pairs for name in (first, second)})
    with zipfile.ZipFile(test_data / "lfw" / "lfw-deepfunneled.zip") as archive:
        crops, _ = aligned(archive, names, load_detector("insightface", PACK, root))
    vectors = dict(zip(names, Embedder(PACK, root, precision=bfloat16).embed(crops), strict=True))
    similarities = np.array([float(vectors[first] @ vectors[second]) for first, second, _ in pairs])
    accuracies = fold_accuracies(similarities, np.array([same for _, _, same in pairs]))
    assert len(accuracies) == FOLDS and np.mean(accuracies) >= 0.99
