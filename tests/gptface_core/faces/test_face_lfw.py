"""Labeled Faces in the Wild: the pairs of the official protocol, through our detector, alignment and batches."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gptface_core.faces import load_detector
from gptface_core.faces.align import arcface_crop
from gptface_core.faces.decode import Picture, decode_upright
from gptface_core.faces.detector import Detector, Face
from gptface_core.faces.embed import Embedder

_LOG = logging.getLogger(__name__)

FOLDS, PAIRS_PER_KIND = 10, 300


def read_pairs(path: Path) -> list[tuple[str, str, bool]]:
    """File names and whether both show one person; 10 folds of 300 matched, then 300 mismatched pairs."""
    pairs = []
    for line in path.read_text().splitlines()[1:]:
        fields = line.split("\t")
        first, second = (fields[0], fields[0]) if len(fields) == 3 else (fields[0], fields[2])
        numbers = int(fields[1]), int(fields[-1])
        names = [f"{name}_{number:04d}.jpg" for name, number in zip((first, second), numbers, strict=True)]
        pairs.append((names[0], names[1], len(fields) == 3))
    return pairs


def central(faces: list[Face], picture: Picture) -> Face:
    """The face that the picture is named after: LFW puts it in the middle."""
    middle = np.array([picture.width_px, picture.height_px]) / 2
    return min(faces, key=lambda face: float(np.hypot(*((face.box[:2] + face.box[2:]) / 2 - middle))))


def aligned(archive: zipfile.ZipFile, names: list[str], detector: Detector) -> tuple[NDArray[np.uint8], int]:
    """A crop per file, uint8 (N, 112, 112, 3), and in how many no face was found (their crop is the middle)."""
    members = {name.rsplit("/", 1)[-1]: name for name in archive.namelist()}
    crops, missing = [], 0
    for name in names:
        picture = decode_upright(archive.read(members[name]))
        assert isinstance(picture, Picture)
        faces = detector.detect(picture.rgb)
        missing += not faces
        crops.append(
            arcface_crop(picture.rgb, central(faces, picture).points) if faces else picture.rgb[69:181, 69:181].copy()
        )
    return np.stack(crops), missing


def fold_accuracies(similarities: NDArray[np.float64], same: NDArray[np.bool_]) -> list[float]:
    """Accuracy on each fold with the threshold that is best on the nine others (Huang et al. 2007)."""
    thresholds = np.arange(-1, 1, 0.005)
    right = (similarities[:, None] > thresholds[None]) == same[:, None]
    folds = np.repeat(np.arange(FOLDS), 2 * PAIRS_PER_KIND)
    accuracies = []
    for fold in range(FOLDS):
        best = right[folds != fold].mean(axis=0).argmax()
        accuracies.append(float(right[folds == fold, best].mean()))
    return accuracies


def test_the_fold_protocol_never_sees_the_fold_it_judges() -> None:
    same = np.tile(np.repeat([True, False], PAIRS_PER_KIND), FOLDS)
    similarities = np.where(same, 0.5, 0.1)
    similarities[: 2 * PAIRS_PER_KIND] += 1  # in the first fold another threshold would be right
    assert fold_accuracies(similarities, same) == [0.5, *[1.0] * 9]


@pytest.mark.realdata
@pytest.mark.slow
def test_lfw_verification_through_our_alignment_and_batches(test_data: Path, test_models: Path) -> None:
    root = test_models / "insightface"
    pairs = read_pairs(test_data / "lfw" / "pairs.txt")
    assert len(pairs) == 2 * FOLDS * PAIRS_PER_KIND
    names = sorted({name for first, second, _ in pairs for name in (first, second)})
    detector, embedder = load_detector("insightface", "test_sc", root), Embedder("test_sc", root)
    with zipfile.ZipFile(test_data / "lfw" / "lfw-deepfunneled.zip") as archive:
        crops, missing = aligned(archive, names, detector)
    vectors = dict(zip(names, embedder.embed(crops), strict=True))
    similarities = np.array([float(vectors[first] @ vectors[second]) for first, second, _ in pairs])
    accuracies = fold_accuracies(similarities, np.array([same for _, _, same in pairs]))
    _LOG.info("LFW: %.4f +- %.4f, no face in %d", np.mean(accuracies), np.std(accuracies), missing)
    assert missing <= 0.001 * len(names)
    assert np.mean(accuracies) >= 0.99
