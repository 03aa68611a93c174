"""A hint, without another model, that something covers a face: a mask, a hand or a scarf, or dark glasses."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_PART = (slice(36, 80), slice(30, 82))  # of the aligned crop, where a bare face shows skin: rows and columns
# Patches of this part at half size.
_BRIDGE, _FOREHEAD = (slice(8, 13), slice(11, 16)), (slice(0, 4), slice(9, 18))
_LEFT_CHEEK, _RIGHT_CHEEK = (slice(15, 20), slice(0, 6)), (slice(15, 20), slice(20, 26))
_NOSE = (slice(16, 22), slice(10, 17))
_LEFT_EYE, _RIGHT_EYE = (slice(6, 11), slice(0, 8)), (slice(6, 11), slice(18, 26))
_UNDER_LEFT_EYE, _UNDER_RIGHT_EYE = (slice(11, 14), slice(1, 8)), (slice(11, 14), slice(19, 26))
_SKIN = (_BRIDGE, _FOREHEAD, _LEFT_CHEEK, _RIGHT_CHEEK, _NOSE, _UNDER_LEFT_EYE, _UNDER_RIGHT_EYE)
_LAB_UNITS = np.array([100 / 255, 1, 1], dtype=np.float32)  # of what OpenCV gives in eight bits
# From no hint to a full one, set on LFW (Sunglasses against No Eyewear and Eyeglasses) and on drawn face masks.
_COVERED = (10.0, 25.0)  # distance of the cheeks from bridge and forehead in Lab, lightness counting a third
_DARK_BELOW = (8.0, 28.0)  # lightness that the skin below the eyes lacks beside the cheeks: lenses reach there
_DARK_EYES = (0.3, 0.6)  # share of the skin's lightness that the light parts of the eyes lack


def occlusion_hint(aligned: NDArray[np.uint8]) -> float:
    """0 (nothing in sight) to 1, from the crop of `align.arcface_crop`, uint8 (112, 112, 3).

    The larger of two signs: the lower face has another colour than the bridge of the nose and the forehead (a mask, a
    scarf); both eyes and what is below them are far darker than the cheeks (dark glasses). Beards, thick frames and
    hard shadows can look alike, a hand of the same skin does not show: for sorting, not for proof.
    """
    import cv2

    part = aligned[_PART]
    half = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(half, cv2.COLOR_RGB2LAB)
    bridge, forehead, left, right, nose, under_left, under_right = (_colour(lab, place) for place in _SKIN)
    upper, cheeks = (bridge + forehead) / 2, (left + right) / 2
    apart = math.hypot(*(cheeks - upper)[1:].tolist()) + abs(float(cheeks[0] - upper[0])) / 3
    lower = sorted(float(colour[0]) for colour in (nose, left, right))[1]
    below = lower - float(under_left[0] + under_right[0]) / 2
    light = (_light_part(lab, _LEFT_EYE) + _light_part(lab, _RIGHT_EYE)) / 2
    dark = 1 - light / max(lower, float(upper[0]), 1.0)
    return max(_ramp(apart, *_COVERED), min(_ramp(below, *_DARK_BELOW), _ramp(dark, *_DARK_EYES)))


def _colour(lab: NDArray[np.uint8], place: tuple[slice, slice]) -> NDArray[np.float32]:
    """The patch's median colour, float32 (3,): lightness 0..100, a and b plus 128."""
    pixels = np.sort(lab[place].reshape(-1, 3), axis=0)
    return pixels[len(pixels) // 2] * _LAB_UNITS


def _light_part(lab: NDArray[np.uint8], place: tuple[slice, slice]) -> float:
    """Lightness that a fifth of the patch exceeds, 0..100."""
    light = np.sort(lab[place][..., 0], axis=None)
    return float(light[len(light) * 4 // 5] * _LAB_UNITS[0])


def _ramp(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)
