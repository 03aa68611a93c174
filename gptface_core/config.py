"""Presets: every number that shapes a model and its training, as frozen dataclasses. Unknown keys are errors."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gptface_core.errors import InputError

FORMAT_VERSION = 1  # of a model folder; raised whenever an older folder could be misread
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImageTokenizerConfig:
    """Pictures of `image_px` squared <-> `grid` squared codes.

    Kind "fsq" has prod(levels) codes and is trained here, or taken from the model folder that `source` names; "vq" is a
    published one (`gptface_core.vq_tokenizer`) that brings its own number, and `levels`, `width` and `blocks` are not
    used.
    """

    image_px: int = 64
    grid: int = 8
    levels: tuple[int, ...] = (8, 8, 4)
    width: int = 128
    blocks: int = 2  # residual blocks on each side of the quantiser
    kind: str = "fsq"  # or "vq"
    source: str = ""  # a trained model's folder; of kind "vq": a folder, a LlamaGen weight file, a name on the Hub

    def __post_init__(self) -> None:
        if self.image_px % self.grid:
            raise InputError(f"image_px {self.image_px} is no multiple of grid {self.grid}: choose another grid")
        if self.kind not in ("fsq", "vq"):
            raise InputError(f"no tokenizer.kind '{self.kind}': choose fsq (trained here) or vq (published weights)")
        if self.kind == "vq" and not self.source:
            raise InputError(
                "tokenizer.kind 'vq' needs a tokenizer.source: a folder, a LlamaGen weight file or a name on the Hub"
            )
        if self.kind == "fsq" and min(self.levels) < 2:
            raise InputError(f"levels {list(self.levels)}: every quantiser level must be at least 2")

    @property
    def codes(self) -> int:
        """Of kind "fsq"; ask the tokenizer itself where the kind is not known."""
        return math.prod(self.levels)

    @property
    def patch_px(self) -> int:
        return self.image_px // self.grid


@dataclass(frozen=True)
class ArchitectureConfig:
    """The transformer."""

    layers: int = 3
    width: int = 64
    heads: int = 4
    mlp_ratio: int = 4
    projection_dim: int = 64
    max_text_tokens: int = 32
    vocabulary: str = "pruned"  # to the corpus, or "full" (CLIP's 49,408)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"width {self.width} is no multiple of heads {self.heads}: choose another number of heads")
        if self.vocabulary not in ("pruned", "full"):
            raise InputError(f"no vocabulary '{self.vocabulary}': choose pruned or full")


@dataclass(frozen=True)
class MaskingConfig:
    """The law by which slots are hidden (PAPER: our choice where the paper's is unknown)."""

    image_share: float = 0.5  # of samples: image slots alone; `text_share`: text alone; the rest: both
    text_share: float = 0.25
    text_ratio: float = 0.15
    span_p: float = 0.2  # Geometric, SpanBERT
    span_cap: int = 10
    whole_caption: float = 0.1
    block_share: float = 0.5  # of image masks: rectangles, else scattered
    block_ratio: tuple[float, float] = (0.15, 0.6)
    block_area_min: int = 4
    block_aspect: tuple[float, float] = (0.3, 3.3)


@dataclass(frozen=True)
class TokenizerTraining:
    steps: int = 700
    batch: int = 16
    learning_rate: float = 5e-3
    gradient_weight: float = 0.3  # of the multi-scale gradient loss
    validate_every: int = 1000


@dataclass(frozen=True)
class PretrainTraining:
    modelling_steps: int = 150  # masked modelling alone
    warmup_steps: int = 100  # then InfoNCE alone
    warmup_batch: int = 64
    steps: int = 280  # then all four losses
    milm_batch: int = 64
    itm_batch: int = 24
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    clip: float = 1.0
    schedule_warmup: float = 0.05
    weight_image: float = 1.0  # lambda_v
    weight_itm: float = 0.5  # lambda_m
    weight_itc: float = 0.3
    label_smoothing: float = 0.1
    itm_masked_share: float = 0.5  # of the pairs that the matching loss sees
    opposed_share: float = 0.0  # of mismatched captions: true but for one attribute, where captions name attributes
    validate_every: int = 100
    validation_rows: int = 128
    accumulate: int = 1  # parts that a batch is cut into, one after the other; contrast then spans a part
    ema_decay: float = 0.0  # of the moving average of the weights in the last stage; 0: none

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise InputError(f"accumulate {self.accumulate}: choose at least 1")
        if not 0 <= self.opposed_share <= 1:
            raise InputError(f"opposed_share {self.opposed_share}: choose from 0 (captions at random) to 1")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay {self.ema_decay}: choose from 0 (none) to below 1, such as 0.999")


@dataclass(frozen=True)
class Preset:
    name: str = "demo"
    tokenizer: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)
    model: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    tokenizer_training: TokenizerTraining = field(default_factory=TokenizerTraining)
    training: PretrainTraining = field(default_factory=PretrainTraining)
    augment: int = 1  # views of each training picture on disk: the first as it is, the others cropped and flipped
    threads: int = 2  # of the CPU: results are the same bit for bit only for the same number

    def __post_init__(self) -> None:
        if not 1 <= self.augment <= 64:
            raise InputError(f"augment {self.augment}: choose from 1 (pictures as they are) to 64 views")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class RunOptions:
    """How a training is run, not what is trained: with other options the same checkpoints go on.

    device: auto (CUDA where there is any, else the CPU), cpu or cuda.
    precision: auto (bf16 on CUDA, else fp32), bf16 or fp32.
    compile: torch.compile of the blocks; None: on CUDA alone.
    checkpoint_every, checkpoint_minutes: steps, or time, after which a stage is saved, whichever comes first.
    spike_sigmas: a loss so many robust standard deviations above the running median ends the training; 0: never.
    peak_tflops: of the device, for MFU; 0: as known for its name.
    wandb: send losses (no pictures, no captions) to Weights & Biases as well.
    """

    device: str = "auto"
    precision: str = "auto"
    compile: bool | None = None
    checkpoint_every: int = 1000
    checkpoint_minutes: float = 10.0
    spike_sigmas: float = 20.0
    peak_tflops: float = 0.0
    wandb: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("device", ("auto", "cpu", "cuda")), ("precision", ("auto", "bf16", "fp32"))):
            if getattr(self, name) not in choices:
                raise InputError(f"no {name} '{getattr(self, name)}': choose {', '.join(choices)}")
        if self.checkpoint_every < 1:
            raise InputError(f"checkpoint_every {self.checkpoint_every}: choose at least 1")
        for name in ("checkpoint_minutes", "spike_sigmas", "peak_tflops"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)}: choose at least 0")


def _presets() -> dict[str, Preset]:
    long_run = PretrainTraining(
        modelling_steps=1000, warmup_steps=1000, steps=8000, milm_batch=64, itm_batch=64, learning_rate=1e-3
    )
    return {
        "demo": Preset(),
        "tiny": Preset(
            "tiny",
            model=ArchitectureConfig(layers=4, width=128, heads=4, projection_dim=128),
            tokenizer_training=TokenizerTraining(steps=2000),
            training=dataclasses.replace(long_run, steps=3000),
        ),
        "mini": Preset(
            "mini",
            tokenizer=ImageTokenizerConfig(levels=(8, 5, 5, 5), width=256, blocks=3),
            model=ArchitectureConfig(layers=6, width=256, heads=8, projection_dim=128),
            tokenizer_training=TokenizerTraining(steps=6000, learning_rate=1e-3),
            training=dataclasses.replace(long_run, modelling_steps=500, warmup_steps=500, steps=1500, itm_batch=32),
        ),
        "small": Preset(
            "small",
            tokenizer=ImageTokenizerConfig(128, 16, (8, 5, 5, 5), width=384, blocks=4),
            model=ArchitectureConfig(layers=8, width=512, heads=8, projection_dim=256, vocabulary="full"),
            tokenizer_training=TokenizerTraining(steps=20000, batch=128, learning_rate=5e-4),
            training=dataclasses.replace(long_run, steps=30000, milm_batch=128, itm_batch=128, learning_rate=5e-4),
        ),
        "base": Preset(
            "base",
            tokenizer=ImageTokenizerConfig(256, 16, (8, 5, 5, 5), width=512, blocks=6),
            model=ArchitectureConfig(12, 768, 12, projection_dim=256, max_text_tokens=75, vocabulary="full"),
            tokenizer_training=TokenizerTraining(steps=100000, batch=128, learning_rate=2e-4),
            training=dataclasses.replace(long_run, steps=200000, milm_batch=256, itm_batch=256, learning_rate=2e-4),
        ),
    }


def load_preset(preset: str | Path | Preset) -> Preset:
    """A preset by name, from a JSON file (`{"preset": "demo", "training": {"steps": 9}}`), or as it is.

    Raises InputError for an unknown name, an unreadable file or an unknown key.
    """
    if isinstance(preset, Preset):
        return preset
    presets = _presets()
    if str(preset) in presets:
        return presets[str(preset)]
    if not str(preset).endswith(".json"):
        raise InputError(f"no preset '{preset}': choose {', '.join(presets)} or a .json file")
    try:
        values = json.loads(Path(preset).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"preset file {preset} cannot be read: {error}") from error
    base = presets.get(str(values.pop("preset", "demo"))) if isinstance(values, dict) else None
    if base is None:
        raise InputError(f"preset file {preset}: 'preset' must be one of {', '.join(presets)}")
    return override(base, values)


def override(config: _T, values: Mapping[str, Any], where: str = "") -> _T:
    """`config` with the values replaced, section by section; an unknown key is an InputError that lists the known."""
    known = {f.name for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"unknown key '{where}{key}': choose one of {', '.join(sorted(known))}")
        old = getattr(config, key)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise InputError(f"key '{where}{key}' must be a table of values, not {value!r}")
            changes[key] = override(old, value, f"{where}{key}.")
        else:
            changes[key] = _fit(value, old, f"{where}{key}")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _fit(value: Any, old: Any, name: str) -> Any:
    """`value` in the type of the default it replaces: JSON has lists for tuples and integers for floats."""
    if isinstance(old, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, bool) is isinstance(value, bool) and isinstance(value, type(old)):
        return value
    raise InputError(f"key '{name}' must be a {type(old).__name__}, not {value!r}")
