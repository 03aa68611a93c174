"""Faces from a sentence, and sentences from a face."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import ConfigError
from flows.steps.edit import Decoding, open_bundle
from flows.steps.layout import Layout
from flows.steps.model import resolve_model
from flows.steps.photo import open_portrait, write_picture

if TYPE_CHECKING:
    from gptface_core.captioning import Caption
    from gptface_core.sampling import SamplingConfig


@dataclass(frozen=True)
class GeneratedFaces:
    """Where the pictures and their contact sheet lie; `matches`: s_1 of each with the prompt."""

    pictures: tuple[Path, ...]
    sheet: Path
    matches: tuple[float, ...]
    unknown_words: tuple[str, ...]


def generate_faces(prompt: str, root: Path, model: str, target: Path, decoding: Decoding) -> GeneratedFaces:
    """Write faces for `prompt` as `target` (PNG), one more per further sample, and a contact sheet.

    Raises ConfigError for a missing model, InputError for a prompt that does not fit or a model that cannot be read.
    """
    from gptface_core.figures import contact_sheet
    from gptface_core.generating import DEFAULT_SAMPLING, generate

    if target.suffix.lower() != ".png":
        raise ConfigError(f"--out {target}: name a .png")
    bundle = open_bundle(resolve_model(Layout(root), model))
    samples = 4 if decoding.samples is None else decoding.samples
    made = generate(bundle, prompt, samples, sampling(DEFAULT_SAMPLING, decoding), decoding.seed)
    names = [target if i == 0 else target.with_name(f"{target.stem}-{i + 1}.png") for i in range(samples)]
    for name, picture in zip(names, made.images, strict=True):
        write_picture(name, picture)
    sheet = target.with_name(f"{target.stem}-sheet.png")
    titles = [f"{i + 1}: matching {match:.2f}" for i, match in enumerate(made.matches)]
    contact_sheet([list(made.images)], sheet, 256, titles)
    return GeneratedFaces(tuple(names), sheet, tuple(made.matches), tuple(made.unknown_words))


def caption_photo(
    photo: Path, root: Path, model: str, template: str, detector: str, face: int, decoding: Decoding
) -> list[Caption]:
    """Captions of a face of `photo`, the best first. Raises ConfigError and InputError as `edit_photo` does."""
    from gptface_core.captioning import DEFAULT_SAMPLING, caption

    folder = resolve_model(Layout(root), model)
    portrait = open_portrait(photo, detector, face)
    samples = 1 if decoding.samples is None else decoding.samples
    config = sampling(DEFAULT_SAMPLING, decoding)
    return caption(open_bundle(folder), portrait.crop, template, samples, config, decoding.seed)


def sampling(default: SamplingConfig, decoding: Decoding) -> SamplingConfig:
    """The task's own way of sampling, with what the user asked for."""
    from gptface_core.guidance import make_guidance

    return replace(
        default,
        steps=default.steps if decoding.steps is None else decoding.steps,
        temperature=default.temperature if decoding.temperature is None else decoding.temperature,
        guidance=make_guidance(decoding.method, decoding.guidance),
        best_of=decoding.best_of,
    )
