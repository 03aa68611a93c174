"""GPTFace: masked image and language modelling over faces and their captions, image-text matching, guided editing.

Importing this package loads nothing heavy: `gptface_core.faces` stays usable without torch or transformers. The model
itself is `gptface_core.GPTFace` (a `transformers.PreTrainedModel`), loaded at first use, as are its classifiers and its
processor. `register()` makes them known to transformers' `AutoConfig`, `AutoModel` and `AutoProcessor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptface_core.errors import InputError

if TYPE_CHECKING:
    from gptface_core.heads import GPTFaceForAttributes, GPTFaceForExpression
    from gptface_core.model import GPTFace, GPTFaceConfig
    from gptface_core.processor import GPTFaceProcessor

__all__ = [
    "GPTFace",
    "GPTFaceConfig",
    "GPTFaceForAttributes",
    "GPTFaceForExpression",
    "GPTFaceProcessor",
    "InputError",
    "register",
]

_HOMES = {
    "GPTFace": "model",
    "GPTFaceConfig": "model",
    "GPTFaceForAttributes": "heads",
    "GPTFaceForExpression": "heads",
    "GPTFaceProcessor": "processor",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"gptface_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Let transformers' Auto classes load GPTFace folders. Explicit, since it changes transformers; once is enough."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    from gptface_core.model import GPTFace, GPTFaceConfig
    from gptface_core.processor import GPTFaceProcessor

    AutoConfig.register(GPTFaceConfig.model_type, GPTFaceConfig, exist_ok=True)
    AutoModel.register(GPTFaceConfig, GPTFace, exist_ok=True)
    AutoProcessor.register(GPTFaceConfig, GPTFaceProcessor, exist_ok=True)
