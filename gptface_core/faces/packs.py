"""Where InsightFace's model packs lie, and whether what lies there is what it should be.

The library accepts a half-unzipped folder and downloads silently where there is none; so the folder, the file and its
sha256 are checked here first, and the library is given an open session.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gptface_core.errors import InputError
from gptface_core.faces.align import ARCFACE_PX

_LOG = logging.getLogger(__name__)

DEFAULT_PACK = "buffalo_sc"
ROOT_VARIABLE = "GPTFACE_INSIGHTFACE_ROOT"
LICENCE = "InsightFace's model packs are for non-commercial research only (its code is MIT)"
DOWNLOAD_URL = "https://github.com/deepinsight/insightface/releases/download/v0.7/{pack}.zip"

_DET_500M = "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a"
# Detector file and its sha256, of the packs that we know.
KNOWN_PACKS = {"buffalo_sc": ("det_500m.onnx", _DET_500M)}
_W600K_MBF = "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"
KNOWN_EMBEDDERS = {"buffalo_sc": ("w600k_mbf.onnx", _W600K_MBF)}
_DETECTOR_PREFIXES = ("det_", "scrfd_")
_KNOWN_SHA256 = {sha256 for _, sha256 in KNOWN_PACKS.values()}


@dataclass(frozen=True)
class Pack:
    """A checked pack: its name, the detector's file and the sha256 of that file."""

    name: str
    detector: Path
    sha256: str


def pack_folder(pack: str, root: Path | None = None) -> Path:
    """`<root>/models/<pack>`, as InsightFace lays it out; the folder need not exist."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", pack):
        raise InputError(f"'{pack}' is no name of a model pack: use letters, digits, '_', '-' and '.'")
    base = root or Path(os.environ.get(ROOT_VARIABLE) or "~/.insightface")
    return base.expanduser() / "models" / pack


def how_to_get(pack: str, root: Path | None = None) -> str:
    """One line for `doctor` and for errors: what to download and where to put it."""
    folder = pack_folder(pack, root)
    return f"unzip {DOWNLOAD_URL.format(pack=pack)} into {folder} ({LICENCE})"


def find_pack(pack: str = DEFAULT_PACK, root: Path | None = None) -> Pack:
    """The pack, checked.

    Raises:
        InputError: no folder, no detector in it or several, or another sha256 than the known one.
    """
    folder = pack_folder(pack, root)
    if not folder.is_dir():
        raise InputError(
            f"no InsightFace pack '{pack}' at {folder}: {how_to_get(pack, root)}, or use --detector cascade"
        )
    detector = _detector_file(pack, folder)
    sha256 = hashlib.sha256(detector.read_bytes()).hexdigest()
    known = KNOWN_PACKS.get(pack)
    if known and sha256 != known[1]:
        raise InputError(
            f"{detector} is damaged or another version (sha256 {sha256[:8]}, should be {known[1][:8]}): "
            f"{how_to_get(pack, root)}"
        )
    if not known and sha256 not in _KNOWN_SHA256:
        _LOG.warning("detector %s of pack '%s' is not one we know (sha256 %s)", detector.name, pack, sha256[:8])
    return Pack(pack, detector, sha256)


def find_embedder(pack: str = DEFAULT_PACK, root: Path | None = None) -> tuple[Path, str]:
    """The recogniser of a pack and its sha256: its only other model, or of several (buffalo_l has four) the one that
    takes aligned crops and gives a vector.

    Raises:
        InputError: no such file, several, one that is no ONNX model, or another sha256 than the known one.
    """
    find_pack(pack, root)
    folder = pack_folder(pack, root)
    known = KNOWN_EMBEDDERS.get(pack)
    wanted = known[0] if known else "*.onnx"
    files = [path for path in sorted(folder.glob(wanted)) if not path.name.startswith(_DETECTOR_PREFIXES)]
    if len(files) > 1:
        files = [path for path in files if _is_recogniser(path)]
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f"pack '{pack}' at {folder} should hold one recogniser beside its detector, found {found}: embeddings need "
            f"it; {how_to_get(pack, root)}"
        )
    sha256 = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if known and sha256 != known[1]:
        raise InputError(
            f"{files[0]} is damaged or another version (sha256 {sha256[:8]}, should be {known[1][:8]}): "
            f"{how_to_get(pack, root)}"
        )
    return files[0], sha256


def _is_recogniser(path: Path) -> bool:
    """Whether an ONNX model takes crops of ARCFACE_PX and gives one vector each, unlike those of landmarks and age."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(os.fspath(path), load_external_data=False).graph
    except DecodeError as error:
        raise InputError(f"{path} is damaged or no ONNX model: unzip its pack anew") from error
    weights = {tensor.name for tensor in graph.initializer}  # older files list these among the inputs
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        return False
    taken, given = ([side.dim_value for side in value.type.tensor_type.shape.dim] for value in (*inputs, *graph.output))
    return taken[1:] == [3, ARCFACE_PX, ARCFACE_PX] and len(given) == 2


def _detector_file(pack: str, folder: Path) -> Path:
    known = KNOWN_PACKS.get(pack)
    if known:
        files = [folder / known[0]] if (folder / known[0]).is_file() else []
    else:
        files = sorted(path for path in folder.glob("*.onnx") if path.name.startswith(_DETECTOR_PREFIXES))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f"pack '{pack}' at {folder} should hold one detector (det_*.onnx or scrfd_*.onnx), found {found}: "
            f"{how_to_get(pack)}"
        )
    return files[0]
