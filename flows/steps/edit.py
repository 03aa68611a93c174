"""Editing a photo: find the face, edit its aligned crop, put the changed region back where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from flows.steps.model import resolve_model
from flows.steps.photo import Portrait, open_portrait, paste_crop, read_mask, write_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gptface_core.bundle import Bundle
    from gptface_core.editing import EditResult

TASKS = ("edit", "unmask")
UNMASK_SAMPLES = 3


@dataclass(frozen=True)
class Decoding:
    """How slots are filled. None: the task's own default. `method`: see `gptface_core.guidance.make_guidance`."""

    seed: int = 0
    samples: int | None = None
    steps: int | None = None
    temperature: float | None = None
    method: str = "matching"
    guidance: float | None = None
    best_of: int = 1


@dataclass(frozen=True)
class EditTask:
    """What to change. `regions`: names, "auto" or mask files over the aligned crop; `mask`: a file of the photo's size.

    Several prompts are edits one after the other. `task` "unmask" finds the region itself. `face` 0: the only one.
    """

    prompts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ("auto",)
    mask: Path | None = None
    task: str = "edit"
    face: int = 0


@dataclass(frozen=True)
class EditedPhoto:
    """Where the edited photos (one per sample) and the contact sheet lie, and what the user should know.

    `matches`: s_1 of each sample with the last prompt; `unknown_words`: those the model had never read.
    """

    photos: tuple[Path, ...]
    sheet: Path
    matches: tuple[float, ...]
    unknown_words: tuple[str, ...]
    notes: tuple[str, ...] = ()


def edit_photo(
    photo: Path, task: EditTask, root: Path, model: str, target: Path, detector: str, decoding: Decoding | None = None
) -> EditedPhoto:
    """Edit a face of `photo` and write `target` (PNG), one more per further sample, and a contact sheet.

    Pixels outside of the region stay as they are, bit for bit. Raises ConfigError for a photo or mask that does not
    fit, and InputError for what the model does not know (region, prompt) or a model that cannot be read.
    """
    import numpy as np

    from gptface_core.editing import soft_edge

    _check(task, target)
    folder = resolve_model(Layout(root), model)
    portrait = open_portrait(photo, detector, task.face)
    mask = None if task.mask is None else _photo_mask(task.mask, portrait)
    sheet = target.with_name(f"{target.stem}-sheet.png")
    result, notes = _run(open_bundle(folder), portrait, task, mask, decoding or Decoding(), sheet)
    notes += _cut_off(portrait, result.region)
    weight = soft_edge(result.region, border=True)
    photos = []
    for number, filled in enumerate(result.fills, 1):
        edited = paste_crop(portrait.rgb, filled, weight, portrait.points)
        if mask is not None:
            edited = np.where(mask[..., None], edited, portrait.rgb)
        photos.append(target if number == 1 else target.with_name(f"{target.stem}-{number}.png"))
        write_picture(photos[-1], edited)
    return EditedPhoto(tuple(photos), sheet, tuple(result.matches), tuple(result.unknown_words), tuple(notes))


def open_bundle(folder: Path) -> Bundle:
    """The model in `folder`, without the bars that transformers shows while loading."""
    from transformers.utils import logging

    from gptface_core.bundle import load_bundle

    logging.disable_progress_bar()
    return load_bundle(folder)


def _check(task: EditTask, target: Path) -> None:
    """What can be refused before anything is read."""
    if task.task not in TASKS:
        raise ConfigError(f"no task '{task.task}': choose {' or '.join(TASKS)}")
    if target.suffix.lower() != ".png":
        raise ConfigError(f"--out {target}: name a .png, other formats change pixels that were not edited")
    if task.task == "edit" and task.mask is None and not task.prompts:
        raise ConfigError("nothing to do: add --prompt (what the face should show), --mask or --task unmask")
    if task.mask is not None and (task.task == "unmask" or task.regions != ("auto",)):
        raise ConfigError(f"--mask {task.mask} says which pixels to fill: leave out --region and --task unmask")
    if task.task == "unmask" and task.regions != ("auto",):
        raise ConfigError(f"--task unmask finds the region itself: leave out --region {task.regions[0]}")


def _run(
    bundle: Bundle,
    portrait: Portrait,
    task: EditTask,
    mask: NDArray[np.bool_] | None,
    decoding: Decoding,
    sheet: Path,
) -> tuple[EditResult, list[str]]:
    """The edited crops, and what a user might else take for a mistake of ours."""
    from gptface_core.editing import edit
    from gptface_core.guidance import make_guidance

    regions, notes = _regions(bundle, portrait, task, mask)
    # Several different fillings are the point where nobody knows what lies below.
    samples, temperature = (UNMASK_SAMPLES, 1.0) if task.task == "unmask" else (1, 0.7)
    result = edit(
        bundle,
        portrait.crop,
        task.prompts,
        regions,
        points=portrait.crop_points(),
        seed=decoding.seed,
        samples=samples if decoding.samples is None else decoding.samples,
        steps=8 if decoding.steps is None else decoding.steps,
        temperature=temperature if decoding.temperature is None else decoding.temperature,
        guidance=make_guidance(decoding.method, decoding.guidance),
        best_of=decoding.best_of,
        sheet=sheet,
    )
    return result, notes


def _regions(
    bundle: Bundle, portrait: Portrait, task: EditTask, mask: NDArray[np.bool_] | None
) -> tuple[list[str | NDArray[np.bool_]], list[str]]:
    """What to fill, by name or as masks of the crop, and notes on it."""
    from gptface_core.occluder import find_occluder

    if task.task == "unmask":
        found = find_occluder(bundle, portrait.crop)
        doubt = "perhaps nothing covers this face: look at the sheet, and name the place by --mask if need be"
        return [found.to_fill()], [] if found.sure else [doubt]
    if mask is not None:
        return [portrait.into_crop(mask)], _beyond(portrait, mask)
    return [_region(name, portrait.crop.shape[0]) for name in task.regions], []


def _region(name: str, crop_px: int) -> str | NDArray[np.bool_]:
    """A region's name as it is, a file as a mask of the crop."""
    from gptface_core.regions import AUTO, REGIONS, resize_mask

    if name == AUTO or set(name.split("+")) <= set(REGIONS):
        return name
    if not Path(name).is_file():
        raise ConfigError(
            f"no region '{name}': choose {', '.join(REGIONS)}, several as in mouth+eyes, auto, or name a mask picture"
        )
    mask = read_mask(Path(name))
    if mask.shape[0] != mask.shape[1]:
        raise ConfigError(
            f"region {name} is {mask.shape[1]} x {mask.shape[0]} px: a region lies over the square crop that the sheet "
            "shows; give a mask of the whole photo as --mask"
        )
    return resize_mask(mask, crop_px)


def _photo_mask(path: Path, portrait: Portrait) -> NDArray[np.bool_]:
    mask = read_mask(path)
    height, width = portrait.rgb.shape[:2]
    if mask.shape != (height, width):
        raise ConfigError(f"mask {path} is {mask.shape[1]} x {mask.shape[0]} px, the photo {width} x {height}")
    if not portrait.into_crop(mask).any():
        raise ConfigError(f"mask {path} lies outside of the face: paint on the face, or choose another with --face")
    return mask


def _cut_off(portrait: Portrait, region: NDArray[np.bool_]) -> list[str]:
    """A note where part of the region (of the crop) lies beyond the photo's edge; ConfigError where all of it does."""
    import numpy as np

    seen = portrait.into_crop(np.ones(portrait.rgb.shape[:2], bool))
    share = float((region & ~seen).sum() / region.sum())
    if share == 1:
        raise ConfigError("the region lies beyond the photo's edge: choose another, or a photo that shows more")
    return [f"{share:.0%} of the region lie beyond the photo's edge"] if share > 0.005 else []


def _beyond(portrait: Portrait, mask: NDArray[np.bool_]) -> list[str]:
    """A note where the mask reaches beyond the face's crop."""
    import numpy as np

    white = np.full_like(portrait.crop, 255)
    reached = paste_crop(np.zeros_like(portrait.rgb), white, np.ones(white.shape[:2], bool), portrait.points).any(-1)
    share = float((mask & ~reached).sum() / mask.sum())
    return [f"{share:.0%} of the mask lie beyond the face's crop and stay as they are"] if share > 0.005 else []
