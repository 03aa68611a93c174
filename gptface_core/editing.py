"""Edits of an aligned face crop: hide a region's tokens, fill them to fit a sentence, paste the result back softly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gptface_core.bundle import Bundle, load_bundle
from gptface_core.errors import InputError
from gptface_core.figures import contact_sheet, gray_out
from gptface_core.sampling import Guidance, SamplingConfig, fill_image
from gptface_core.shards import Pictures, shrink

Region = npt.NDArray[np.bool_]
DEFAULT_GUIDANCE = Guidance()

# Boxes (x0, y0, x1, y1) as shares of the canonical crop, where the eyes lie at about (0.38, 0.47) and (0.62, 0.47) and
# the mouth at y = 0.75 (`gptface_core.faces.align`).
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "mouth": (0.25, 0.62, 0.75, 0.88),
    "eyes": (0.12, 0.36, 0.88, 0.62),
    "hair": (0.0, 0.0, 1.0, 0.37),
    "beard": (0.12, 0.6, 0.88, 1.0),
    "lower-face": (0.12, 0.5, 0.88, 1.0),
    "all": (0.0, 0.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class EditResult:
    """`images`: edited crops, uint8, of the size given; `region` (H, W): the pixels that may have changed."""

    images: list[Pictures]
    region: Region
    slots: Region  # (G, G)
    unknown_words: list[str]


def edit(
    model_dir: Path | str | Bundle,
    rgb: Pictures,
    prompt: str,
    region: str | Region = "mouth",
    *,
    seed: int = 0,
    samples: int = 1,
    steps: int = 8,
    temperature: float = 0.7,
    guidance: Guidance | None = DEFAULT_GUIDANCE,
    sheet: Path | None = None,
) -> EditResult:
    """Fill `region` of an aligned crop (uint8, square, RGB) so that it fits `prompt`, `samples` times.

    `region` is one of REGIONS or a boolean (H, W) mask. Pixels outside of it come back bit for bit. `sheet` names a PNG
    of input, mask and samples. Raises InputError for an unknown region, an empty prompt, one longer than the model's
    context, or a crop that is not square.
    """
    bundle = model_dir if isinstance(model_dir, Bundle) else load_bundle(model_dir)
    if rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"crop of shape {rgb.shape}, {rgb.dtype}: an aligned square of uint8 RGB is needed")
    mask = region_mask(region, rgb.shape[0])
    text_ids = _prompt_ids(bundle, prompt)
    slots = token_slots(mask, bundle.model.config.grid)
    image_ids = bundle.image_ids(shrink(rgb, bundle.image.config.image_px)[None])
    unknown = torch.from_numpy(slots.reshape(1, -1)).expand(samples, -1)
    config = SamplingConfig(steps=steps, temperature=temperature, guidance=guidance)
    generator = torch.Generator().manual_seed(seed)
    filled = fill_image(
        bundle.model, text_ids.expand(samples, -1), image_ids.expand(samples, -1), unknown, config, generator
    )
    images = [paste(rgb, decoded, mask) for decoded in bundle.decode(filled)]
    if sheet is not None:
        contact_sheet([[rgb, gray_out(rgb, mask), *images]], sheet)
    return EditResult(images, mask, slots, bundle.text.unknown_words(prompt))


def _prompt_ids(bundle: Bundle, prompt: str) -> torch.Tensor:
    length, limit = len(bundle.text.encode(prompt)), bundle.model.config.max_text_tokens
    if length == 0:
        raise InputError("the prompt is empty: say what the region should show, for example 'smiling'")
    if length > limit:
        raise InputError(f"the prompt has {length} tokens, this model reads {limit}: shorten it")
    return bundle.text_ids([prompt])


def region_mask(region: str | Region, size_px: int) -> Region:
    """Boolean (size_px, size_px): a named region of the canonical crop, or a mask of that size as it is."""
    if isinstance(region, str):
        if region not in REGIONS:
            raise InputError(f"no region '{region}': choose {', '.join(REGIONS)}")
        x0, y0, x1, y1 = (round(share * size_px) for share in REGIONS[region])
        mask = np.zeros((size_px, size_px), bool)
        mask[y0:y1, x0:x1] = True
        return mask
    if region.shape != (size_px, size_px) or not region.any():
        raise InputError(
            f"region of shape {region.shape}: a mask of ({size_px}, {size_px}) with some pixel set is needed"
        )
    return region.astype(bool)


def token_slots(mask: Region, grid: int) -> Region:
    """(G, G) True where a token's patch has any pixel of the region: what is edited is never half known."""
    rows, columns = np.nonzero(mask)
    slots = np.zeros((grid, grid), bool)
    slots[rows * grid // mask.shape[0], columns * grid // mask.shape[1]] = True
    return slots


def paste(original: Pictures, decoded: Pictures, mask: Region, feather: float = 0.03) -> Pictures:
    """`decoded` (any size) over `original` within `mask`, softly: the weight rises from the region's edge inwards.

    `feather` is the width of the soft edge as a share of the side. Outside of the mask the weight is zero, and the
    original's bytes are copied.
    """
    size = original.shape[0]
    weight = _inner_ramp(mask, max(1, round(feather * size)))[..., None]
    blended = shrink(decoded, size).astype(np.float32) * weight + original.astype(np.float32) * (1 - weight)
    return np.where(mask[..., None], blended.round().astype(np.uint8), original)


def _inner_ramp(mask: Region, width: int) -> npt.NDArray[np.float32]:
    """(H, W) in [0, 1]: how far inside the mask a pixel lies, in steps of erosion; the crop's own border is no edge."""
    inside = np.pad(mask, 1, mode="edge")
    weight = np.zeros(mask.shape, np.float32)
    for _ in range(width):
        weight += inside[1:-1, 1:-1]
        eroded = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        inside = np.pad(eroded, 1, mode="edge")
    return weight / np.float32(width)
