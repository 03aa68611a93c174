"""Contact sheets as PNG: rows of pictures, enlarged so that a 64 px face can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptface_core.files import replacing
from gptface_core.image_tokenizer import PictureTokenizer
from gptface_core.shards import Pictures
from gptface_core.tokens import to_pictures, to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

CELL_PX = 128
TITLE_PX = 22


def contact_sheet(
    rows: Sequence[Sequence[Pictures]], path: Path, cell_px: int = CELL_PX, titles: Sequence[str] = ()
) -> None:
    """Write rows of uint8 (H, W, 3) pictures as one PNG, each enlarged to `cell_px`, 2 px apart; titles above."""
    from PIL import Image

    gap, head = 2, TITLE_PX if titles else 0
    width = max(len(row) for row in rows)
    sheet = np.full((head + len(rows) * (cell_px + gap) - gap, width * (cell_px + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            cell = Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.BICUBIC)
            top, left = head + y * (cell_px + gap), x * (cell_px + gap)
            sheet[top : top + cell_px, left : left + cell_px] = np.asarray(cell)
    drawn = Image.fromarray(sheet)
    for x, title in enumerate(titles):
        _write_title(drawn, title, x * (cell_px + gap), cell_px)
    with replacing(path) as temporary:
        drawn.save(temporary, format="PNG")


def _write_title(sheet: Image, title: str, left: int, width: int) -> None:
    """The title in the strip above a cell, cut with an ellipsis where it is too long."""
    from PIL import ImageDraw, ImageFont

    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE_PX - 8)
    while draw.textlength(title, font) > width - 4:
        title = title.removesuffix("…")[:-1] + "…"
    draw.text((left + 2, 2), title, (0, 0, 0), font)


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
