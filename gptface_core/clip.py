"""How well a caption fits a face: the cosine of CLIP's two vectors (Radford et al., ICML 2021), by open_clip.

`find_clip` turns `MODEL:PRETRAINED` into weights that are there, before any work begins; `ClipScorer` loads them.
Weights are safetensors or plain tensors (no pickled code), every one of them must fit: nothing is left as initialised.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from gptface_core.errors import InputError

_CPU_BATCH, _GPU_BATCH = 16, 256
_WAY_OUT = "give MODEL:PRETRAINED, such as ViT-B-32:laion2b_s34b_b79k, or a file: ViT-B-32:weights.safetensors"
_LOAD_ERRORS = (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, AssertionError)


@dataclass(frozen=True)
class ClipWeights:
    """A CLIP whose weights were found. `config`: JSON of open_clip's `model_cfg` and `preprocess_cfg`."""

    name: str
    path: str
    sha256: str
    config: str

    def describe(self) -> str:
        """Architecture, weights and configuration, wherever they lie: `open_clip:ViT-B-32:1f0c2a9b3d4e:5a6b7c8d`."""
        return f"open_clip:{self.name}:{self.sha256[:12]}:{hashlib.sha256(self.config.encode()).hexdigest()[:8]}"


def find_clip(spec: str, cache_dir: Path | None = None) -> ClipWeights:
    """The weights that `MODEL:PRETRAINED` names.

    MODEL is an architecture of open_clip or a JSON file (an architecture as open_clip writes them, or an
    `open_clip_config.json` that also says how pictures are prepared). PRETRAINED is one of open_clip's tags, looked for
    in its cache and then downloaded, or a local file.

    Raises:
        InputError: no such architecture, tag or file, or weights that cannot be downloaded.
    """
    model, _, pretrained = spec.partition(":")
    if not model or not pretrained:
        raise InputError(f"--clip {spec!r}: {_WAY_OUT}")
    import open_clip

    name, architecture, preprocess = _architecture(model)
    tag = open_clip.get_pretrained_cfg(name, pretrained) if not model.endswith(".json") else {}
    if tag:
        path = _downloaded(spec, tag, cache_dir)
        architecture["quick_gelu"] = bool(tag.get("quick_gelu", False))
        preprocess = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in tag}
    else:
        path = Path(pretrained)
        if not path.is_file():
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise InputError(
                f"--clip {spec!r}: {pretrained!r} is neither a file nor a tag of {name} (its tags: {tags}); {_WAY_OUT}"
            )
    config = json.dumps({"model_cfg": architecture, "preprocess_cfg": preprocess}, sort_keys=True)
    return ClipWeights(name, str(path.resolve()), _sha256(path), config)


def _architecture(model: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name, `model_cfg` and `preprocess_cfg` (may be empty)."""
    import open_clip

    if not model.endswith(".json"):
        found = open_clip.get_model_config(model) if ":" not in model else None
        if found is None:
            raise InputError(f"--clip: open_clip has no architecture {model!r}; {_WAY_OUT} (or MODEL a JSON file)")
        return model, dict(found), {}
    try:
        document = json.loads(Path(model).read_text("utf-8"))
        architecture, preprocess = document.get("model_cfg", document), document.get("preprocess_cfg", {})
        complete = all(isinstance(architecture[key], kind) for key, kind in _ARCHITECTURE_KEYS.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"--clip: {model} cannot be read as an architecture ({_line(error)})") from error
    if not complete:
        raise InputError(f"--clip: {model} is no architecture of open_clip: it needs {', '.join(_ARCHITECTURE_KEYS)}")
    return Path(model).stem, dict(architecture), dict(preprocess)


_ARCHITECTURE_KEYS: dict[str, type] = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}


def _downloaded(spec: str, tag: dict[str, Any], cache_dir: Path | None) -> Path:
    from open_clip.pretrained import download_pretrained

    try:
        found = download_pretrained(tag, cache_dir=None if cache_dir is None else str(cache_dir))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--clip {spec!r}: its weights are not at hand and cannot be downloaded ({_line(error)}); "
            "fetch them elsewhere and give the file: MODEL:/path/to/weights.safetensors"
        ) from error
    if not found or not Path(found).is_file():
        raise InputError(f"--clip {spec!r}: open_clip knows no address for its weights; give a file")
    return Path(found)


def clip_device(name: str) -> torch.device:
    """The device of torch by its name. Raises InputError where it is none, or not on this machine."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"clip device {name!r}: torch knows no such device; choose cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"clip device {name!r}: this machine has no CUDA device that torch can use; choose cpu")
    return device


class ClipScorer:
    """A loaded CLIP. Not shared between threads; on a CPU it takes as many as torch is set to.

    Raises InputError where the device is not to be had, or the weights are not those of the architecture.
    """

    def __init__(self, weights: ClipWeights, device: str = "cpu") -> None:
        self._device = clip_device(device)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH
        self._model, self._tokenize, self._prepare = _load(weights, self._device)

    def see(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors float32 (N, D) of pictures, uint8 (H, W, 3) RGB each."""
        from PIL import Image

        def prepare(crop: NDArray[np.uint8]) -> torch.Tensor:
            prepared: torch.Tensor = self._prepare(Image.fromarray(crop))
            return prepared

        return self._vectors(crops, lambda some: torch.stack([prepare(c) for c in some]), self._model.encode_image)

    def read(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 (N, D) of texts; what is longer than the model's context is cut off."""
        return self._vectors(captions, lambda some: self._tokenize(list(some)), self._model.encode_text)

    def _vectors(self, items: Sequence[Any], prepare: Any, encode: Any) -> NDArray[np.float32]:
        found = []
        with torch.inference_mode():
            for start in range(0, len(items), self._batch):
                chunk = prepare(items[start : start + self._batch]).to(self._device)
                found.append(encode(chunk, normalize=True).float().cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)


def _load(weights: ClipWeights, device: torch.device) -> tuple[Any, Any, Any]:
    """Model, tokenizer, and the preparation of a PIL picture."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = json.loads(weights.config)
    # open_clip knows architectures by name: this one gets a name of its own, which keeps what its tokenizers go by.
    name = f"{weights.name}-gptface-{hashlib.sha256(weights.config.encode()).hexdigest()[:16]}"
    logging.getLogger("timm").setLevel(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.json"
            file.write_text(json.dumps(config["model_cfg"]), "utf-8")
            open_clip.add_model_config(file)
        model = open_clip.create_model(
            name, weights.path, require_pretrained=True, force_preprocess_cfg=config["preprocess_cfg"]
        )
        tokenize = open_clip.get_tokenizer(name)
    except (*_LOAD_ERRORS, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(
            f"{weights.path} cannot be loaded as a {weights.name} of open_clip ({_line(error)}): "
            "give the architecture that it was trained with"
        ) from error
    prepare = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return model.to(device).eval().requires_grad_(False), tokenize, prepare


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: BaseException) -> str:
    """The first line of an error, not longer than a line should be."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[:2])[:200] if lines else type(error).__name__
