"""Edits of an aligned face crop: hide a region's tokens, fill them to fit a sentence, paste the result back softly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptface_core.bundle import Bundle, load_bundle
from gptface_core.canvas import Canvas
from gptface_core.errors import InputError
from gptface_core.figures import contact_sheet, gray_out
from gptface_core.guidance import AnyGuidance, Guidance
from gptface_core.image_tokenizer import batches
from gptface_core.model import MASK_T
from gptface_core.regions import AUTO, REGIONS, Points, Region, auto_region, region_mask, token_slots
from gptface_core.sampling import SamplingConfig, fill
from gptface_core.shards import Pictures, shrink

__all__ = ["REGIONS", "EditResult", "edit", "edit_each", "paste", "region_mask", "soft_edge", "token_slots"]

Weights = npt.NDArray[np.float32]
DEFAULT_GUIDANCE = Guidance()
FEATHER = 0.03  # width of the soft edge, as a share of the crop's side
SHEET_PX = 256
_UNSAID_TOKENS = 8


@dataclass(frozen=True)
class EditResult:
    """`images`: edited crops, uint8, of the size given; `fills`: the same before they were pasted into the crop.

    `region` (H, W): the pixels that may have changed; `matches`: s_1 of each sample with the last prompt, none where
    there was no prompt; `unknown_words`: of the prompts, those that the model's corpus never showed.
    """

    images: list[Pictures]
    fills: list[Pictures]
    region: Region
    slots: Region  # (G, G)
    matches: list[float]
    unknown_words: list[str]


def edit(
    model_dir: Path | str | Bundle,
    rgb: Pictures,
    prompt: str | Sequence[str],
    region: str | Region | Sequence[str | Region] = AUTO,
    *,
    points: Points | None = None,
    seed: int = 0,
    samples: int = 1,
    steps: int = 8,
    temperature: float = 0.7,
    guidance: AnyGuidance | None = DEFAULT_GUIDANCE,
    best_of: int = 1,
    sheet: Path | None = None,
) -> EditResult:
    """Fill `region` of an aligned crop (uint8, square, RGB) so that it fits `prompt`, `samples` times.

    Several prompts are edits one after the other, each on the tokens that the last one left, with a region each or one
    for all. A region is a name of REGIONS, "auto" (from the prompt's words) or a boolean (H, W) mask; `points` (5, 2)
    are the face's, in pixels of the crop. No prompt at all (an empty sequence) fills the region from the face alone,
    unguided. Pixels outside of the regions come back bit for bit. `sheet` names a PNG of input, mask and samples.

    Raises InputError for an unknown region, an empty prompt, one longer than the model's context, or a crop that is not
    square.
    """
    bundle = model_dir if isinstance(model_dir, Bundle) else load_bundle(model_dir)
    if rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(f"crop of shape {rgb.shape}, {rgb.dtype}: an aligned square of uint8 RGB is needed")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [prompt_ids(bundle, each) for each in prompts] or [unsaid_ids(bundle)]
    masks = [region_mask(each, rgb.shape[0], points) for each in _regions(prompts, region)]
    config = SamplingConfig(
        steps=steps, temperature=temperature, guidance=guidance if prompts else None, best_of=best_of
    )
    ids = bundle.image_ids(shrink(rgb, bundle.image.config.image_px)[None]).expand(samples, -1)
    ids, matches = _fill_all(bundle, ids, texts, masks, config, torch.Generator().manual_seed(seed))
    fills = [shrink(decoded, rgb.shape[0]) for decoded in bundle.decode(ids)]
    mask = np.logical_or.reduce(masks)
    images = [paste(rgb, decoded, mask) for decoded in fills]
    if sheet is not None:
        write_sheet(rgb, mask, images, prompts, sheet)
    unknown = [word for each in prompts for word in bundle.text.unknown_words(each)]
    slots = token_slots(mask, bundle.model.config.grid)
    return EditResult(images, fills, mask, slots, matches if prompts else [], unknown)


def edit_each(
    bundle: Bundle,
    crops: Sequence[Pictures],
    prompt: str,
    region: str | Sequence[Region] = AUTO,
    *,
    points: Sequence[Points] | None = None,
    seeds: Sequence[int],
    steps: int = 8,
    temperature: float = 0.7,
    guidance: AnyGuidance | None = DEFAULT_GUIDANCE,
    best_of: int = 1,
    batch: int = 32,
) -> Iterator[EditResult]:
    """One sample for each of many crops, `batch` of them at a time: what `edit` gives one by one for the same seeds.

    `region` is a name for all or a mask per crop, `points` a (5, 2) per crop. An empty prompt fills from the face
    alone, unguided. Raises InputError as `edit` does.
    """
    text = prompt_ids(bundle, prompt) if prompt else unsaid_ids(bundle)
    name = auto_region(prompt) if isinstance(region, str) and region == AUTO else region
    config = SamplingConfig(
        steps=steps, temperature=temperature, guidance=guidance if prompt else None, best_of=best_of
    )
    grid, unknown_words = bundle.model.config.grid, bundle.text.unknown_words(prompt)
    for rows in batches(len(crops), batch):
        own = [name if isinstance(name, str) else name[i] for i in range(rows.start, rows.stop)]
        places = [None] * len(own) if points is None else points[rows]
        masks = [region_mask(r, c.shape[0], p) for r, c, p in zip(own, crops[rows], places, strict=True)]
        slots = np.stack([token_slots(mask, grid) for mask in masks])
        small = np.stack([shrink(crop, bundle.image.config.image_px) for crop in crops[rows]])
        canvas = Canvas(bundle.model, text.expand(len(small), -1), bundle.image_ids(small), fills_image=True)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
        ids = fill(canvas, torch.from_numpy(slots).flatten(1), config, generators)
        matches = canvas.matches(ids) if prompt else [None] * len(small)
        for crop, decoded, mask, slot, match in zip(
            crops[rows], bundle.decode(ids), masks, slots, matches, strict=True
        ):
            filled = shrink(decoded, crop.shape[0])
            found = [] if match is None else [match]
            yield EditResult([paste(crop, filled, mask)], [filled], mask, slot, found, unknown_words)


def _regions(prompts: list[str], region: str | Region | Sequence[str | Region]) -> list[str | Region]:
    """A region per prompt (at least one), with "auto" resolved."""
    given: list[str | Region] = [region] if isinstance(region, str | np.ndarray) else list(region)
    wanted = max(1, len(prompts))
    if len(given) not in (1, wanted):
        raise InputError(f"{len(given)} regions for {wanted} prompts: give one for all, or one per prompt")
    given = given * wanted if len(given) == 1 else given
    automatic = [isinstance(each, str) and each == AUTO for each in given]
    if any(automatic) and not prompts:
        raise InputError("region auto is read from the prompt, and there is none: give a prompt, a region or a mask")
    return [auto_region(prompts[i]) if auto else given[i] for i, auto in enumerate(automatic)]


def _fill_all(
    bundle: Bundle,
    ids: Tensor,
    texts: list[Tensor],
    masks: list[Region],
    config: SamplingConfig,
    generator: torch.Generator,
) -> tuple[Tensor, list[float]]:
    """Image ids (B, N) after all edits, and s_1 of each row with the last text."""
    for text, mask in zip(texts, masks, strict=True):
        unknown = torch.from_numpy(token_slots(mask, bundle.model.config.grid).reshape(1, -1)).expand(len(ids), -1)
        canvas = Canvas(bundle.model, text.expand(len(ids), -1), ids, fills_image=True)
        ids = fill(canvas, unknown, config, generator)
    return ids, canvas.matches(ids)


def prompt_ids(bundle: Bundle, prompt: str) -> Tensor:
    """(1, L) ids of a prompt; InputError where it is empty or longer than the model's context."""
    length, limit = len(bundle.text.encode(prompt)), bundle.model.config.max_text_tokens
    if length == 0:
        raise InputError("the prompt is empty: say what the face should show, for example 'smiling'")
    if length > limit:
        raise InputError(f"the prompt has {length} tokens, this model reads {limit}: shorten it")
    return bundle.text_ids([prompt])


def unsaid_ids(bundle: Bundle) -> Tensor:
    """(1, L) ids of a caption whose every word is hidden, as training shows them: for filling without a prompt."""
    return torch.full((1, min(_UNSAID_TOKENS, bundle.model.config.max_text_tokens)), MASK_T)


def write_sheet(rgb: Pictures, mask: Region, images: list[Pictures], prompts: list[str], path: Path) -> None:
    """One row: the crop, the crop with the region grey, the samples."""
    titles = ["input", "region", *(f"sample {i + 1}" for i in range(len(images)))]
    if prompts:
        titles[2] = f"1: {', then '.join(prompts)}"
    contact_sheet([[rgb, gray_out(rgb, mask), *images]], path, SHEET_PX, titles)


def paste(original: Pictures, decoded: Pictures, mask: Region) -> Pictures:
    """`decoded` (any size) over `original` within `mask`, softly; outside of it the original's bytes are copied."""
    size = original.shape[0]
    weight = soft_edge(mask)[..., None]
    blended = shrink(decoded, size).astype(np.float32) * weight + original.astype(np.float32) * (1 - weight)
    return np.where(mask[..., None], blended.round().astype(np.uint8), original)


def soft_edge(mask: Region, border: bool = False) -> Weights:
    """(H, W) in [0, 1]: zero outside of the mask, rising from its edge inwards over FEATHER of the side.

    The crop's own border is no edge, unless `border` says so (the crop lies in a larger photo).
    """
    width = max(1, round(FEATHER * mask.shape[0]))
    inside = np.pad(mask, 1, mode="constant" if border else "edge")
    weight = np.zeros(mask.shape, np.float32)
    for _ in range(width):
        weight += inside[1:-1, 1:-1]
        eroded = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        inside = np.pad(eroded, 1, mode="constant" if border else "edge")
    return weight / np.float32(width)
