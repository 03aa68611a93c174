"""A judge of expressions that has never seen the model: the small network on pixels, trained on FER2013 Training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gptface_core.datasets import FaceSet, load_pictures
from gptface_core.evaluation.attribute_classifier import SIDE_PX, VERSION, Network, fit
from gptface_core.files import replacing
from gptface_core.image_tokenizer import batches
from gptface_core.shards import Pictures, shrink
from gptface_core.tokens import to_tensor


@dataclass(frozen=True)
class ExpressionJudge:
    """`classes` in the order of its logits."""

    network: nn.Module
    classes: tuple[str, ...]

    @torch.no_grad()
    def predict(self, pictures: list[Pictures]) -> npt.NDArray[np.str_]:
        """The likeliest expression of each picture (P, P, 3) of any size; colour is taken away, as in training."""
        small = np.stack([_grey(shrink(picture, SIDE_PX)) for picture in pictures])
        logits = torch.cat([self.network(to_tensor(small[rows])) for rows in batches(len(small), 128)])
        return np.asarray(self.classes)[logits.argmax(1).numpy()]


def trained_judge(train: FaceSet, folder: Path, steps: int) -> ExpressionJudge:
    """As `folder` holds it for this training set and so many steps, else trained and kept there."""
    told = json.dumps([train.name, [item.id for item in train.items], train.class_numbers().tolist(), VERSION, steps])
    path = folder / f"expression-judge-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}.safetensors"
    network = Network(len(train.classes))
    if path.is_file():
        network.load_state_dict(load_file(path))
    else:
        targets = torch.from_numpy(train.class_numbers())[:, None]
        fit(network, load_pictures(train, SIDE_PX, folder), targets, [len(train.classes)], steps)
        with replacing(path) as temporary:
            save_file(network.state_dict(), temporary)
    return ExpressionJudge(network.eval(), train.classes)


def _grey(picture: Pictures) -> Pictures:
    """Luma (BT.601), in three equal channels."""
    luma = picture @ np.array([0.299, 0.587, 0.114])
    return np.repeat(luma.round().astype(np.uint8)[..., None], 3, 2)
