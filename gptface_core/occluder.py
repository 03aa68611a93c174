"""Where something covers a face: what the model finds unlikely there, cut out along its colours.

Two signs meet. Tokens are hidden in windows and the loss of what was there is taken (nats per token, mean over the
windows that hide it): an occluder is not what the rest of a face foretells. Likelihood alone is coarse (one value per
token) and high on every odd detail, so the shape comes from patches of one colour, of which the one is taken that is
the least likely against its surroundings, and lies on the face.

Limits: one occluder of about one colour (a mask, a scarf, a bar, dark glasses); a hand of the face's own tone is found
less often; what the training pictures show often (eyeglasses) is likely to the model and not found. It always answers
with its best guess, and says whether it is `sure`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle
from gptface_core.editing import FEATHER, unsaid_ids
from gptface_core.errors import InputError
from gptface_core.image_tokenizer import batches
from gptface_core.model import MASK_I
from gptface_core.regions import Region
from gptface_core.shards import Pictures, shrink

Map = npt.NDArray[np.float32]
WORK_PX = 96
_COLOURS = (4, 6, 8, 11)  # numbers of clusters: an occluder is one patch in some of them
_AREA = (0.015, 0.45)  # of the crop
_RIM = 0.02  # of the side: an occluder's blurred rim and shadow, to be filled too
SURE = 0.55  # preset demo: 9 of 10 bare drawn faces lie below, 9 of 10 covered ones above (12 and 24 of them)


@dataclass(frozen=True, eq=False)
class Occluder:
    """`region` (H, W) of the crop. `strength`: nats per token by which it is unlikelier than the rest, times shares of
    area and face."""

    region: Region
    strength: float

    @property
    def sure(self) -> bool:
        return self.strength >= SURE

    def to_fill(self) -> Region:
        """The region with room around it, for its rim and for the soft edge of the paste, where it would show again."""
        import cv2

        reach = 2 * round((_RIM + FEATHER) * len(self.region)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        return np.asarray(cv2.dilate(self.region.astype(np.uint8), disc) > 0)


def find_occluder(bundle: Bundle, rgb: Pictures) -> Occluder:
    """The likeliest occluder of an aligned crop (uint8, square, RGB).

    Raises InputError where no patch of the crop can be one.
    """
    import cv2

    loss = cv2.resize(unlikelihood(bundle, rgb), (WORK_PX, WORK_PX), interpolation=cv2.INTER_CUBIC)
    face = _face_oval()
    found = [(_strength(patch, loss, face), patch) for patch in colour_patches(rgb)]
    if not found:
        raise InputError("nothing in this picture could cover the face: name the place by --region or --mask")
    strength, patch = max(found, key=lambda pair: pair[0])
    size = (rgb.shape[1], rgb.shape[0])
    return Occluder(cv2.resize(patch.astype(np.float32), size, interpolation=cv2.INTER_CUBIC) > 0.5, strength)


@torch.no_grad()
def unlikelihood(bundle: Bundle, rgb: Pictures) -> Map:
    """(G, G) nats: the loss of each token, mean over the windows that hide it, a little smoothed."""
    import cv2

    model, grid = bundle.model, bundle.model.config.grid
    ids = bundle.image_ids(shrink(rgb, bundle.image.config.image_px)[None])
    hidden = torch.from_numpy(_windows(grid).reshape(-1, grid * grid))
    text, total = unsaid_ids(bundle), torch.zeros(grid * grid)
    for rows in batches(len(hidden), 32):
        seen = ids.expand(len(hidden[rows]), -1).masked_fill(hidden[rows], MASK_I)
        states = model.encode(text.expand(len(seen), -1), seen).image
        assert states is not None
        log_p = model.image_logits(states).log_softmax(-1)
        loss = -log_p.gather(-1, (ids - model.first_code).expand_as(seen)[..., None])[..., 0]
        total += (loss * hidden[rows]).sum(0)
    mean = (total / hidden.sum(0)).reshape(grid, grid).numpy()
    return np.asarray(cv2.GaussianBlur(mean, (3, 3), 0.6, borderType=cv2.BORDER_REPLICATE))


def _windows(grid: int) -> npt.NDArray[np.bool_]:
    """(R, G, G): squares of a quarter, a half and five eighths of the side, each at steps of half its own."""
    found = []
    for side in (max(1, grid // 4), grid // 2, 5 * grid // 8):
        starts = sorted({*range(0, grid - side + 1, max(1, side // 2)), grid - side})
        for top in starts:
            for left in starts:
                window = np.zeros((grid, grid), bool)
                window[top : top + side, left : left + side] = True
                found.append(window)
    return np.stack(found)


def colour_patches(rgb: Pictures) -> list[Region]:
    """Connected patches of one colour, holes filled, at WORK_PX: k-means in Lab for several k (deterministic)."""
    import cv2

    small = cv2.medianBlur(cv2.resize(rgb, (WORK_PX, WORK_PX), interpolation=cv2.INTER_AREA), 5)
    pixels = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32).reshape(-1, 3)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0)
    patches = []
    for colours in _COLOURS:
        cv2.setRNGSeed(0)
        _, labels, _ = cv2.kmeans(pixels, colours, None, until, 1, cv2.KMEANS_PP_CENTERS)
        for colour in range(colours):
            patches += _connected((labels.reshape(WORK_PX, WORK_PX) == colour).astype(np.uint8))
    return patches


def _connected(mask: npt.NDArray[np.uint8]) -> list[Region]:
    import cv2

    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    patches = []
    for label in range(1, count):
        if _AREA[0] < stats[label, cv2.CC_STAT_AREA] / WORK_PX**2 < _AREA[1]:
            outlines, _ = cv2.findContours(
                (labels == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            patches.append(cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, -1) > 0)
    return patches


def _face_oval() -> Region:
    """Where a face lies in every aligned crop."""
    at = (np.arange(WORK_PX) + 0.5) / WORK_PX
    return np.asarray(((at[None, :] - 0.5) / 0.3) ** 2 + ((at[:, None] - 0.6) / 0.36) ** 2 < 1)


def _strength(patch: Region, loss: Map, face: Region) -> float:
    """Contrast of the loss, in favour of large patches (weakly) and of those on the face."""
    contrast = float(loss[patch].mean() - loss[~patch].mean())
    return contrast * float(patch.mean()) ** 0.25 * float(face[patch].mean())
