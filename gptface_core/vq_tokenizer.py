"""Published VQ weights as an image tokenizer: the LlamaGen family (Sun et al. 2024), in transformers' JanusVQVAE.

A source is a folder of a JanusVQVAE or of a whole Janus model, a weight file as LlamaGen publishes it
(`vq_ds16_c2i.pt`, loaded without pickle), or the name of such a model on the Hub. Codes have no coordinates, so the
transformer learns their embeddings from nothing.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gptface_core.config import ImageTokenizerConfig
from gptface_core.errors import InputError
from gptface_core.image_tokenizer import load_weights, numbers, read_settings, weights_digest, write_tokenizer

WAY_OUT = (
    "name a folder of a JanusVQVAE or Janus model, a LlamaGen weight file (.pt, .safetensors), or a model on the Hub"
)
_SLOTS = 4096  # compared with all codes at a time: 256 MiB of similarities for 16,384 codes
# LlamaGen's names -> those of transformers; the modules are the same.
_RENAMED = (
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"^decoder\.conv_blocks\.", "decoder.up."),
    (r"\.res\.", ".block."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)


class VQTokenizer(nn.Module):
    """As `ImageTokenizer`: `encode` and `decode` between pictures, float (B, 3, P, P) in [0, 1], and codes (B, G*G)."""

    def __init__(self, config: ImageTokenizerConfig, vq: Any) -> None:
        super().__init__()
        patch = 2 ** (len(vq.config.channel_multiplier) - 1)
        if config.image_px != patch * config.grid:
            raise InputError(
                f"tokenizer {config.source} has patches of {patch} px, image_px {config.image_px} with grid "
                f"{config.grid} of {config.patch_px}: choose grid {config.image_px // patch}"
            )
        self.config = dataclasses.replace(config, levels=())
        self.vq = vq.eval().requires_grad_(False)

    @property
    def codes(self) -> int:
        return int(self.vq.config.num_embeddings)

    @property
    def device(self) -> torch.device:
        return self.vq.quant_conv.weight.device

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, P, P) -> codes (B, G*G), row by row.

        The nearest code by angle, as LlamaGen trained it. transformers' own `encode` compares lengths as well, which
        agrees only for a codebook of unit vectors.
        """
        latent = self.vq.quant_conv(self.vq.encoder(2 * pictures - 1))
        vectors = F.normalize(latent.flatten(2).transpose(1, 2).flatten(0, 1), dim=-1)
        book = F.normalize(self.vq.quantize.embedding.weight, dim=-1)
        nearest = [(part @ book.T).argmax(-1) for part in vectors.split(_SLOTS)]
        return torch.cat(nearest).view(len(pictures), -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, G*G) -> pictures (B, 3, P, P) in [0, 1]."""
        vectors = F.normalize(self.vq.quantize.embedding(codes), dim=-1).transpose(1, 2)
        latent = vectors.unflatten(2, (self.config.grid, self.config.grid))
        return ((self.vq.decoder(self.vq.post_quant_conv(latent)) + 1) / 2).clamp(0, 1)

    def digest(self) -> str:
        """32 hex digits over shape and weights, whatever they were loaded from."""
        return weights_digest({"image_px": self.config.image_px, "grid": self.config.grid}, self.vq)

    def describe(self) -> dict[str, Any]:
        """What it is, for a log or a report."""
        return {"kind": "vq", "source": self.config.source, **numbers(self)}

    def save(self, folder: Path, **extra: Any) -> None:
        """Weights and settings into `folder`: `load` needs no source and no network."""
        settings = {"config": dataclasses.asdict(self.config), "vq": self.vq.config.to_diff_dict()}
        write_tokenizer(folder, self.vq, {"kind": "vq", **settings, **extra})

    @classmethod
    def load(cls, folder: Path) -> VQTokenizer:
        """Raises InputError where `folder` holds no tokenizer of this kind, or one of another version."""
        from transformers import JanusVQVAE, JanusVQVAEConfig

        settings = read_settings(folder)
        if settings.get("kind") != "vq":
            raise InputError(f"{folder} holds an image tokenizer of kind '{settings.get('kind')}', not vq")
        vq = JanusVQVAE(JanusVQVAEConfig(**settings["vq"]))
        load_weights(vq, folder)
        return cls(ImageTokenizerConfig(**{**settings["config"], "levels": ()}), vq)


def open_vq(config: ImageTokenizerConfig) -> VQTokenizer:
    """The published tokenizer that `config.source` names. Raises InputError where it cannot be had, or does not fit."""
    path = Path(config.source)
    try:
        vq = _from_llamagen(path) if path.is_file() else _from_transformers(config.source)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"tokenizer.source '{config.source}' cannot be loaded ({reason}): {WAY_OUT}") from error
    return VQTokenizer(config, vq)


def _from_transformers(source: str) -> Any:
    """A JanusVQVAE by folder or name; of a whole Janus model the part that draws."""
    from transformers import JanusVQVAE, JanusVQVAEConfig

    settings = JanusVQVAEConfig.from_pretrained(source)
    vq, report = JanusVQVAE.from_pretrained(
        source, config=settings, key_mapping={r"^model\.vqmodel\.": ""}, output_loading_info=True
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise InputError(f"tokenizer.source '{source}' holds no JanusVQVAE: {WAY_OUT}")
    return vq


def _from_llamagen(path: Path) -> Any:
    from transformers import JanusVQVAE

    if path.suffix == ".safetensors":
        loaded: Mapping[str, Any] = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A training checkpoint holds the averaged weights as "ema", the last ones as "model".
    weights = next((loaded[name] for name in ("ema", "model", "state_dict") if name in loaded), loaded)
    renamed = {_renamed(name): tensor for name, tensor in weights.items() if name != "quantize.codebook_used"}
    vq = JanusVQVAE(_settings_of(renamed))
    vq.load_state_dict(renamed)
    return vq


def _renamed(name: str) -> str:
    for old, new in _RENAMED:
        name = re.sub(old, new, name)
    return name


def _settings_of(weights: Mapping[str, Tensor]) -> Any:
    """The JanusVQVAEConfig that weights of these shapes belong to; KeyError where they are of another kind."""
    from transformers import JanusVQVAEConfig

    base = weights["encoder.conv_in.weight"].shape[0]
    pattern = re.compile(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv2\.weight")
    blocks = [match for name in weights if (match := pattern.fullmatch(name))]
    widths = {int(match[1]): weights[match[0]].shape[0] for match in blocks}
    codes, dim = weights["quantize.embedding.weight"].shape
    return JanusVQVAEConfig(
        base_channels=base,
        channel_multiplier=[widths[level] // base for level in sorted(widths)],
        num_res_blocks=1 + max(int(match[2]) for match in blocks),
        latent_channels=weights["quant_conv.weight"].shape[1],
        num_embeddings=codes,
        embed_dim=dim,
    )
