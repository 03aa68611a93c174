"""GPTFace: masked image and language modelling over faces and their captions, image-text matching, guided editing.

Importing this package loads nothing heavy: `gptface_core.faces` stays usable without torch or transformers. The model
itself is `gptface_core.GPTFace` (a `transformers.PreTrainedModel`), loaded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gptface_core.errors import InputError

if TYPE_CHECKING:
    from gptface_core.model import GPTFace, GPTFaceConfig

__all__ = ["GPTFace", "GPTFaceConfig", "InputError"]


def __getattr__(name: str) -> Any:
    if name in ("GPTFace", "GPTFaceConfig"):
        from gptface_core import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
