"""Decompression of files that are made of members (gzip, zstd, lz4 frames, bzip2), with the place of each member.

Crawl files are compressed record by record: the member's offset is what tells a reader, and a user, where a file broke.
"""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"BZh", "bzip2"),
)
_READ_BYTES = 64 << 10
_ZSTD_READ_BYTES = 256  # its decompressor takes no bound: this many bytes give 8 MiB at the worst
_STEP_BYTES = 1 << 20  # plain bytes at a time


class DamagedError(OSError):
    """An opened file cannot be read on: broken compression, or a transfer or file that ended early.

    `offset`: the byte, as stored, at which the broken member begins; -1 where there is no telling.
    """

    def __init__(self, message: str, offset: int = -1) -> None:
        super().__init__(message)
        self.offset = offset


def compression_kind(head: bytes) -> str | None:
    """gzip, zstd, lz4 or bzip2 by the first four bytes; None: not compressed."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def _new_decompressor(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(zlib.MAX_WBITS | 16)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    if kind == "lz4":
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor()
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


class Members(io.RawIOBase):
    """The plain bytes of a compressed stream from where it stands, member after member, in bounded memory.

    `offset` is where the stream stands. `member_offset` is where the member begins that the bytes last read came from,
    `members` counts those begun. Zero bytes after a member are padding, as for gzip itself. Raises DamagedError.
    """

    def __init__(self, raw: BinaryIO, kind: str, offset: int = 0) -> None:
        self._raw, self._kind = raw, kind
        self._inner: Any = None
        self._input = b""
        self._end = offset  # of what was read from raw; _input is its tail
        self._output = memoryview(b"")
        self._told = 0
        self.member_offset, self.members = offset, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        """Plain bytes given so far."""
        return self._told

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """For readers that ask where they are in this way: to where the stream stands, and nowhere else."""
        if (offset, whence) not in {(0, io.SEEK_CUR), (self._told, io.SEEK_SET)}:
            raise io.UnsupportedOperation("compressed data is read from front to back")
        return self._told

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._output:
            data = self._step()
            if data is None:
                return 0
            self._output = memoryview(data)
        count = min(len(view), len(self._output))
        view[:count] = self._output[:count]
        self._output = self._output[count:]
        self._told += count
        return count

    def next_member(self) -> int:
        """Skip what is left of the member; where the next one begins, or the end of the file. Raises DamagedError."""
        while self._step() is not None and not self._inner.eof:
            pass
        self._output = memoryview(b"")
        return self.member_offset if self._begin_member() else self._end

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _step(self) -> bytes | None:
        """Some plain bytes (perhaps none yet), or None at the end of the file."""
        if (self._inner is None or self._inner.eof) and not self._begin_member():
            return None
        given = self._take() if getattr(self._inner, "needs_input", True) else b""
        if not given and getattr(self._inner, "needs_input", True):
            raise DamagedError(f"the file ends in the middle of a {self._kind} member", self.member_offset)
        try:
            return self._decompress(given)
        except (OSError, EOFError, zlib.error, ValueError, RuntimeError) as error:
            raise DamagedError(f"broken {self._kind} data ({error})", self.member_offset) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"zstandard", "lz4"}:
                raise
            raise DamagedError(f"broken {self._kind} data ({error})", self.member_offset) from error

    def _decompress(self, given: bytes) -> bytes:
        bound = () if self._kind == "zstd" else (_STEP_BYTES,)
        data: bytes = self._inner.decompress(given, *bound)
        if self._inner.eof:
            self._input = self._inner.unused_data or b""
        elif self._kind == "gzip":
            self._input = self._inner.unconsumed_tail
        return data

    def _begin_member(self) -> bool:
        while not (rest := self._input.lstrip(b"\0")):
            self._input = b""
            self._input = self._take()
            if not self._input:
                return False
        self._input = rest
        self.member_offset = self._end - len(rest)
        self.members += 1
        self._inner = _new_decompressor(self._kind)
        return True

    def _take(self) -> bytes:
        given, self._input = self._input, b""
        if not given:
            given = self._raw.read(_ZSTD_READ_BYTES if self._kind == "zstd" else _READ_BYTES)
            self._end += len(given)
        return given
