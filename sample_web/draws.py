"""Numbers that depend on a key alone: the same on any machine, in any process, in any order of asking."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def uniforms(*key: int | str, count: int) -> list[float]:
    """`count` numbers in [0, 1), spread evenly, from SHAKE-128 of the key."""
    digest = hashlib.shake_128("/".join(map(str, key)).encode()).digest(4 * count)
    return [word / 2**32 for word in struct.unpack(f">{count}I", digest)]


def seed_of(*key: int | str) -> int:
    """A seed of 63 bits from the key."""
    return int.from_bytes(hashlib.shake_128("/".join(map(str, key)).encode()).digest(8), "big") >> 1


def pick(options: Sequence[_T], u: float) -> _T:
    """The option at share `u` of the sequence; u in [0, 1)."""
    return options[int(u * len(options))]


def shuffled(options: Sequence[_T], *key: int | str) -> list[_T]:
    """The options in an order that the key decides."""
    order = uniforms("shuffled", *key, count=len(options))
    return [options[i] for i in sorted(range(len(options)), key=order.__getitem__)]
