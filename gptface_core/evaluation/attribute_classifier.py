"""A judge of edits that has never seen the model: a small network on pixels, trained on original training pictures.

It sees no tokens and no decoded pictures. So that those are not foreign to it, its training pictures are blurred,
made noisy, and scaled down and up again, as any picture of the web might be. Its accuracy on held-out originals, and on
what the tokenizer makes of them (the ceiling for a decoded picture), stands among the results.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from gptface_core.evaluation.calibration import confusion
from gptface_core.evaluation.context import Context, Split
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.labels import ATTRIBUTES, Labels
from gptface_core.evaluation.registry import Benchmark
from gptface_core.files import replacing, write_text
from gptface_core.image_tokenizer import batches
from gptface_core.shards import Pictures, shrink
from gptface_core.tokens import to_tensor

logger = logging.getLogger(__name__)
SIDE_PX = 64
LEAST_FACES = 200
VERSION, _BATCH, _WIDTHS = 1, 64, (24, 48, 96)
Classes = dict[str, list[Any]]
Answers = dict[str, npt.NDArray[Any]]


class Network(nn.Module):
    """(B, 3, 64, 64) in [0, 1] -> logits (B, sum of classes). Where a feature lies counts: 4 x 4 cells, no mean."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, width in enumerate(_WIDTHS):
            side = 3 if number else 5
            convolution = nn.Conv2d(inputs, width, side, stride=2, padding=side // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3))
        self.out = nn.Linear(inputs * 16, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.out(self.trunk((pictures - 0.5) / 0.25))
        return logits


@dataclass(frozen=True)
class AttributeClassifier:
    """`classes`: the values of each attribute, in the order of its logits."""

    network: nn.Module
    classes: Classes

    @torch.no_grad()
    def predict(self, pictures: Sequence[Pictures]) -> Answers:
        """The likeliest value of each attribute, (R,), of pictures (P, P, 3) of any size."""
        self.network.eval()
        small = np.stack([shrink(picture, SIDE_PX) for picture in pictures])
        logits = torch.cat([self.network(to_tensor(small[rows])) for rows in batches(len(small), 128)])
        parts = logits.split([len(values) for values in self.classes.values()], 1)
        chosen = [part.argmax(1).numpy() for part in parts]
        return {
            name: np.asarray(values)[index] for (name, values), index in zip(self.classes.items(), chosen, strict=True)
        }


def trained_classifier(train: Split, truth: Labels, release: str, folder: Path, steps: int) -> AttributeClassifier:
    """The classifier of a release (the digest of its shards): as `folder` holds it, else trained and kept there."""
    rows = [i for i, row_id in enumerate(train.row_ids) if row_id in truth]
    labels = [truth[train.row_ids[i]] for i in rows]
    classes = {name: _values(labels, name) for name in ATTRIBUTES}
    classes = {name: values for name, values in classes.items() if len(values) > 1}
    known = json.dumps([[label[name] for name in ATTRIBUTES] for label in labels]).encode()
    key = hashlib.blake2b(known + f"{release} {VERSION} {steps}".encode(), digest_size=16).hexdigest()
    network = Network(sum(map(len, classes.values())))
    weights, settings = folder / "classifier.safetensors", folder / "classifier.json"
    if settings.is_file() and json.loads(settings.read_text("utf-8")).get("key") == key:
        network.load_state_dict(load_file(weights))
        return AttributeClassifier(network.eval(), classes)
    pictures = np.stack([shrink(train.pictures[i], SIDE_PX) for i in rows])
    targets = torch.tensor([[_index(values, label[name]) for name, values in classes.items()] for label in labels])
    fit(network, pictures, targets, [len(values) for values in classes.values()], steps)
    with replacing(weights) as temporary:
        save_file(network.state_dict(), temporary)
    write_text(settings, json.dumps({"key": key, "classes": classes, "faces": len(rows), "steps": steps}, indent=1))
    return AttributeClassifier(network.eval(), classes)


def _values(labels: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return sorted({label[name] for label in labels if label[name] is not None})


def _index(values: list[Any], value: Any) -> int:
    """-100, which the loss leaves out, where the value is not known."""
    return values.index(value) if value is not None else -100


def fit(network: Network, pictures: Pictures, targets: Tensor, sizes: list[int], steps: int) -> None:
    """AdamW with one cycle of the rate; the order and every distortion come from one seed."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        network.train()
        for step in range(steps):
            rows = rng.integers(len(pictures), size=min(_BATCH, len(pictures)))
            logits = network(distort(to_tensor(pictures[rows]), generator)).split(sizes, 1)
            losses = [F.cross_entropy(part, targets[rows, i], ignore_index=-100) for i, part in enumerate(logits)]
            loss = torch.stack(losses).nansum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 200 == 0:
                logger.info("attribute classifier: step %d of %d, loss %.3f", step, steps, loss.item())


def distort(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, P, P) flipped, shifted, in other light; a part of the batch blurred, of it a part coarse, all noisy."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (1,), generator=generator)

    count, size = len(pictures), pictures.shape[-1]
    flip = uniform(0, 1, count, 1, 1, 1) < 0.5
    pictures = torch.where(flip, pictures.flip(3), pictures)
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    pictures = F.pad(pictures, (3, 3, 3, 3), mode="replicate")[
        ..., 3 + down : 3 + down + size, 3 + right : 3 + right + size
    ]
    # Half of the batch loses detail: through fewer pixels (a third to all of them), then a soft lens.
    half = count // 2
    side = int(uniform(size / 3, size).item())
    small = F.interpolate(pictures[:half], side, mode="area")
    coarse = F.interpolate(small, size, mode="bilinear", align_corners=False)
    soft = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = uniform(0, 1, half, 1, 1, 1)
    pictures = torch.cat([share * soft + (1 - share) * coarse, pictures[half:]])
    light, contrast = uniform(-0.08, 0.08, count, 3, 1, 1), uniform(0.85, 1.15, count, 1, 1, 1)
    noise = torch.randn(pictures.shape, generator=generator) * uniform(0, 0.06, count, 1, 1, 1)
    return ((pictures - 0.5) * contrast + 0.5 + light + noise).clamp(0, 1)


def run(context: Context) -> list[Figure]:
    """Its accuracy on held-out originals, and on the tokenizer's reconstructions of them."""
    truth, split = context.truth, context.split(context.options.split)
    assert truth is not None
    rows = context.labelled(context.options.split)[:1000]
    if not rows:
        return []
    originals = split.pictures[rows]
    pictures = {"": originals, "_reconstructed": context.bundle.decode(split.codes[rows])}
    figures = []
    for suffix, seen in pictures.items():
        answers = context.classifier.predict(list(seen))
        for name, said in answers.items():
            labels = np.array([truth[split.row_ids[row]][name] for row in rows])
            most = max(float((labels == value).mean()) for value in context.classifier.classes[name])
            table = confusion(labels.astype(str), said.astype(str))
            metric = f"accuracy_{name}{suffix}"
            figures.append(context.share(BENCHMARK.name, metric, said == labels, baseline=most, **table))
    return figures


BENCHMARK = Benchmark(
    "attribute_classifier", ("full",), run, needs=("labels", "classifier"), options=("classifier_steps",)
)
