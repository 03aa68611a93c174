"""Going on from a trained model on other data: its weights, image tokenizer and vocabulary, in a folder of its own.

The parent must have the preset's shape. Its words keep their ids; words that it never read come after them, with new
embeddings and the bias of its rarest word, so the image codes move up in the table. Training goes straight to the main
stage: what the stages before it are for, the parent has learnt.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gptface_core.config import Preset
from gptface_core.errors import InputError
from gptface_core.image_tokenizer import read_settings
from gptface_core.model import SPECIALS, GPTFace, GPTFaceConfig, check_version

WEIGHTS = "model.safetensors"
_SHAPE = ("layers", "width", "heads", "mlp_ratio", "projection_dim", "max_text_tokens")


@dataclass(frozen=True)
class Parent:
    """A trained model to go on from. `digest`: of its weights; `words`: size of its text vocabulary."""

    folder: Path
    digest: str
    words: int

    @property
    def name(self) -> str:
        return self.folder.name


def open_parent(folder: Path | str, preset: Preset, out: Path) -> Parent:
    """Raises InputError where `folder` is no finished model, has another shape than `preset`, or is `out` itself."""
    folder = Path(folder)
    check_version(folder)
    if folder.resolve() == out.resolve():
        raise InputError(f"{folder} cannot go on from itself: give the new model another name")
    config = GPTFaceConfig.from_pretrained(folder)
    if differences := _differences(config, read_settings(folder), preset):
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise InputError(
            f"cannot go on from {folder}: {differences[0]}{more}; choose the preset that it was trained with, or train "
            "from nothing"
        )
    digest = hashlib.blake2b((folder / WEIGHTS).read_bytes(), digest_size=16).hexdigest()
    return Parent(folder, digest, config.text_vocab_size)


def _differences(config: GPTFaceConfig, settings: dict[str, Any], preset: Preset) -> list[str]:
    """In words, where the parent's shape is not the preset's."""
    wanted, tokenizer = asdict(preset.model), asdict(preset.tokenizer)
    pairs = [(f"model.{name}", getattr(config, name), wanted[name]) for name in _SHAPE]
    pairs.append(("tokenizer.kind", settings.get("kind"), tokenizer["kind"]))
    # A published tokenizer brings its own levels and width; where it was loaded from does not matter.
    names = ("image_px", "grid", "levels", "width", "blocks") if tokenizer["kind"] == "fsq" else ("image_px", "grid")
    pairs += [(f"tokenizer.{name}", settings["config"].get(name), _plain(tokenizer[name])) for name in names]
    return [
        f"its {name} is {theirs}, that of preset '{preset.name}' is {ours}"
        for name, theirs, ours in pairs
        if theirs != ours
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@torch.no_grad()
def adopt(model: GPTFace, parent: Parent) -> None:
    """Give `model`, new and of the same shape with at least the parent's words, the parent's weights."""
    weights, own = load_file(parent.folder / WEIGHTS), model.state_dict()
    first_new, added = SPECIALS + parent.words, model.config.text_vocab_size - parent.words
    table, bias = weights["table.weight"], weights["text_bias"]
    fresh = own["table.weight"][first_new : first_new + added].cpu()
    weights["table.weight"] = torch.cat([table[:first_new], fresh, table[first_new:]])
    weights["text_bias"] = torch.cat([bias, bias.min().expand(added)])
    model.load_state_dict(weights)
