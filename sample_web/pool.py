"""Any number of distinct JPEGs at the price of a copy, for benchmarks: the server must not be what is measured.

A few rendered faces are each sent with a comment segment that holds the number asked for, so all bytes differ, and
every file decodes like any other JPEG. The pixels repeat every `POOL` pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2

from sample_web.draws import seed_of
from sample_web.pictures import with_segment
from sample_web.render import render_face, sample_attributes

POOL = 64
_SIZE_PX = 256
_COMMENT = 0xFE
_DIGITS = 20
_MARK = b"sample-web picture "


@dataclass(frozen=True)
class PoolPicture:
    """One rendered JPEG, cut where the number goes."""

    before: bytes
    after: bytes

    def numbered(self, number: int) -> bytes:
        """The file for `number`: always of the same length."""
        return b"%s%020d%s" % (self.before, number, self.after)

    @property
    def size(self) -> int:
        return len(self.before) + _DIGITS + len(self.after)


@lru_cache(maxsize=2 * POOL)
def pool_picture(seed: int, number: int) -> PoolPicture:
    """The rendered picture behind `number`, which is taken modulo POOL by the caller."""
    face_seed = seed_of("pool", seed, number)
    rgb = render_face(sample_attributes(number, seed), face_seed, _SIZE_PX)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    whole = with_segment(jpeg, _COMMENT, _MARK + b"0" * _DIGITS)
    cut = whole.index(_MARK) + len(_MARK)
    return PoolPicture(whole[:cut], whole[cut + _DIGITS :])
