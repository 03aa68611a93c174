"""A CLIP small enough to be trained here on drawn faces in seconds: its architecture and weights as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sample_web.captions import contradiction, sample_wording, true_claim, write
from sample_web.render import Attributes, render_face, sample_attributes

SEED = 11
CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
_MEAN, _STD = np.float32(0.45), np.float32(0.27)  # about open_clip's own


def drawn(index: int) -> tuple[Attributes, NDArray[np.uint8]]:
    attributes = sample_attributes(index, SEED)
    return attributes, render_face(attributes, index, 64)


def captions_of(attributes: Attributes, index: int) -> tuple[str, str]:
    """A true caption and its contradiction, in the same words but for what they claim."""
    wording = sample_wording(attributes, SEED, index)
    claim = true_claim(attributes, wording)
    return write(claim, wording), write(contradiction(claim, SEED, index), wording)


def write_tiny_clip(folder: Path, faces: int = 600, steps: int = 90, batch: int = 48) -> tuple[Path, Path]:
    """Train by InfoNCE on `faces` drawn faces with true captions; the paths of config.json and weights.safetensors."""
    from open_clip import get_tokenizer
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    pairs = [drawn(index) for index in range(faces)]
    pictures = torch.from_numpy(np.stack([picture for _, picture in pairs])).permute(0, 3, 1, 2).float()
    pictures = (pictures / 255 - _MEAN) / _STD
    texts = get_tokenizer("", context_length=24)([captions_of(a, i)[0] for i, (a, _) in enumerate(pairs)])
    model = CLIP(**CONFIG)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        some = torch.randint(faces, (batch,))
        seen, read, scale = model(pictures[some], texts[some])
        logits = scale.clamp(max=50) * seen @ read.T
        right = torch.arange(batch)
        loss = torch.nn.functional.cross_entropy(logits, right) + torch.nn.functional.cross_entropy(logits.T, right)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    config, weights = folder / "tiny.json", folder / "weights.safetensors"
    config.write_text(json.dumps(CONFIG))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    return config, weights
