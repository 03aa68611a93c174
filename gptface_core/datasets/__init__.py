"""Labelled sets of faces with their official splits, for evaluation and for corpora. See docs/datasets.md.

Nothing is downloaded: each loader reads the folder in which a user has unpacked a data set, and says in one line what
is missing, whose site has it and where it belongs.
"""

from gptface_core.datasets.faceset import EXPRESSION, FaceItem, FaceSet
from gptface_core.datasets.framing import align, load_pictures
from gptface_core.datasets.registry import LOADERS, load_faces

__all__ = ["EXPRESSION", "LOADERS", "FaceItem", "FaceSet", "align", "load_faces", "load_pictures"]
