"""Where the bytes of a data set's pictures lie: a folder, a zip file, WebDataset tars, or crops cut on the way."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol


class PictureStore(Protocol):
    """Bytes of a picture file by its name within the data set. Not shared between threads."""

    def read(self, file: str) -> bytes: ...


class FolderStore:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, file: str) -> bytes:
        return (self._folder / file).read_bytes()


class ZipStore:
    """Members of one or several zip files; a name is looked for in the order of the files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    @cached_property
    def _homes(self) -> dict[str, zipfile.ZipFile]:
        homes: dict[str, zipfile.ZipFile] = {}
        for path in self._paths:
            archive = zipfile.ZipFile(path)
            for name in archive.namelist():
                homes.setdefault(name, archive)
        return homes

    def names(self) -> list[str]:
        """All members that are files, sorted."""
        return sorted(name for name in self._homes if not name.endswith("/"))

    def read(self, file: str) -> bytes:
        return self._homes[file].read(file)


class TarStore:
    """Members of uncompressed tars: `home` tells in which tar a name lies."""

    def __init__(self, home: Mapping[str, Path]) -> None:
        self._home = home
        self._places: dict[Path, dict[str, tuple[int, int]]] = {}

    def read(self, file: str) -> bytes:
        path = self._home[file]
        if path not in self._places:
            with tarfile.open(path, "r:") as tar:
                self._places[path] = {member.name: (member.offset_data, member.size) for member in tar}
        offset, size = self._places[path][file]
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)


class CropStore:
    """Aligned 256 px crops (JPEG) of another store's pictures, cut by their five points when they are read."""

    def __init__(self, pictures: PictureStore, points: Mapping[str, Sequence[float]]) -> None:
        self._pictures, self._points = pictures, points

    def read(self, file: str) -> bytes:
        from gptface_core.faces.crop import encode_crop

        return encode_crop(self._pictures.read(file), self._points[file])
