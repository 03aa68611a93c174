"""Commands that put a trained model to use: edit, generate, caption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root, Seed

Model = Annotated[
    str, typer.Option(help="Name below ROOT/models, or a folder (default: the champion, else the newest).")
]
FaceNumber = Annotated[int, typer.Option("--face", min=0, help="Which face, 1 is the largest (0: the only one).")]
Detector = Annotated[str, typer.Option(help="insightface, cascade or auto.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Decoding steps (default: 8, generate 12).")]
Samples = Annotated[int | None, typer.Option(min=1, max=64, help="How many different results.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 takes the likeliest token, 1 the model's own law.")]
Strength = Annotated[
    float | None, typer.Option("--guidance", min=0, help="Strength of the pull to the prompt (0: none).")
]
Method = Annotated[str, typer.Option(help="Guidance by matching, one-gradient or classifier-free, or none.")]
BestOf = Annotated[int, typer.Option("--best-of", min=1, max=64, help="Draw so many, keep the best match of each.")]


def edit(
    photo: Annotated[Path, typer.Argument(help="Picture with a face.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="What the face should show; repeated: one edit after the other.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Part to fill: mouth, eyes, hair, beard, lower-face, all, several as in mouth+eyes, a black-and-white "
            "picture over the crop that the sheet shows, or auto (from the prompt). One, or one per prompt."
        ),
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Inpainting: a picture of the photo's size, white: fill.")] = None,
    task: Annotated[str, typer.Option(help="edit, or unmask: find what covers the face and fill it.")] = "edit",
    root: Root = DEFAULT_ROOT,
    model: Model = "",
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result, a .png (default: PHOTO-edited.png).")
    ] = None,
    face: FaceNumber = 0,
    detector: Detector = "auto",
    samples: Samples = None,
    steps: Steps = None,
    temperature: Temperature = None,
    guidance: Strength = None,
    method: Method = "matching",
    best_of: BestOf = 1,
    seed: Seed = 0,
) -> None:
    """Edit a face by a sentence: the region is filled anew, everything outside stays as it is, bit for bit.

    Example: gptface edit photo.jpg --prompt "a smiling person with eyeglasses" --samples 4

    Example: gptface edit photo.jpg --prompt smiling --prompt "red hair" --region mouth --region hair

    Example: gptface edit photo.jpg --task unmask
    """
    from flows.cli.ui import out
    from flows.steps.edit import Decoding, EditTask, edit_photo

    wanted = EditTask(tuple(prompt or ()), tuple(region or ("auto",)), mask, task, face)
    decoding = Decoding(seed, samples, steps, temperature, method, guidance, best_of)
    target = output or photo.with_name(f"{photo.stem}-edited.png")
    result = edit_photo(photo, wanted, root, model, target, detector, decoding)
    _print_pictures("Edited", result.photos, result.matches)
    out.print(f"Sheet:   {result.sheet}", soft_wrap=True, highlight=False)
    for note in result.notes:
        out.print(f"Note: {note}", markup=False, style="yellow")
    _print_unknown(result.unknown_words)


def generate(
    prompt: Annotated[str, typer.Option(help="What the faces should look like.")],
    root: Root = DEFAULT_ROOT,
    model: Model = "",
    output: Annotated[Path, typer.Option("--out", "-o", help="The first picture, a .png.")] = Path("face.png"),
    samples: Samples = None,
    steps: Steps = None,
    temperature: Temperature = None,
    guidance: Strength = None,
    method: Method = "matching",
    best_of: BestOf = 1,
    seed: Seed = 0,
) -> None:
    """Make faces from a sentence, and a contact sheet of them.

    Example: gptface generate --prompt "a smiling person with red hair and eyeglasses" --samples 6
    """
    from flows.cli.ui import out
    from flows.steps.edit import Decoding
    from flows.steps.generate import generate_faces

    decoding = Decoding(seed, samples, steps, temperature, method, guidance, best_of)
    made = generate_faces(prompt, root, model, output, decoding)
    _print_pictures("Face", made.pictures, made.matches)
    out.print(f"Sheet:   {made.sheet}", soft_wrap=True, highlight=False)
    _print_unknown(made.unknown_words)


def caption(
    photo: Annotated[Path, typer.Argument(help="Picture with a face.")],
    template: Annotated[
        str, typer.Option(help="A caption with blanks, ___ each (default: the whole caption is written).")
    ] = "",
    root: Root = DEFAULT_ROOT,
    model: Model = "",
    face: FaceNumber = 0,
    detector: Detector = "auto",
    samples: Samples = None,
    steps: Steps = None,
    temperature: Temperature = None,
    guidance: Strength = None,
    method: Method = "matching",
    best_of: BestOf = 1,
    seed: Seed = 0,
) -> None:
    """Say in words what a face looks like, the best match first.

    Example: gptface caption photo.jpg --samples 3

    Example: gptface caption photo.jpg --template "a ___ person with ___ hair"
    """
    from flows.cli.ui import out
    from flows.steps.edit import Decoding
    from flows.steps.generate import caption_photo

    decoding = Decoding(seed, samples, steps, temperature, method, guidance, best_of)
    for found in caption_photo(photo, root, model, template, detector, face, decoding):
        out.print(f"{found.text}   (matching {found.match:.2f})", markup=False, highlight=False, soft_wrap=True)


def _print_pictures(what: str, paths: tuple[Path, ...], matches: tuple[float, ...]) -> None:
    from flows.cli.ui import out

    for number, path in enumerate(paths):
        match = f"   (matching {matches[number]:.2f})" if matches else ""
        out.print(f"{what + ':':<8} {path}{match}", soft_wrap=True, highlight=False, markup=False)


def _print_unknown(words: tuple[str, ...]) -> None:
    from flows.cli.ui import out

    if words:
        out.print(f"Words the model has never read: {', '.join(words)}", markup=False, style="yellow")
