"""What is told about one picture: decoded once if that is enough, its faces found, measured and, if wanted, cut out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptface_core.faces.align import arcface_crop, padded_share
from gptface_core.faces.decode import MAX_PIXELS, REDUCTIONS, Picture, Undecodable, decode_upright
from gptface_core.faces.detector import Detector, Face, detect_many, make_faces
from gptface_core.faces.facehash import MIN_FACE_PX, face_fingerprint
from gptface_core.faces.flatness import flatness
from gptface_core.faces.occlusion import occlusion_hint
from gptface_core.faces.phash import perceptual_hash
from gptface_core.faces.quality import MEASURE_PX, measure_face
from warehouse.schema import PICTURES, Reason

_LOG = logging.getLogger(__name__)

Row = dict[str, Any]
# A JPEG is first decoded no larger than leaves this longer side: 2.5 times the largest look of the detector. Less would
# save little, and often need a second, larger decode for a face.
ENOUGH_PX = 1600
_HINT_FROM_PX = 32  # smaller faces show too little to say what covers them


@dataclass(frozen=True, eq=False)
class Examined:
    """One row of PICTURES, the rows of FACES, and the crops for embedding, uint8 (faces, 112, 112, 3) RGB."""

    picture: Row
    faces: list[Row]
    crops: NDArray[np.uint8]


def examine(image_id: str, data: bytes, detector: Detector, max_pixels: int = MAX_PIXELS) -> tuple[Row, list[Row]]:
    """One row of PICTURES and the rows of FACES for the bytes of one picture; never raises."""
    (found,) = examine_many([(image_id, data)], detector, max_pixels)
    return found.picture, found.faces


def examine_many(
    items: Sequence[tuple[str, bytes]], detector: Detector, max_pixels: int = MAX_PIXELS
) -> list[Examined]:
    """Image ids and bytes of some pictures, whose faces are found together; never raises."""
    decoded = [decode_upright(data, max_pixels, enough_px=ENOUGH_PX) for _, data in items]
    pictures = [picture for picture in decoded if isinstance(picture, Picture)]
    found = iter(_detect(detector, pictures))
    results = []
    for (image_id, data), picture in zip(items, decoded, strict=True):
        row: Row = dict.fromkeys(PICTURES.names)
        row |= {"image_id": image_id, "detector": detector.describe()}
        if isinstance(picture, Undecodable):
            _LOG.debug("picture %s: %s (%s)", image_id, picture.reason, picture.detail)
            results.append(_without_faces(row, Reason(picture.reason)))
        else:
            results.append(_examined(row, data, picture, next(found), max_pixels))
    return results


def crops_again(data: bytes, faces: Sequence[Row], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The crops for embedding of faces that were found before (rows of FACES), as `Examined` had them.

    Raises ValueError where the picture does not decode.
    """
    picture = decode_upright(data, max_pixels, enough_px=ENOUGH_PX)
    if isinstance(picture, Undecodable):
        raise ValueError(f"does not decode ({picture.reason})")
    found = [
        Face(
            np.array([row[name] for name in ("x0_px", "y0_px", "x1_px", "y1_px")], dtype=np.float32),
            np.array(row["points_px"], dtype=np.float32).reshape(5, 2),
            row["score"],
        )
        for row in faces
    ]
    sharp = _sharp_enough(data, picture, found, max_pixels)
    return _stacked([arcface_crop(sharp.rgb, sharp.from_full(face.points)) for face in found])


def _detect(detector: Detector, pictures: list[Picture]) -> list[list[Face] | None]:
    """Faces of each picture, in pixels of its `rgb`; None where the detector failed."""
    try:
        return list(detect_many(detector, [picture.rgb for picture in pictures]))
    except Exception:  # noqa: BLE001 row boundary: one odd picture must not cost the part
        if len(pictures) > 1:  # find out which one it is
            return [_detect(detector, [picture])[0] for picture in pictures]
        _LOG.exception("the detector failed")
        return [None]


def _examined(row: Row, data: bytes, picture: Picture, faces: list[Face] | None, max_pixels: int) -> Examined:
    if faces is None:
        return _without_faces(row, Reason.INTERNAL_ERROR)
    try:
        phash = perceptual_hash(picture.rgb)
        whole = _whole(picture, faces)
        sharp = _sharp_enough(data, picture, whole, max_pixels)
        crops = [arcface_crop(sharp.rgb, sharp.from_full(face.points)) for face in whole]
        rows = [
            _face_row(row["image_id"], index, sharp, face, crop)
            for index, (face, crop) in enumerate(zip(whole, crops, strict=True))
        ]
    except Exception:  # noqa: BLE001 row boundary, as above
        _LOG.exception("picture %s: internal error", row["image_id"])
        return _without_faces(row, Reason.INTERNAL_ERROR)
    row |= {"width_px": picture.width_px, "height_px": picture.height_px, "format": picture.format}
    return Examined(row | {"phash": phash, "face_count": len(rows)}, rows, _stacked(crops))


def _without_faces(row: Row, reason: Reason) -> Examined:
    return Examined(row | {"reason": reason.value}, [], _stacked([]))


def _stacked(crops: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack(crops) if crops else np.zeros((0, 112, 112, 3), dtype=np.uint8)


def _whole(picture: Picture, faces: list[Face]) -> list[Face]:
    """The faces in pixels of the whole picture."""
    if picture.reduction == 1 or not faces:
        return faces
    boxes = picture.to_full(np.stack([face.box for face in faces]).reshape(-1, 2, 2)).reshape(-1, 4)
    points = picture.to_full(np.stack([face.points for face in faces]))
    return make_faces(boxes, points, [face.score for face in faces], (picture.height_px, picture.width_px))


def _sharp_enough(data: bytes, picture: Picture, faces: list[Face], max_pixels: int) -> Picture:
    """The picture decoded again, larger, where a face in it is too small to be measured and cut out well."""
    smallest = min((face.face_px for face in faces), default=0.0)
    reduction = next((k for k in REDUCTIONS if smallest >= k * MEASURE_PX), 1)
    if not faces or reduction >= picture.reduction:
        return picture
    again = decode_upright(data, max_pixels, reduction=reduction)
    if isinstance(again, Undecodable):
        raise ValueError(f"decodes {picture.reduction} times smaller, but not {reduction} times ({again.detail})")
    return again


def _face_row(image_id: str, index: int, picture: Picture, face: Face, crop: NDArray[np.uint8]) -> Row:
    seen = Face(picture.from_full(face.box.reshape(2, 2)).reshape(-1), picture.from_full(face.points), face.score)
    quality = measure_face(picture.rgb, seen)
    x0, y0, x1, y1 = (float(v) for v in face.box)
    large = index == 0 and face.face_px >= MIN_FACE_PX
    phash, thumb = face_fingerprint(picture.rgb, seen.points) if large else (None, None)
    return {
        "image_id": image_id,
        "face_index": index,
        "x0_px": x0,
        "y0_px": y0,
        "x1_px": x1,
        "y1_px": y1,
        "points_px": [float(v) for v in face.points.reshape(-1)],
        "score": face.score,
        "face_px": face.face_px,
        "roll_deg": quality.pose.roll_deg,
        "yaw_deg": quality.pose.yaw_deg,
        "pitch_deg": quality.pose.pitch_deg,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "occlusion": occlusion_hint(crop) if face.face_px >= _HINT_FROM_PX else None,
        "padded_share": padded_share(face.points, picture.width_px, picture.height_px),
        "face_phash": phash,
        "face_thumb": thumb,
        "flatness": flatness(crop),
    }
