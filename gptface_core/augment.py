"""Views of a training picture: the crop as it is, then crops of it, some of them flipped; drawn from its row id.

Aligned faces stay nearly aligned: a view keeps at least 88 % of the side. A picture is never flipped where its caption
mentions left or right, for then the caption would no longer be true.
"""

from __future__ import annotations

import hashlib
import io
import re

import numpy as np

from gptface_core.shards import Pictures, shrink

VERSION = 1  # raised with every change of what views look like: token files of another version are not met again
MIN_SIDE = 0.88
FLIP_SHARE = 0.5
# Left and right with whatever follows (lefty, left-handed, rightmost; "rights reserved" costs no more than a flip), in
# English and the languages that its captions are mixed with most.
SIDE_WORDS = (
    *("left", "right", "gauche", "droite", "links", "rechts", "linke", "rechte", "izquierd", "derech"),
    *("esquerd", "direit", "sinistr", "destr", "слева", "справа", "лев", "прав"),
)
_SIDE = re.compile(r"\b(?:" + "|".join(SIDE_WORDS) + ")", re.IGNORECASE)


def mentions_side(caption: str) -> bool:
    """Whether the caption has a word that begins like one of SIDE_WORDS."""
    return _SIDE.search(caption) is not None


def views_of(jpeg: bytes, caption: str, row_id: str, views: int, size_px: int) -> Pictures:
    """uint8 (views, size_px, size_px, 3): the picture as `decode_jpeg` gives it, then `views - 1` others.

    The same arguments give the same views, and more views begin with the same ones.
    """
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as source:
        source.draft("RGB", (2 * size_px, 2 * size_px))
        crop = source.convert("RGB")
    seed = hashlib.blake2b(f"view\0{VERSION}\0{row_id}".encode(), digest_size=8).digest()
    draws = np.random.default_rng(int.from_bytes(seed, "little")).random((views - 1, 4))
    flippable, pictures = not mentions_side(caption), [shrink(np.asarray(crop), size_px)]
    for scale, across, down, coin in draws:
        side = (MIN_SIDE + (1 - MIN_SIDE) * scale) * crop.width
        left, top = across * (crop.width - side), down * (crop.height - side)
        method = Image.Resampling.BOX if side >= size_px else Image.Resampling.BICUBIC
        view = crop.resize((size_px, size_px), method, (left, top, left + side, top + side))
        if flippable and coin < FLIP_SHARE:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pictures.append(np.asarray(view))
    return np.stack(pictures)
