"""Which part of a face an edit may change: by name, by the words of the prompt, or by a mask; pixels and tokens.

A named region hangs on the face's own eyes and mouth as they lie in the aligned crop, so it is on the mouth of a long
face too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gptface_core.errors import InputError

Region = npt.NDArray[np.bool_]
Points = npt.NDArray[np.floating]
AUTO = "auto"

# Left eye, right eye, nose, mouth corners of a face in the middle of the FFHQ-like crop, as shares of its side.
CANONICAL = np.array([[0.38, 0.47], [0.62, 0.47], [0.5, 0.62], [0.41, 0.75], [0.59, 0.75]])
_EDGE = 9.0  # beyond the crop, whatever the face


@dataclass(frozen=True)
class _Box:
    """From `top` to `bottom`, each "eyes" or "mouth" and an offset down from its middle, `half_width` to either side.

    In shares of the crop's side, which measures 4 distances of the eyes.
    """

    top: tuple[str, float]
    bottom: tuple[str, float]
    half_width: float = _EDGE


REGIONS = {
    "mouth": _Box(("mouth", -0.13), ("mouth", 0.13), 0.25),
    "eyes": _Box(("eyes", -0.11), ("eyes", 0.15), 0.38),
    "hair": _Box(("eyes", -_EDGE), ("eyes", -0.1)),
    "beard": _Box(("mouth", -0.15), ("mouth", _EDGE), 0.38),
    "lower-face": _Box(("eyes", 0.03), ("mouth", _EDGE), 0.38),
    "all": _Box(("eyes", -_EDGE), ("mouth", _EDGE)),
}

# Words that tell the region (`auto`), with "*" any word that begins so; docs/model.md shows this table.
AUTO_WORDS = {
    "mouth": "smil* laugh* grin* frown* serious sad happy mouth lip lips lipstick teeth tooth* tongue",
    "eyes": "glasses eyeglass* sunglass* spectacles goggles eye eyes eyebrow* brow brows wink* squint*",
    "hair": "hair* bald blond* brunette bangs fringe curl* hat cap forehead",
    "beard": "beard* moustache mustache goatee stubble shave* shaving chin jaw",
    "lower-face": "mask scarf nose cheek cheeks",
    "all": "young* old* aged age woman man girl boy male female skin pale tanned",
}


def auto_region(prompt: str) -> str:
    """The regions that the prompt's words tell, joined by '+'; "all" only where no word is about a part of the face.

    Raises InputError where no word tells anything.
    """
    words = re.findall("[a-z]+", prompt.lower())
    found = [name for name, patterns in AUTO_WORDS.items() if any(_says(word, patterns) for word in words)]
    parts = [name for name in found if name != "all"]
    if not found:
        raise InputError(f"no word of '{prompt}' tells which part of the face to change: add --region, {_known()}")
    return "+".join(parts or found)


def _says(word: str, patterns: str) -> bool:
    return any(word == p or (p.endswith("*") and word.startswith(p[:-1])) for p in patterns.split())


def region_mask(region: str | Region, size_px: int, points: Points | None = None) -> Region:
    """Boolean (size_px, size_px): named regions of the aligned crop, joined by '+', or a mask of that size as it is.

    `points` (5, 2): the face's points in pixels of the crop; without them those of a face in its middle.
    """
    if not isinstance(region, str):
        if region.shape != (size_px, size_px) or not region.any():
            raise InputError(
                f"region of shape {region.shape}: a mask of ({size_px}, {size_px}) with some pixel set is needed"
            )
        return region.astype(bool)
    mask = np.zeros((size_px, size_px), bool)
    for name in region.split("+"):
        if name not in REGIONS:
            raise InputError(f"no region '{name}': {_known()}")
        mask |= _box_mask(REGIONS[name], size_px, CANONICAL if points is None else np.asarray(points) / size_px)
    if not mask.any():
        raise InputError(f"region '{region}' lies outside of this face's crop: choose another region")
    return mask


def _box_mask(box: _Box, size_px: int, points: Points) -> Region:
    """Pixels whose centre the box holds; `points` as shares of the side."""
    middle = {"eyes": (points[0] + points[1]) / 2, "mouth": (points[3] + points[4]) / 2}
    at = (np.arange(size_px) + 0.5) / size_px
    (above, down_from), (below, down_to) = box.top, box.bottom
    rows = (at >= middle[above][1] + down_from) & (at < middle[below][1] + down_to)
    centre = float(middle[above][0] + middle[below][0]) / 2
    return np.asarray(rows[:, None] & (abs(at - centre) <= box.half_width)[None, :])


def token_slots(mask: Region, grid: int) -> Region:
    """(G, G) True where a token's patch has any pixel of the region: what is edited is never half known."""
    rows, columns = np.nonzero(mask)
    slots = np.zeros((grid, grid), bool)
    slots[rows * grid // mask.shape[0], columns * grid // mask.shape[1]] = True
    return slots


def _known() -> str:
    return f"choose {', '.join(REGIONS)}, or several as in mouth+eyes"


def resize_mask(mask: Region, size_px: int) -> Region:
    """A square mask (token slots too) at another size, by the nearest pixel."""
    at = np.arange(size_px) * mask.shape[0] // size_px
    return mask[at[:, None], at[None, :]]
