"""Photos with faces: read one, choose a face, cut its aligned crop, and put a changed crop back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps.config import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photo (H, W, 3), the five points (5, 2) of the chosen face in it, and its aligned crop."""

    rgb: Pixels
    points: NDArray[np.floating[Any]]
    crop: Pixels

    def crop_points(self) -> NDArray[np.float64]:
        """The five points in pixels of the crop."""
        from gptface_core.faces.align import frame_to_crop

        matrix = frame_to_crop(self.points, self.crop.shape[0])
        moved: NDArray[np.float64] = (self.points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
        return moved

    def into_crop(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the photo (H, W) as one of the crop (S, S)."""
        import cv2
        import numpy as np

        from gptface_core.faces.align import frame_to_crop

        size = self.crop.shape[0]
        warped = cv2.warpAffine(mask.astype(np.float32), frame_to_crop(self.points, size), (size, size))
        return np.asarray(warped > 0)


def open_portrait(photo: Path, detector: str, face: int = 0) -> Portrait:
    """The photo's face number `face` (1 is the largest; 0: the only one).

    Raises ConfigError for a photo that cannot be read, that has no face, or several of which none is chosen.
    """
    from gptface_core.faces.align import align_crop
    from gptface_core.faces.detector import load_detector

    rgb = read_picture(photo)
    faces = load_detector(detector).detect(rgb)
    if not faces:
        raise ConfigError(f"{photo}: found no face; take a picture with a larger, upright face, or try --detector")
    if face == 0 and len(faces) > 1:
        raise ConfigError(f"{photo}: found {len(faces)} faces: add --face N, from 1 (the largest) to {len(faces)}")
    if face > len(faces):
        raise ConfigError(f"{photo}: no face {face}, found {len(faces)}: --face goes from 1 (the largest)")
    points = faces[max(face, 1) - 1].points
    return Portrait(rgb, points, align_crop(rgb, points))


def read_picture(path: Path) -> Pixels:
    """uint8 (H, W, 3) RGB, upright; ConfigError for what is no picture."""
    from gptface_core.faces.decode import Undecodable, decode_upright

    if not path.is_file():
        raise ConfigError(f"no such picture: {path}")
    picture = decode_upright(path.read_bytes())
    if isinstance(picture, Undecodable):
        raise ConfigError(f"{path} is not a picture that can be read ({picture.reason}): {picture.detail}")
    return picture.rgb


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) True where the picture is light: what is to be filled. ConfigError where nothing is."""
    mask: NDArray[np.bool_] = read_picture(path).mean(2) > 127
    if not mask.any():
        raise ConfigError(f"mask {path} is black all over: paint white what is to be filled")
    return mask


def write_picture(target: Path, rgb: Pixels) -> None:
    """A PNG, whole or not at all: no byte of the picture is lost."""
    from PIL import Image

    from crawler.files import replacing

    with replacing(target) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")


def paste_crop(rgb: Pixels, crop: Pixels, weight: NDArray[Any], points: NDArray[Any]) -> Pixels:
    """The photo (H, W, 3) with the edited aligned `crop` (S, S, 3) put back in its place, as far as `weight` says.

    `weight` (S, S), a region or from 0 to 1, goes the same way back as the crop; where none of it falls, the photo's
    bytes are copied.
    """
    import cv2
    import numpy as np

    from gptface_core.faces.align import ffhq_frame, frame_to_crop
    from gptface_core.shards import shrink

    height, width = rgb.shape[:2]
    side = min(crop.shape[0], max(1, round(2 * float(np.hypot(*ffhq_frame(points)[1])))))
    matrix = frame_to_crop(points, side)  # a small face takes a small crop, so that the way back does not alias
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fill = cv2.warpAffine(shrink(crop, side), matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(weight.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    share = cv2.warpAffine(small, matrix, (width, height), flags=flags)[..., None]
    blended = fill.astype(np.float32) * share + rgb.astype(np.float32) * (1 - share)
    return np.where(share > 0, np.rint(blended).astype(np.uint8), rgb)
