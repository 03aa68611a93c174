"""Pictures <-> discrete codes: what every image tokenizer can do, and ours, an auto-encoder with finite scalar
quantisation (FSQ, Mentzer et al. 2023).

FSQ rounds each of a few bounded channels to a fixed set of levels: no codebook to collapse, no commitment loss. The
stem is one linear map per patch, so every layer works at the token grid, where a CPU spends its time in matrix
products rather than in convolutions over many pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from gptface_core.config import FORMAT_VERSION, ImageTokenizerConfig
from gptface_core.errors import InputError
from gptface_core.files import replacing, write_text

WEIGHTS, SETTINGS = "image_tokenizer.safetensors", "image_tokenizer.json"


class PictureTokenizer(Protocol):
    """What the rest of the package asks of an image tokenizer; see `ImageTokenizer` for shapes and units.

    `config.levels` is empty where codes have no FSQ coordinates.
    """

    @property
    def config(self) -> ImageTokenizerConfig: ...

    @property
    def codes(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def encode(self, pictures: Tensor) -> Tensor: ...

    def decode(self, codes: Tensor) -> Tensor: ...

    def digest(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...

    def save(self, folder: Path, **extra: Any) -> None: ...


class FSQ(nn.Module):
    """Finite scalar quantiser: (..., D) real numbers <-> integer codes below prod(levels)."""

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        sizes = torch.tensor(levels)
        self.register_buffer("levels", sizes, persistent=False)
        self.register_buffer("basis", torch.cumprod(torch.cat([torch.ones(1).long(), sizes[:-1]]), 0), persistent=False)

    def quantise(self, z: Tensor) -> Tensor:
        """Rounded coordinates in [-1, 1], with the gradient of the bounded ones (straight-through)."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        # An even number of levels is symmetric only after a shift by half a step (FSQ, section 3).
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def to_codes(self, coordinates: Tensor) -> Tensor:
        steps = (coordinates * (self.levels // 2)).round().long() + self.levels // 2
        return (steps * self.basis).sum(-1)

    def to_coordinates(self, codes: Tensor) -> Tensor:
        steps = (codes[..., None] // self.basis) % self.levels
        half = self.levels // 2
        return (steps - half).float() / half


class ResidualBlock(nn.Module):
    """Depthwise 3x3 convolution, then a two-layer perceptron per position; (B, H, W, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_spatial = nn.LayerNorm(width)
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.spatial(self.norm_spatial(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.down(F.gelu(self.up(self.norm(x)), approximate="tanh"))


class ImageTokenizer(nn.Module):
    """`encode`: pictures -> codes; `decode`: codes -> pictures. Pictures are float (B, 3, P, P) in [0, 1]."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        pixels, width = 3 * config.patch_px**2, config.width
        self.fsq = FSQ(config.levels)
        self.stem = nn.Linear(pixels, width)
        self.encoder = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        self.to_latent = nn.Linear(width, len(config.levels))
        # Unit variance before the quantiser: without it most codes are never used (measured: 15 of 256, with it all).
        self.spread = nn.BatchNorm1d(len(config.levels), affine=False)
        self.from_latent = nn.Linear(len(config.levels), width)
        self.decoder = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        self.head = nn.Linear(width, pixels)

    @property
    def codes(self) -> int:
        return self.config.codes

    @property
    def device(self) -> torch.device:
        return self.stem.weight.device

    def latent(self, pictures: Tensor) -> Tensor:
        """Quantised coordinates (B, G, G, D) with straight-through gradient."""
        p, g = self.config.patch_px, self.config.grid
        patches = pictures.reshape(-1, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(-1, g, g, 3 * p * p)
        latent = self.to_latent(self.encoder(self.stem(2 * patches - 1)))
        return self.fsq.quantise(self.spread(latent.flatten(0, 2)).view_as(latent))

    def from_coordinates(self, coordinates: Tensor) -> Tensor:
        """(B, G, G, D) -> pictures (B, 3, P, P), not clipped (the loss wants the gradient)."""
        p, g = self.config.patch_px, self.config.grid
        patches = self.head(self.decoder(self.from_latent(coordinates)))
        pictures = patches.reshape(-1, g, g, 3, p, p).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, g * p, g * p)
        return (pictures + 1) / 2

    def forward(self, pictures: Tensor) -> Tensor:
        return self.from_coordinates(self.latent(pictures))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, P, P) -> codes (B, G*G), row by row."""
        return self.fsq.to_codes(self.latent(pictures)).flatten(1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, G*G) -> pictures (B, 3, P, P) in [0, 1]."""
        g = self.config.grid
        return self.from_coordinates(self.fsq.to_coordinates(codes).reshape(-1, g, g, len(self.config.levels))).clamp(
            0, 1
        )

    def digest(self) -> str:
        """32 hex digits over configuration and weights: what the tokens on disk are keyed by."""
        return weights_digest(_shape(self.config), self)

    def describe(self) -> dict[str, Any]:
        """What it is, for a log or a report."""
        return {"kind": "fsq", "levels": list(self.config.levels), **numbers(self)}

    def save(self, folder: Path, **extra: Any) -> None:
        """Weights and settings into `folder`, settings last; `extra` goes beside the settings (metrics, keys)."""
        write_tokenizer(folder, self, {"kind": "fsq", "config": _shape(self.config), **extra})

    @classmethod
    def load(cls, folder: Path) -> ImageTokenizer:
        """Raises InputError where `folder` holds no tokenizer, or one of another version."""
        settings = read_settings(folder)
        if settings.get("kind") != "fsq":
            raise InputError(f"{folder} holds an image tokenizer of kind '{settings.get('kind')}', not fsq")
        config = ImageTokenizerConfig(**{**settings["config"], "levels": tuple(settings["config"]["levels"])})
        tokenizer = cls(config)
        load_weights(tokenizer, folder)
        return tokenizer.eval()


def load_image_tokenizer(folder: Path) -> PictureTokenizer:
    """The image tokenizer that a model folder holds, whichever kind. Raises InputError where there is none."""
    if read_settings(folder).get("kind") == "vq":
        from gptface_core.vq_tokenizer import VQTokenizer

        return VQTokenizer.load(folder)
    return ImageTokenizer.load(folder)


def open_trained(config: ImageTokenizerConfig) -> ImageTokenizer:
    """The tokenizer of the model folder `config.source`. Raises InputError where it has another shape, or is none."""
    tokenizer = ImageTokenizer.load(Path(config.source))
    found, wanted = _shape(tokenizer.config), _shape(config)
    if other := [f"{name} {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]]:
        raise InputError(f"tokenizer.source {config.source} has {'; '.join(other)}: take a preset of its shape")
    return tokenizer


def numbers(tokenizer: PictureTokenizer) -> dict[str, Any]:
    """The part of `describe` that all kinds share."""
    config = tokenizer.config
    sizes = {"image_px": config.image_px, "grid": config.grid, "codes": tokenizer.codes}
    return {**sizes, "digest": tokenizer.digest()}


def _shape(config: ImageTokenizerConfig) -> dict[str, Any]:
    """The settings that shape the FSQ auto-encoder."""
    return {name: value for name, value in asdict(config).items() if name not in ("kind", "source")}


def weights_digest(settings: dict[str, Any], module: nn.Module) -> str:
    state = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def write_tokenizer(folder: Path, module: nn.Module, settings: dict[str, Any]) -> None:
    """Weights, then the settings file, which marks them as complete."""
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    settings = {"version": FORMAT_VERSION, **settings}
    write_text(folder / SETTINGS, json.dumps(settings, indent=1, sort_keys=True))


def load_weights(module: nn.Module, folder: Path) -> None:
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read: train the model again") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """The tokenizer's settings file; InputError where it is missing, damaged or of another version."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        version = settings["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no image tokenizer ({SETTINGS}): name the folder of a trained model"
        ) from error
    if version != FORMAT_VERSION:
        raise InputError(f"{folder} has model format {version}, this program reads {FORMAT_VERSION}: train it again")
    return dict(settings)


def reconstruction_loss(output: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """L1 + L2 + L1 of horizontal and vertical differences at three scales: keeps edges such as lips and frames."""
    loss = F.l1_loss(output, target) + F.mse_loss(output, target)
    for scale in (1, 2, 4):
        a, b = (F.avg_pool2d(x, scale) if scale > 1 else x for x in (output, target))
        for dim in (2, 3):
            loss = loss + gradient_weight / 3 * F.l1_loss(a.diff(dim=dim), b.diff(dim=dim))
    return loss


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices that cut `count` rows into runs of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
