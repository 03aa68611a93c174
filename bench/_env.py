"""Environments of their own for the tools that a benchmark compares with: none of them is a dependency of ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


def cache_folder() -> Path:
    """Where benchmarks keep environments: GPTFACE_BENCH_CACHE, else gptface-bench in the user's cache folder."""
    named = os.environ.get("GPTFACE_BENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptface-bench"


def baseline_python(name: str, packages: Sequence[str]) -> Path:
    """Python interpreter of an environment with these packages (pip requirements), made on first use.

    Another list of packages or another Python gives another environment. Raises RuntimeError with pip's last line
    where the packages cannot be installed.
    """
    stamp = hashlib.sha256(json.dumps([sys.version, *packages]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{stamp}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return python
    print(f"making an environment for {name} ({', '.join(packages)}) in {folder}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    venv.create(folder, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    answer = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()] or ["no message"]
        raise RuntimeError(f"cannot install {', '.join(packages)} for {name}: {lines[-1]}")
    done.write_text("\n".join(packages))
    return python


def clean_environment() -> dict[str, str]:
    """The environment variables without those that would lead an interpreter to our own packages."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def test_data(*parts: str) -> Path:
    """A file below the folder that GPTFACE_TEST_DATA names; SystemExit with what to do where there is none."""
    root = os.environ.get("GPTFACE_TEST_DATA")
    if not root:
        raise SystemExit("GPTFACE_TEST_DATA is not set: name the folder with the test data (it holds warc/)")
    path = Path(root, *parts)
    if not path.exists():
        raise SystemExit(f"GPTFACE_TEST_DATA names no folder with {'/'.join(parts)}: {root}")
    return path
