"""A real file system of a few MiB that a test can fill up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.flows.test_recrawl_e2e import InlineRunner

T = TypeVar("T")


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size` (as mount writes it) at `folder`; the test is skipped where nothing can be mounted."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small file system needs root on Linux")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


class FillingRunner(InlineRunner):
    """Fills the disk, to the last byte, as soon as the step `full_at` begins (or a training's stage tells itself)."""

    def __init__(self, disk: Path) -> None:
        self._filler = disk / "filler"
        self.full_at = ""

    def free(self) -> None:
        self.full_at = ""
        self._filler.unlink(missing_ok=True)

    def _reached(self, name: str) -> None:
        if name != self.full_at or self._filler.exists():
            return
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))

    def step(self, name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._reached(name)
        return super().step(name, fn, *args, **kwargs)

    def map(self, name: str, fn: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        self._reached(name)
        return super().map(name, fn, items)

    def progress(self, name: str, done: float, total: float | None, note: str = "") -> None:
        self._reached(name)
