"""Editing a photo: find the face, edit its aligned crop, put the changed region back where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from flows.steps.model import resolve_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class EditedPhoto:
    """Where the edited photo and the contact sheet of its crop lie; `unknown_words` the model had never read."""

    photo: Path
    sheet: Path
    unknown_words: tuple[str, ...]


def edit_photo(
    photo: Path, prompt: str, region: str, root: Path, model: str, target: Path, detector: str, seed: int
) -> EditedPhoto:
    """Edit the one face of `photo` by `prompt` and write `target` (PNG) and its contact sheet.

    Pixels outside the region stay as they are, bit for bit. Raises ConfigError for a photo without exactly one face,
    and InputError for what the model does not know (region, prompt).
    """
    from gptface_core.editing import edit
    from gptface_core.faces.align import align_crop
    from gptface_core.faces.detector import load_detector

    folder = resolve_model(Layout(root), model)
    rgb = _read(photo)
    faces = load_detector(detector).detect(rgb)
    if len(faces) != 1:
        found = "no face" if not faces else f"{len(faces)} faces"
        raise ConfigError(f"{photo}: found {found}, an edit needs exactly one; crop the picture or try --detector")
    points = faces[0].points
    sheet = target.with_name(f"{target.stem}-sheet.png")
    result = edit(folder, align_crop(rgb, points), prompt, region, seed=seed, sheet=sheet)
    _write(target, paste_crop(rgb, result.images[0], result.region, points))
    return EditedPhoto(target, sheet, tuple(result.unknown_words))


def paste_crop(rgb: Pixels, crop: Pixels, region: NDArray[np.bool_], points: Any) -> Pixels:
    """The photo (H, W, 3) with `region` (S, S) of the edited aligned `crop` (S, S, 3) put back in its place.

    The region's edge is softened by the warp itself; where no edited pixel falls, the photo's bytes are copied.
    """
    import cv2
    import numpy as np

    from gptface_core.faces.align import frame_to_crop

    height, width = rgb.shape[:2]
    matrix = frame_to_crop(points, crop.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(crop, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(region.astype(np.float32), matrix, (width, height), flags=flags)[..., None]
    blended = back.astype(np.float32) * weight + rgb.astype(np.float32) * (1 - weight)
    return np.where(weight > 0, np.rint(blended).astype(np.uint8), rgb)


def _read(photo: Path) -> Pixels:
    from gptface_core.faces.decode import Undecodable, decode_upright

    if not photo.is_file():
        raise ConfigError(f"no such picture: {photo}")
    picture = decode_upright(photo.read_bytes())
    if isinstance(picture, Undecodable):
        raise ConfigError(f"{photo} is not a picture that can be read ({picture.reason}): {picture.detail}")
    return picture.rgb


def _write(target: Path, rgb: Pixels) -> None:
    from PIL import Image

    from crawler.files import replacing

    with replacing(target) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
