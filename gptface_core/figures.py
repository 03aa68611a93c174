"""Contact sheets as PNG: rows of pictures, enlarged so that a 64 px face can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptface_core.files import replacing
from gptface_core.image_tokenizer import PictureTokenizer
from gptface_core.shards import Pictures
from gptface_core.tokens import to_pictures, to_tensor

CELL_PX = 128


def contact_sheet(rows: Sequence[Sequence[Pictures]], path: Path, cell_px: int = CELL_PX) -> None:
    """Write rows of uint8 (H, W, 3) pictures as one PNG, each enlarged to `cell_px`, 2 px apart."""
    from PIL import Image

    gap = 2
    width = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (cell_px + gap) - gap, width * (cell_px + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            cell = Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
            top, left = y * (cell_px + gap), x * (cell_px + gap)
            sheet[top : top + cell_px, left : left + cell_px] = np.asarray(cell)
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def save_reconstructions(tokenizer: PictureTokenizer, pictures: Pictures, path: Path) -> None:
    """Originals above, what the tokenizer makes of them below."""
    if len(pictures):
        decoded = to_pictures(tokenizer.decode(tokenizer.encode(to_tensor(pictures).to(tokenizer.device))))
        contact_sheet([list(pictures), list(decoded)], path)


def gray_out(picture: Pictures, region: np.ndarray) -> Pictures:
    """The picture with a boolean (H, W) region in mid-gray: what a model is asked to fill."""
    covered = picture.copy()
    covered[region] = 127
    return covered
