"""Checks of this machine and environment, each with the way to mend what is wrong."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_SETUP = "make setup (or: pip install --no-deps -r requirements.lock)"
_MIN_FREE_GIB = 5.0


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"  # works without it
    BAD = "bad"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report; `mend` is empty where nothing is to be done."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


def examine(root: Path, pack: str = "buffalo_sc") -> Iterator[Check]:
    """All checks, the quick ones first."""
    yield check_python()
    yield check_packages()
    yield check_backport()
    yield check_opencv()
    yield check_duckdb()
    yield check_detector(pack)
    yield check_gpu()
    yield check_providers()
    yield check_disk(root)
    yield check_embeddings(root)
    yield check_prefect()


def check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Check("Python", Verdict.OK, found)
    return Check("Python", Verdict.BAD, found, "use Python 3.11 or 3.12: make clean; make setup PYTHON=python3.12")


def check_packages(distribution: str = "gptface") -> Check:
    """Every requirement of ours is installed in an allowed version."""
    from packaging.requirements import Requirement

    wrong = []
    requirements = [Requirement(line) for line in metadata.requires(distribution) or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} (needs {requirement.specifier})")
    if wrong:
        return Check("Packages", Verdict.BAD, "; ".join(wrong), _SETUP)
    return Check("Packages", Verdict.OK, f"{len(needed)} requirements met")


def check_backport() -> Check:
    """The back-port package `dataclasses` shadows the standard library in Prefect's server."""
    if not _installed("dataclasses"):
        return Check("Back-port trap", Verdict.OK, "package `dataclasses` absent")
    found = "package `dataclasses` is installed: Prefect's server will not start"
    return Check("Back-port trap", Verdict.BAD, found, "pip uninstall dataclasses")


def check_opencv() -> Check:
    """`opencv-python` and `opencv-python-headless` own the same folder, and version 5 has no Haar cascades."""
    mend = "pip uninstall opencv-python opencv-python-headless; " + _SETUP
    if _installed("opencv-python"):
        return Check("OpenCV trap", Verdict.BAD, "opencv-python is installed beside the headless one", mend)
    try:
        import cv2
    except ImportError as error:
        return Check("OpenCV trap", Verdict.BAD, f"cv2 does not import: {error}", mend)
    cascades = getattr(getattr(cv2, "data", None), "haarcascades", "")
    if not (cascades and Path(cascades, "haarcascade_frontalface_alt2.xml").is_file()):
        return Check("OpenCV trap", Verdict.BAD, f"OpenCV {cv2.__version__} has no Haar cascades", mend)
    return Check("OpenCV trap", Verdict.OK, f"headless {cv2.__version__} alone, with its cascades")


def check_duckdb() -> Check:
    import duckdb

    from warehouse.errors import InputError
    from warehouse.lake import load_extension

    con = duckdb.connect(":memory:")
    try:
        for name in ("ducklake", "sqlite_scanner"):
            load_extension(con, name)
    except (InputError, duckdb.Error) as error:
        return Check("DuckLake", Verdict.BAD, str(error).splitlines()[0], _SETUP)
    finally:
        con.close()
    return Check("DuckLake", Verdict.OK, f"DuckDB {duckdb.__version__} with its extensions, no download needed")


def check_detector(pack: str) -> Check:
    from gptface_core.errors import InputError
    from gptface_core.faces.packs import find_embedder, find_pack, how_to_get, pack_folder

    if not pack_folder(pack).is_dir():
        return Check("InsightFace", Verdict.NOTE, f"no pack {pack!r}: auto takes OpenCV's cascade", how_to_get(pack))
    try:
        found = find_pack(pack)
    except InputError as error:
        return Check("InsightFace", Verdict.BAD, str(error), how_to_get(pack))
    detector = f"pack {pack!r}, {found.detector.name} {found.sha256[:8]}"
    try:
        embedder, _ = find_embedder(pack)
    except InputError:
        return Check("InsightFace", Verdict.OK, f"{detector}, no recogniser (only --embed needs one)")
    return Check("InsightFace", Verdict.OK, f"{detector}, recogniser {embedder.name}")


def check_gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", Verdict.OK, torch.cuda.get_device_name(0))
    mend = "none needed for presets demo and tiny; mini takes CPU hours, small and base want a GPU"
    return Check("GPU", Verdict.NOTE, f"none (torch {torch.__version__}, {os.cpu_count()} CPU cores)", mend)


def check_providers() -> Check:
    """What onnxruntime can run faces on; a GPU that torch sees is none to it without its own build."""
    import onnxruntime
    import torch

    providers = onnxruntime.get_available_providers()
    found = f"{onnxruntime.__version__} with {', '.join(providers)} (--provider of build)"
    if torch.cuda.is_available() and "CUDAExecutionProvider" not in providers:
        mend = "to find faces on the GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu"
        return Check("onnxruntime", Verdict.NOTE, found, mend)
    return Check("onnxruntime", Verdict.OK, found)


def check_disk(root: Path) -> Check:
    folder = root.absolute()
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free / 2**30
    found = f"{free_gib:.0f} GiB free for {root}"
    if not os.access(folder, os.W_OK):
        return Check("Disk", Verdict.BAD, f"{folder} is not writable", "choose another --root")
    if free_gib < _MIN_FREE_GIB:
        return Check("Disk", Verdict.NOTE, found, "raw pictures take about 0.1 MiB each: choose another --root")
    return Check("Disk", Verdict.OK, found)


def check_embeddings(root: Path) -> Check:
    """Biometric data of this root, and when they go: whoever opens the root next deletes what has expired."""
    from datetime import UTC, datetime

    from flows.steps.embeddings import expiry_times

    times = expiry_times(root)
    if not times:
        return Check("Embeddings", Verdict.OK, "no face embeddings (biometric data) are stored")
    over = sum(time <= datetime.now(UTC) for time in times)
    found = f"{len(times)} files of face embeddings (biometric data), the next goes {min(times):%Y-%m-%d}"
    if over:
        mend = "gptface takedown, build, train or rebuild on this root deletes them"
        return Check("Embeddings", Verdict.NOTE, f"{found}; {over} have expired", mend)
    return Check("Embeddings", Verdict.NOTE, found, "none needed: they are deleted then by the next build or takedown")


def check_prefect() -> Check:
    address = os.environ.get("PREFECT_API_URL", "")
    if not address:
        return Check("Prefect", Verdict.NOTE, "PREFECT_API_URL is not set", "gptface up starts a server and prints it")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=3) as answer:
            healthy = answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        healthy = False
    if healthy:
        return Check("Prefect", Verdict.OK, f"server answers at {address}")
    return Check("Prefect", Verdict.BAD, f"nothing answers at {address}", "gptface up, or unset PREFECT_API_URL")


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
