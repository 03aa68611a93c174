"""Where and how large to look for faces: a cheap first look at the whole picture, dearer ones only where they pay.

1. The whole picture, in an input that grows with its size (224 to 320 px for most of the web).
2. Small faces in a large picture: where the first look sees one or none at all, the whole picture again at 640 px.
3. Doubtful finds: each is looked at again by itself, enlarged; it is a face where any view of it says so.
4. Close-ups: where nothing was found, or a face fills the picture, the picture again, small and framed in black.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gptface_core.errors import InputError
from gptface_core.faces.detector import DEFAULT_MIN_SCORE, Face, make_faces
from gptface_core.faces.network import CPU, STRIDE_PX, Finds, ScrfdNetwork, joined, no_finds, overlaps

if TYPE_CHECKING:
    from gptface_core.faces.packs import Pack

# Longer side of the picture up to which the first look has so many pixels. SCRFD's smallest anchor is 16 px, so the
# first look sees faces from about a fifteenth of the longer side.
_FIRST_LOOKS = ((320, 224), (640, 256), (math.inf, 320))
_LARGE_PX = 640
_SEARCH = 3  # version of this strategy: part of the description, another one makes other finds

# A find this small (in the input) in a picture this large says that there may be more which the first look misses.
_SMALL_FIND_PX, _LARGE_FROM_PX, _LIKELY_SHARE = 18, 480, 0.3
# Finds from this share of the wanted score on are worth another look; nearly all faces missed at first lie above. Lower
# where the first look shrinks the picture much.
_DOUBT_SHARE, _DOUBT_SHARE_LARGE = 0.35, 0.15
# Sides of the views of one doubtful find (input and face in it), and the share of the wanted score that the views so
# far must have reached to go on: views of noise stay low, those of faces at the edge of the threshold do not. In a
# large picture, where the first look shrank the face, a low score tells less.
_VIEWS = ((128, 64), (192, 96), (192, 64), (256, 128), (320, 160))
_GO_ON, _GO_ON_LARGE = (0.0, 0.7, 0.7, 0.7, 0.8), (0.0, 0.4, 0.6, 0.7, 0.8)
_GAIN = 1.3  # in large pictures, a view is an enlargement if it shows the face so much larger than the look did
_MAX_DOUBTS = 12  # per picture, best first: a picture of noise must not cost a second
# Close-ups: the picture at half of the input.
_CLOSE_UP_PX, _CLOSE_UP_FILL = 320, 0.5
_FILLS = 0.75  # share of the shorter side from which on a face fills the picture


@dataclass(frozen=True, eq=False)
class View:
    """Part of a picture as the network sees it: uint8 (H, W, 3) RGB; canvas = picture * scale + offset, per axis.

    Finds below `low` decide nothing, so they need not be told.
    """

    canvas: NDArray[np.uint8]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    low: float = 0.0

    def in_picture(self, finds: Finds) -> Finds:
        """Finds of the canvas in pixels of the picture."""
        boxes = (finds.boxes.reshape(-1, 2, 2) - self.offset) / self.scale
        return Finds(boxes.reshape(-1, 4), (finds.points - self.offset) / self.scale, finds.scores)


Search = Generator[list[View], list[Finds], list[Face]]


def describe(pack: Pack, det_size: int | None, min_score: float) -> str:
    """Pack, model, its sha256 and parameters: `insightface:buffalo_sc/det_500m:5e4447f5:size=auto3:score=0.5`."""
    size = f"auto{_SEARCH}" if det_size is None else str(det_size)
    return f"insightface:{pack.name}/{pack.detector.stem}:{pack.sha256[:8]}:size={size}:score={min_score:g}"


class ScrfdDetector:
    """SCRFD of an InsightFace pack. `det_size` fixes the side of the first look and leaves out steps 2 and 3."""

    def __init__(
        self,
        pack: Pack,
        det_size: int | None = None,
        min_score: float = DEFAULT_MIN_SCORE,
        provider: str = CPU,
        batch: int = 1,
    ) -> None:
        if det_size is not None and (det_size < STRIDE_PX or det_size % STRIDE_PX):
            raise InputError(f"det_size {det_size}: choose a multiple of {STRIDE_PX}, e.g. 320 or 640")
        if not 0.0 < min_score < 1.0:
            raise InputError(f"min_score {min_score}: choose a number between 0 and 1, e.g. 0.5")
        self._pack = pack
        self._det_size = det_size
        self._min_score = min_score
        self._network = ScrfdNetwork(pack.detector, provider, batch)

    def describe(self) -> str:
        return describe(self._pack, self._det_size, self._min_score)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces of a uint8 (H, W, 3) RGB picture, the largest first."""
        return self.detect_many([rgb])[0]

    def detect_many(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        """Faces of each picture. Views of one size run together: what a GPU needs, and the same finds."""
        searches = [self._search(rgb) for rgb in pictures]
        found: list[list[Face]] = [[] for _ in pictures]
        wanted = {index: next(search) for index, search in enumerate(searches)}
        while wanted:
            answers = self._look(wanted)
            still: dict[int, list[View]] = {}
            for index, finds in answers.items():
                try:
                    still[index] = searches[index].send(finds)
                except StopIteration as done:
                    found[index] = done.value
            wanted = still
        return found

    def _look(self, wanted: dict[int, list[View]]) -> dict[int, list[Finds]]:
        """The finds of all views that the searches wait for, in pixels of their pictures."""
        by_size: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for index, views in wanted.items():
            for number, view in enumerate(views):
                by_size[view.canvas.shape].append((index, number))
        answers = {index: [no_finds()] * len(views) for index, views in wanted.items()}
        for places in by_size.values():
            views = [wanted[index][number] for index, number in places]
            found = self._network.find([view.canvas for view in views], min(view.low for view in views))
            for (index, number), view, finds in zip(places, views, found, strict=True):
                answers[index][number] = view.in_picture(finds)
        return answers

    def _search(self, rgb: NDArray[np.uint8]) -> Search:
        """The strategy for one picture: asks for views, is sent their finds, returns the faces."""
        first_px = self._det_size or first_look_px(rgb)
        look_px = first_px
        share = _DOUBT_SHARE_LARGE if _is_large(rgb) else _DOUBT_SHARE
        low = self._min_score * (min(share, _LIKELY_SHARE) if self._det_size is None else 1.0)
        (seen,) = yield [whole_view(rgb, look_px, low)]
        if self._det_size is None and self._wants_larger(seen, rgb, first_px):
            look_px = _LARGE_PX
            (seen,) = yield [whole_view(rgb, look_px, low)]
        sure = self._sure(seen)
        if self._det_size is None:
            doubts = _doubtful(seen, sure, share * self._min_score, self._min_score)
            confirmed = yield from self._second_looks(rgb, doubts, look_px)
            sure = joined([sure, confirmed])
        if not len(sure) or _fills(sure, rgb):
            (framed,) = yield [framed_view(rgb, min(first_px, _CLOSE_UP_PX), _CLOSE_UP_FILL, self._min_score)]
            sure = joined([sure, self._sure(framed)])
        return make_faces(sure.boxes, sure.points, sure.scores, rgb.shape)

    def _second_looks(
        self, rgb: NDArray[np.uint8], doubts: Finds, look_px: int
    ) -> Generator[list[View], list[Finds], Finds]:
        """Doubtful finds of a look of `look_px` that a larger view confirms, as that view sees them."""
        confirmed = []
        large = _is_large(rgb)
        seen_px = (doubts.boxes[:, 2:] - doubts.boxes[:, :2]).max(axis=1, initial=0.0) * look_px / max(rgb.shape[:2])
        enlarged_px = _GAIN * seen_px * large
        shares = _GO_ON_LARGE if large else _GO_ON
        low = shares[1] * self._min_score
        promise = np.full(len(doubts), np.inf)  # the best score of its enlarged views, unlimited before the first
        for (side_px, face_px), share in zip(_VIEWS, shares, strict=True):
            now = np.flatnonzero(promise >= share * self._min_score)
            if not len(now):
                break
            boxes = doubts.boxes[now]
            answers = yield [close_view(rgb, box, side_px, face_px, low) for box in boxes]
            for index, box, found in zip(now, boxes, answers, strict=True):
                same = _nearest(found, box)
                confirmed.append(self._sure(same))
                score = float(same.scores[0]) if len(same) else 0.0
                if score >= self._min_score:
                    promise[index] = -1  # done with
                elif face_px >= enlarged_px[index]:  # a view that is no larger than the look tells nothing against
                    promise[index] = score if np.isinf(promise[index]) else max(score, promise[index])
        return joined(confirmed)

    def _wants_larger(self, seen: Finds, rgb: NDArray[np.uint8], first_px: int) -> bool:
        """Whether faces may be too small for the first look: it sees none, or one that is hardly large enough."""
        longer = max(rgb.shape[:2])
        if longer < _LARGE_FROM_PX or first_px >= _LARGE_PX:
            return False
        sides = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1, initial=0.0)
        small = sides * (first_px / longer) < _SMALL_FIND_PX
        return not len(self._sure(seen)) or bool((small & (seen.scores >= _LIKELY_SHARE * self._min_score)).any())

    def _sure(self, finds: Finds) -> Finds:
        return finds.take(finds.scores >= self._min_score)


def _is_large(rgb: NDArray[np.uint8]) -> bool:
    return max(rgb.shape[:2]) > _LARGE_PX


def first_look_px(rgb: NDArray[np.uint8]) -> int:
    """Longer side of the first look in pixels, by the picture's own."""
    longer = max(rgb.shape[:2])
    return next(px for limit, px in _FIRST_LOOKS if longer <= limit)


def _doubtful(seen: Finds, sure: Finds, low: float, min_score: float) -> Finds:
    """Finds from `low` up to the wanted score that do not overlap a sure one, the best of them."""
    doubts = seen.take((seen.scores >= low) & (seen.scores < min_score))
    free = [i for i, box in enumerate(doubts.boxes) if not len(sure) or overlaps(box, sure.boxes).max() < 0.3]
    return doubts.take(np.array(free[:_MAX_DOUBTS], dtype=np.int64))


def _nearest(found: Finds, box: NDArray[np.float32]) -> Finds:
    """The best find that is the one in question: a neighbour in the same view is another one's business."""
    same = found.take(overlaps(box, found.boxes) > 0.3)
    return same.take(np.array([0]) if len(same) else np.array([], dtype=np.int64))


def _fills(sure: Finds, rgb: NDArray[np.uint8]) -> bool:
    sides = (sure.boxes[:, 2:] - sure.boxes[:, :2]).max(axis=1)
    return bool((sides > _FILLS * min(rgb.shape[:2])).any())


def whole_view(rgb: NDArray[np.uint8], side_px: int, low: float = 0.0) -> View:
    """The whole picture with its longer side at `side_px`, black up to the next multiple of 32 px."""
    return _placed(rgb, side_px, None, low)


def framed_view(rgb: NDArray[np.uint8], side_px: int, fill: float, low: float = 0.0) -> View:
    """The whole picture in the middle of a black square, its longer side `fill` times that of the square."""
    return _placed(rgb, round(side_px * fill), side_px, low)


def _placed(rgb: NDArray[np.uint8], longer_px: int, square_px: int | None, low: float) -> View:
    height, width = rgb.shape[:2]
    ratio = longer_px / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    small = _resized(rgb, size)
    canvas_w, canvas_h = (square_px or -(-n // STRIDE_PX) * STRIDE_PX for n in size)
    left, top = (canvas_w - size[0]) // 2, (canvas_h - size[1]) // 2
    canvas = np.zeros((canvas_h, canvas_w, 3), dtype=np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = small
    scale = np.array([size[0] / width, size[1] / height], dtype=np.float32)
    return View(canvas, scale, np.array([left, top], dtype=np.float32), low)


def _resized(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resized to (width, height): linearly to the double, as InsightFace does at 640 px, then by means of 2 x 2 pixels.

    Means alone would alias less, but over a large picture they cost more than the network.
    """
    import cv2

    double = size[0] * 2, size[1] * 2
    if min(rgb.shape[1] / double[0], rgb.shape[0] / double[1]) >= 1:
        rgb = np.asarray(cv2.resize(rgb, double, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def close_view(rgb: NDArray[np.uint8], box: NDArray[np.float32], side_px: int, face_px: int, low: float = 0.0) -> View:
    """A square around a box whose longer side becomes `face_px` in a canvas of `side_px`.

    It is moved into the picture where that is large enough: a black bar beside a face at the edge hides it. What lies
    beyond a smaller picture is black.
    """
    import cv2

    scale = face_px / max(float((box[2:] - box[:2]).max()), 1.0)
    half = side_px / 2 / scale
    size = np.array(rgb.shape[1::-1])
    centre = (box[:2] + box[2:]) / 2
    centre = np.where(size > 2 * half, np.clip(centre, half, size - half), centre)
    x0, y0 = (int(max(0, math.floor(c - half - 2))) for c in centre)
    x1, y1 = (int(min(n, math.ceil(c + half + 2))) for c, n in zip(centre, rgb.shape[1::-1], strict=True))
    part, origin, shrunk = rgb[y0:y1, x0:x1], np.array([x0, y0], dtype=np.float64), scale
    while shrunk <= 0.5 and min(part.shape[:2]) >= 2:
        part = part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2]
        part = np.asarray(cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA))
        shrunk *= 2
    offset = side_px / 2 - scale * centre
    # Pixel i covers [i, i + 1): its centre i + 0.5 goes to shrunk * (i + 0.5) + shift, at index half a pixel less.
    shift = scale * origin + offset + 0.5 * shrunk - 0.5
    matrix = np.array([[shrunk, 0, shift[0]], [0, shrunk, shift[1]]])
    canvas = cv2.warpAffine(part, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR)
    scales = np.array([scale, scale], dtype=np.float32)
    return View(np.asarray(canvas, dtype=np.uint8), scales, offset.astype(np.float32), low)
