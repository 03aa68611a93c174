"""Files wherever they lie: local paths, http(s):// and s3:// through fsspec, globs, compression told by content.

Nothing here holds a whole file: remote files are read in ranges of some MiB, compressed ones are decompressed as they
are read.
"""

from __future__ import annotations

import glob
import io
import os
import re
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

from crawler.compression import DamagedError, Members, compression_kind
from crawler.errors import InputError
from crawler.sources.base import Unit

__all__ = ["DamagedError", "expand", "is_remote", "is_transport_error", "open_binary", "open_raw", "sniff"]

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_REMOTE_BLOCK_BYTES = 4 << 20  # of one range request
_BUFFER_BYTES = 256 << 10
_RETRY_WAITS_S = (0.5, 2.0)
_CHECKSUMS = ("ETag", "etag", "Last-Modified", "LastModified", "mtime")


def is_remote(address: str) -> bool:
    """True for KIND://..., file:// apart."""
    return bool(_SCHEME.match(address)) and not address.lower().startswith("file://")


def expand(pattern: str) -> list[Unit]:
    """The files that `pattern` names (globs with *, ? and [...]; ** is any depth), in order of name.

    Local names are absolute. The fingerprint is size with time of change or entity tag; "" where the server tells
    neither. Raises InputError where there is no such file.
    """
    pattern = pattern.strip()
    units = _expand_remote(pattern) if is_remote(pattern) else _expand_local(_local(pattern))
    if not units:
        raise InputError(f"no file matches {pattern}: check the path and the pattern")
    return units


def open_raw(address: str) -> BinaryIO:
    """The bytes as stored, seekable where the file system can. Raises InputError where it cannot be opened."""
    try:
        if not is_remote(address):
            return Path(_local(address)).open("rb")
        # readahead holds one range and no more: files are read from front to back.
        opened = _file_system(address).open(address, "rb", block_size=_REMOTE_BLOCK_BYTES, cache_type="readahead")
        return cast(BinaryIO, io.BufferedReader(_Remote(opened), _BUFFER_BYTES))
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError | ValueError) or is_transport_error(error):
            raise _unreadable(address, error) from error
        raise


def open_binary(address: str) -> BinaryIO:
    """The bytes, decompressed (gzip, zstd, lz4, bzip2 by their first bytes, whatever the name says).

    Plain files stay seekable. Reading raises DamagedError where the file is broken; opening raises InputError.
    """
    raw = open_raw(address)
    kind = sniff(raw, address)
    return raw if kind is None else cast(BinaryIO, io.BufferedReader(Members(raw, kind), _BUFFER_BYTES))


def sniff(raw: BinaryIO, address: str) -> str | None:
    """The compression of a seekable stream, which then stands at its beginning; None: plain. Raises InputError."""
    try:
        head = raw.read(4)
        raw.seek(0)
    except Exception as error:
        if isinstance(error, OSError | ValueError) or is_transport_error(error):
            raise _unreadable(address, error) from error
        raise
    return compression_kind(head)


def _local(address: str) -> str:
    path = address[len("file://") :] if address.lower().startswith("file://") else address
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - links stay as the user named them


def _expand_local(pattern: str) -> list[Unit]:
    names = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    found = ((name, Path(name)) for name in names)
    return [Unit(name, _local_fingerprint(path)) for name, path in found if path.is_file()]


def _local_fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _expand_remote(pattern: str) -> list[Unit]:
    system = _file_system(pattern)
    scheme = pattern.partition("://")[0] + "://"
    wild = "*" in pattern or (("[" in pattern or "?" in pattern) and not _is_http(pattern))  # ? begins a query
    try:
        if wild:
            found = cast("dict[str, dict[str, Any]]", system.glob(pattern, detail=True))
            infos = {name if "://" in name else scheme + name: info for name, info in sorted(found.items())}
        else:
            infos = {pattern: system.info(pattern)}
        return [
            Unit(name, _remote_fingerprint(info if info.get("size") is not None else system.info(name)))
            for name, info in infos.items()
            if info.get("type", "file") == "file"
        ]
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec says the same of a server that is away
        if isinstance(cause, Exception) and is_transport_error(cause) and getattr(cause, "status", 0) not in {404, 410}:
            raise _unreadable(pattern, cause) from error
        return []
    except Exception as error:
        if isinstance(error, OSError | ValueError) or is_transport_error(error):
            raise _unreadable(pattern, error) from error
        raise


def _remote_fingerprint(info: dict[str, Any]) -> str:
    sums = (str(info[name]).strip('"') for name in _CHECKSUMS if info.get(name))
    return next((f"{info.get('size') or 0}-{mark}" for mark in sums), "")


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _file_system(address: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)[0]
    except ImportError as error:
        raise InputError(f"cannot open {address}: {_line(error)}") from error
    except ValueError as error:
        raise InputError(f"cannot open {address}: {_line(error)}; give a path, https:// or s3://") from error


def is_transport_error(error: Exception) -> bool:
    """Errors of aiohttp and botocore share no base with OSError."""
    return type(error).__module__.partition(".")[0] in {"aiohttp", "botocore", "aiobotocore", "fsspec"}


def _unreadable(address: str, error: Exception) -> InputError:
    return InputError(f"cannot read {address}: {_line(error)}")


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class _Remote(io.RawIOBase):
    """A remote file whose failed ranges are asked for again, and whose many ways to fail are one: DamagedError."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._inner.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self._inner.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        place = self._inner.tell()
        for wait_s in (*_RETRY_WAITS_S, None):
            try:
                data = self._inner.read(len(view))
                break
            except Exception as error:
                if not (isinstance(error, OSError | ValueError) or is_transport_error(error)):
                    raise
                if wait_s is None or not self.seekable():
                    raise DamagedError(f"the transfer broke off at byte {place} ({_line(error)})", place) from error
                time.sleep(wait_s)
                self._inner.seek(place)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()
