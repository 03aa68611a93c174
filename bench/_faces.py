"""Pictures for `bench.detect`: portraits (LFW, US Congress) and large pages of drawn faces whose places are known."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sample_web.backgrounds import paint_background, paint_no_face
from sample_web.draw import HEAD_ASPECT
from sample_web.draws import seed_of
from sample_web.look import sample_look
from sample_web.render import Attributes, render_face, sample_attributes

SEED = 20
LFW_SHARE, CONGRESS_SHARE = 0.6, 0.2  # the rest are pages
_MIN_PAGE_PX, _MAX_PAGE_PX = 1500, 3000  # the longer side
_GRIDS = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3))  # columns and rows of portraits on a page
_JPEG_QUALITY = (82, 95)  # as the sample web serves its pictures


@dataclass(frozen=True, eq=False)
class Sample:
    """The bytes of one picture; `heads` is float64 (N, 4), x0 y0 x1 y1 of every head, where all of them are known."""

    kind: str  # lfw, congress or page
    data: bytes
    heads: NDArray[np.float64] | None = None


def data_folder(variable: str, name: str) -> Path:
    """A folder of test data; leaves with one clear line where there is none."""
    path = Path(os.environ.get(variable) or Path(__file__).resolve().parents[2] / "shared" / name)
    if not path.is_dir():
        raise SystemExit(f"needs real data: set {variable} to the folder that holds it ({path.name} is not there)")
    return path


def mixed(count: int, data: Path, seed: int = SEED) -> list[Sample]:
    """`count` pictures, 60 % LFW, 20 % congress and 20 % pages, shuffled; the same for the same seed."""
    rng = np.random.default_rng(seed)
    lfw, congress = round(LFW_SHARE * count), round(CONGRESS_SHARE * count)
    samples = lfw_samples(data, lfw, rng) + congress_samples(data, congress, rng)
    samples += [page(index, seed) for index in range(count - lfw - congress)]
    return [samples[i] for i in rng.permutation(len(samples))]


def lfw_samples(data: Path, count: int, rng: np.random.Generator) -> list[Sample]:
    with zipfile.ZipFile(data / "lfw" / "lfw-deepfunneled.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        return [Sample("lfw", archive.read(names[i])) for i in rng.choice(len(names), count, replace=False)]


def congress_samples(data: Path, count: int, rng: np.random.Generator) -> list[Sample]:
    paths = sorted((data / "congress" / "images").glob("*.jpg"))
    chosen = rng.choice(len(paths), count, replace=count > len(paths))
    return [Sample("congress", paths[i].read_bytes()) for i in chosen]


def page(index: int, seed: int = SEED) -> Sample:
    """A picture of 1,500 to 3,000 px with 1 to 9 places for drawn portraits of many sizes, before a wall or a scene."""
    rng = np.random.default_rng([seed, index, 0xBA6E])
    longer = int(rng.integers(_MIN_PAGE_PX, _MAX_PAGE_PX + 1))
    shorter = int(longer * rng.uniform(0.6, 1.0))
    height, width = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    paint = paint_background if rng.random() < 0.5 else paint_no_face
    canvas = paint(rng, height, width)
    columns, rows = _GRIDS[int(rng.integers(len(_GRIDS)))]
    cell_w, cell_h = width // columns, height // rows
    heads = []
    for cell in range(columns * rows):
        if cell and rng.random() < 0.3:  # an empty place; never all of them
            continue
        side = int(min(cell_w, cell_h, 2048) * rng.uniform(0.35, 1.0))
        x = cell % columns * cell_w + int(rng.integers(cell_w - side + 1))
        y = cell // columns * cell_h + int(rng.integers(cell_h - side + 1))
        face_seed = seed_of("page", seed, index, cell)
        attributes = sample_attributes(face_seed % 2**31, seed)
        canvas[y : y + side, x : x + side] = render_face(attributes, face_seed, side)
        heads.append(_head(attributes, face_seed, side) + np.array((x, y, x, y)))
    bgr = cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR)
    quality = int(rng.integers(*_JPEG_QUALITY))
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return Sample("page", data, np.array(heads))


def _head(attributes: Attributes, face_seed: int, side: int) -> NDArray[np.float64]:
    """Where `render_face` draws the head: it takes the look from the same generator first."""
    rng = np.random.default_rng([face_seed & 0xFFFFFFFF, face_seed >> 32 & 0xFFFFFFFF, 0xFACE])
    look = sample_look(rng, attributes.hair_colour, attributes.skin_tone)
    x, y, half_w, half_h = look.x, look.y, look.scale, look.scale * HEAD_ASPECT
    return np.array([x - half_w, y - half_h, x + half_w, y + half_h]) * side
