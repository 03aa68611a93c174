"""The contrastive baseline: a small open_clip model trained from nothing on a corpus's shards, within a stated budget.

`python -m bench.contrastive SHARDS OUT --minutes 60`: a ViT of the shape of preset mini (6 layers of width 256 on
64 px, 8 px patches) and a text transformer of 4 layers, ClipLoss over batches of 128, AdamW, cosine; pictures flipped
where their captions mention no side. OUT holds weights (safetensors) and contrastive.json with steps, samples, seconds.
`bench.real_data --contrastive OUT` probes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.augment import mentions_side
from gptface_core.datasets import FaceSet, load_pictures
from gptface_core.errors import InputError
from gptface_core.files import replacing, write_text
from gptface_core.image_tokenizer import batches
from gptface_core.shards import Pictures, ShardIndex, open_index, read_shard
from gptface_core.tokens import decode_split, to_tensor

logger = logging.getLogger("bench.contrastive")
SETTINGS, WEIGHTS = "contrastive.json", "contrastive.safetensors"
SIZE_PX, CELLS = 64, 4
SHAPE = {
    "embed_dim": 128,
    "vision": {"layers": 6, "width": 256, "head_width": 32, "patch_size": 8, "image_size": SIZE_PX},
    "text": {"context_length": 32, "width": 256, "heads": 8, "layers": 4},
}
BATCH, LEARNING_RATE, WEIGHT_DECAY, WARMUP = 128, 1e-3, 0.1, 0.05


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000, help="the cosine's length")
    parser.add_argument("--minutes", type=float, default=60.0, help="of processor time a thread: ends it earlier")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    try:
        print(
            json.dumps(
                train(options.shards, options.out, options.steps, options.minutes, options.seed, options.precision)
            )
        )
    except InputError as error:
        logger.error("%s", error)
        return 2
    return 0


def build(shape: dict[str, Any]) -> Any:
    """An open_clip model of this shape; its picture tower also gives the patches' states."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(**shape["vision"], output_tokens=True)
    return CLIP(shape["embed_dim"], vision, CLIPTextCfg(**shape["text"]))


def train(
    shards: Path, out: Path, steps: int, minutes: float, seed: int = 0, precision: str = "fp32"
) -> dict[str, Any]:
    """Train on the train split and write OUT; returns what was spent. Raises InputError for damaged shards."""
    if steps < 1 or minutes <= 0:
        raise InputError(f"--steps {steps} --minutes {minutes}: choose at least 1, and above 0")
    index = open_index(shards)
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 0xC117])
    captions, pictures = _corpus(index)
    text = _tokens(captions, SHAPE["text"]["context_length"])  # type: ignore[index]
    flippable = np.array([not mentions_side(caption) for caption in captions])
    model = build(SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    started, processor = time.monotonic(), time.process_time()
    told, order, losses = started, np.zeros(0, np.int64), []
    for step in range(1, steps + 1):
        while len(order) < BATCH:
            order = np.concatenate([order, rng.permutation(len(captions))])
        rows, order = order[:BATCH], order[BATCH:]
        flip = flippable[rows] & (rng.random(BATCH) < 0.5)
        losses.append(_step(model, optimizer, pictures[rows], text[rows], flip, precision))
        schedule.step()
        now = time.monotonic()
        if now - told > 10 or step == steps:
            told = now
            logger.info("step %d of %d: loss %.4f, %.0f s", step, steps, np.mean(losses[-50:]), now - started)
        if time.process_time() - processor > 60 * minutes * torch.get_num_threads():
            break
    spent = {
        "shards": index.digest(),
        "steps": len(losses),
        "planned_steps": steps,
        "samples": len(losses) * BATCH,
        "seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "final_loss": float(np.mean(losses[-50:])),
        "seed": seed,
        "precision": precision,
    }
    _save(model, out, spent)
    return {"bench": "contrastive", **spent}


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    rgb: Pictures,
    text: Tensor,
    flip: npt.NDArray[Any],
    precision: str,
) -> float:
    from open_clip.loss import ClipLoss

    views = np.where(flip[:, None, None, None], rgb[:, :, ::-1], rgb)
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        image, words = model.visual(_normalised(views))[0], model.encode_text(text)
    # Never in bf16: the temperature would blow up its steps.
    features = (F.normalize(vectors.float(), dim=-1) for vectors in (image, words))
    loss = ClipLoss()(*features, model.logit_scale.exp())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))  # as CLIP does
    return float(loss.detach())


def _rate(step: int, steps: int) -> float:
    start = max(1, round(WARMUP * steps))
    if step < start:
        return (step + 1) / start
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, steps - start)))


def _corpus(index: ShardIndex) -> tuple[list[str], Pictures]:
    shards = index.splits["train"]
    return [sample.caption for shard in shards for sample in read_shard(shard)], decode_split(shards, SIZE_PX)


def _tokens(captions: list[str], context: int) -> Tensor:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context)(captions)


def _normalised(rgb: npt.NDArray[Any]) -> Tensor:
    return (to_tensor(rgb) - 0.5) / 0.5


def _save(model: Any, out: Path, spent: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    with replacing(out / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    write_text(out / SETTINGS, json.dumps({"shape": SHAPE, "spent": spent}, indent=1))


class ContrastiveEncoder:
    """Its picture tower, frozen: the embedding, and the patches' states over 4 x 4 cells as ours are pooled."""

    name = "contrastive (open_clip)"

    def __init__(self, folder: Path, pictures: Path | None = None) -> None:
        from safetensors.torch import load_file

        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            self._model = build(settings["shape"])
            self._model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(f"{folder} holds no contrastive model ({reason}): run bench.contrastive first") from error
        self._model.eval()
        self._pictures = pictures
        spent = settings["spent"]
        self.description = f"{spent['steps']} steps of {BATCH}, {spent['processor_seconds']:.0f} s of processor time"
        self.key = f"contrastive {hashlib.blake2b((folder / WEIGHTS).read_bytes(), digest_size=16).hexdigest()}"

    @torch.no_grad()
    def encode(self, faces: FaceSet) -> npt.NDArray[np.float32]:
        rgb, parts = load_pictures(faces, SIZE_PX, self._pictures), []
        for rows in batches(len(rgb), 128):
            embedding, states = self._model.visual(_normalised(rgb[rows]))
            side = math.isqrt(states.shape[1])
            cells = F.adaptive_avg_pool2d(states.transpose(1, 2).unflatten(2, (side, side)), CELLS).flatten(1)
            parts.append(torch.cat([embedding, cells], 1).float().numpy())
        return np.concatenate(parts)


if __name__ == "__main__":
    sys.exit(main())
