"""Batches drawn on the host: rows in order, masks, captions; ahead of the training step and with a state to save."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from gptface_core.objectives import Indices

AHEAD = 2  # batches drawn before they are asked for
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """A batch after masking: ids as the model sees them (B, L), (B, N), and what was there before."""

    text: Tensor
    image: Tensor
    text_before: Tensor
    image_before: Tensor
    text_hidden: Tensor
    image_hidden: Tensor

    def rows(self, start: int, stop: int) -> Pairs:
        return Pairs(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    def to(self, device: torch.device) -> Pairs:
        return Pairs(*(_to(getattr(self, f.name), device) for f in fields(self)))


@dataclass(frozen=True)
class PairBatch:
    """What a step of the transformer learns from; a part that a stage does not use is None.

    `rows`: their numbers in the token set. `milm`: matched pairs, masked. `itm`: pairs to match and contrast, and
    `matched` (B,); `same` (B, B) is True where picture i has caption j. Of a larger batch this is a part: the part's
    mean times `shares[loss]` (its share of the slots or rows), summed over the parts, is the mean of the whole.
    `same` stays whole; the rows of this part begin at `first`.
    """

    rows: Indices
    milm: Pairs | None = None
    itm: Pairs | None = None
    matched: Tensor | None = None
    same: Tensor | None = None
    shares: tuple[tuple[str, float], ...] = ()
    first: int = 0

    def split(self, parts: int) -> list[PairBatch]:
        """Equal parts in order: for processes, whose contrast still spans the whole."""
        return [self] if parts == 1 else [self._part(part, parts) for part in range(parts)]

    def cut(self, parts: int) -> list[PairBatch]:
        """Equal parts for gradient accumulation: contrast spans one part alone, all else is as in the whole."""
        return [self] if parts == 1 else [part._alone(parts) for part in self.split(parts)]

    def _part(self, part: int, parts: int) -> PairBatch:
        shares, first = dict(self.shares), self.first
        milm, itm, matched = self.milm, self.itm, self.matched
        if self.milm is not None:
            size = len(self.milm.text) // parts
            milm = self.milm.rows(part * size, (part + 1) * size)
            for name, mine, whole in (
                ("mlm", milm.text_hidden, self.milm.text_hidden),
                ("mim", milm.image_hidden, self.milm.image_hidden),
            ):
                shares[name] = shares.get(name, 1.0) * float(mine.sum()) / max(1.0, float(whole.sum()))
        if self.itm is not None:
            size = len(self.itm.text) // parts
            itm = self.itm.rows(part * size, (part + 1) * size)
            matched = None if self.matched is None else self.matched[part * size : (part + 1) * size]
            first += part * size
            shares |= {name: shares.get(name, 1.0) / parts for name in ("itm", "itc")}
        return replace(self, milm=milm, itm=itm, matched=matched, shares=tuple(shares.items()), first=first)

    def _alone(self, parts: int) -> PairBatch:
        if self.same is None or self.itm is None:
            return self
        rows = slice(self.first, self.first + len(self.itm.text))
        return replace(self, same=self.same[rows, rows], first=0)

    def to(self, device: torch.device) -> PairBatch:
        if device.type == "cpu":
            return self
        moved = {n: v.to(device) for n in ("milm", "itm") if (v := getattr(self, n)) is not None}
        moved |= {n: _to(v, device) for n in ("matched", "same") if (v := getattr(self, n)) is not None}
        return replace(self, **moved)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class Shuffled:
    """Row numbers in batches of `size`, epoch after epoch, each epoch in an order of its own."""

    def __init__(self, count: int, size: int, rng: np.random.Generator) -> None:
        self._count, self._size, self._rng = count, size, rng
        self.pool = np.zeros(0, np.int64)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Indices:
        while len(self.pool) < self._size:
            self.pool = np.concatenate([self.pool, self._rng.permutation(self._count)])
        rows, self.pool = self.pool[: self._size], self.pool[self._size :]
        return rows


T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands: its generator (plain data) and what is left of each epoch's order."""

    generator: dict[str, Any]
    pools: tuple[Indices, ...]


class Source(Protocol[T_co]):
    """What batches are drawn from."""

    def draw(self) -> T_co: ...
    def state(self) -> StreamState: ...
    def restore(self, state: StreamState) -> None: ...


class Stream(Generic[T]):
    """Batches made by `make` from one generator and the orders that draw on it."""

    def __init__(self, rng: np.random.Generator, orders: tuple[Shuffled, ...], make: Callable[[], T]) -> None:
        self._rng, self._orders, self._make = rng, orders, make

    def draw(self) -> T:
        return self._make()

    def state(self) -> StreamState:
        """The state now. Orders are cut, never written into, so no copy is needed."""
        return StreamState(dict(self._rng.bit_generator.state), tuple(order.pool for order in self._orders))

    def restore(self, state: StreamState) -> None:
        self._rng.bit_generator.state = state.generator
        for order, pool in zip(self._orders, state.pools, strict=True):
            order.pool = pool


@dataclass(frozen=True)
class Drawn(Generic[T]):
    """A batch, the state of its stream after it, and how long it was waited for."""

    batch: T
    state: StreamState
    waited_s: float


@contextmanager
def ahead(source: Source[T], count: int) -> Iterator[Iterator[Drawn[T]]]:
    """`count` batches drawn by a thread, at most `AHEAD` early; an error of the thread is raised to who waits for it.

    One thread draws, so the order of draws and the numbers are those of drawing in place.
    """
    ready: queue.Queue[tuple[T, StreamState] | BaseException] = queue.Queue(AHEAD)
    over = threading.Event()

    def put(item: tuple[T, StreamState] | BaseException) -> None:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for _ in range(count):
                if over.is_set():
                    return
                put((source.draw(), source.state()))
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            put(error)

    def taken() -> Iterator[Drawn[T]]:
        for _ in range(count):
            started = time.perf_counter()
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield Drawn(*item, time.perf_counter() - started)

    thread = threading.Thread(target=work, name="batches-ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        over.set()
        thread.join()
