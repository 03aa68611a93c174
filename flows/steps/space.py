"""A full disk, by whatever words a library says so, as one line that names the folder and the way out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
# How DuckDB, SQLite, safetensors and a child process say it, whose errors have no errno.
_SIGNS = ("no space left on device", "disk is full", "disk quota exceeded", "not enough free space")


class DiskFullError(OSError):
    """The disk under `folder` is full: one line, as users see it."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"No space left under {folder}: free some there and start the same command again, what is finished is kept"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, says that a disk (or somebody's share of it) is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DiskFullError) or (isinstance(error, OSError) and error.errno in _ERRNOS):
            return True
        if any(sign in str(error).lower() for sign in _SIGNS):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def told_if_full(root: Path) -> Iterator[None]:
    """Raise DiskFullError in place of any error that a full disk caused.

    It names `root`, or the folder of the file that could not be written where that lies elsewhere (a temporary one).
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not is_disk_full(error):
            raise
        raise DiskFullError(str(_elsewhere(error, root) or root)) from error


def _elsewhere(error: Exception, root: Path) -> Path | None:
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or not Path(name).is_absolute():
        return None
    folder = Path(name).resolve().parent
    return None if folder.is_relative_to(root.resolve()) else folder
