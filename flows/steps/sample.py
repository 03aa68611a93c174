"""The source `sample:N`: the built-in small web, served on loopback while a build runs, and its truth as labels."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.config import BuildConfig, ConfigError
from flows.steps.layout import Layout

if TYPE_CHECKING:
    from sample_web.server import SampleWeb

logger = logging.getLogger(__name__)

PREFIX = "sample:"
_PORT = 8717  # fixed, so that addresses and with them row ids are the same in every run
_MIN_IMAGES, _MAX_IMAGES = 50, 1_000_000

# Columns of the labels file: what evaluation and the demo ask about a face.
LABELS = ("row_id", "true_caption", "contradicting_caption", "eyeglasses", "beard", "hair_colour", "smiling")


@contextlib.contextmanager
def served(config: BuildConfig) -> Iterator[tuple[BuildConfig, SampleWeb | None]]:
    """The config with a source that can be crawled; for `sample:N` the small web runs while the block does.

    Waits while another build of this user serves one: on other ports it would have other addresses, hence other rows.
    """
    if not config.source.startswith(PREFIX):
        yield config, None
        return
    from sample_web.server import SampleWeb

    count = _count(config.source)
    with _port_lock(), SampleWeb(images=count, seed=0, port=free_port()) as web:
        # Our own server needs no courtesy; loopback is where it is.
        yield dataclasses.replace(config, source=f"site:{web.url}", allow_private=True, page_delay_s=0.0), web


def write_labels(layout: Layout, release: int, web: SampleWeb) -> Path:
    """Join the small web's truth to the release's faces: Parquet with the columns of LABELS, one row per kept face."""
    import pyarrow.parquet as pq

    import warehouse
    from crawler.files import replacing

    target = layout.labels(release)
    with warehouse.connect(layout.root, at=release) as con:
        con.register("truth", web.truth())
        names = ", ".join(name for name in LABELS if name != "row_id")
        query = f"""
            SELECT c.row_id, {names} FROM corpus c JOIN truth t USING (page_url, image_url)
            WHERE t.true_caption IS NOT NULL ORDER BY c.row_id"""
        labels = con.execute(query).to_arrow_table()
    with replacing(target) as temporary:
        pq.write_table(labels, temporary)
    return target


def _count(source: str) -> int:
    text = source.removeprefix(PREFIX)
    if not text.isascii() or not text.isdigit() or not _MIN_IMAGES <= int(text) <= _MAX_IMAGES:
        raise ConfigError(f"source {source!r}: give a number of pictures from {_MIN_IMAGES} to {_MAX_IMAGES:,}")
    return int(text)


@contextlib.contextmanager
def _port_lock() -> Iterator[None]:
    """Hold the fixed ports among the builds of one user; the kernel gives them back however a build ends."""
    path = Path(tempfile.gettempdir()) / f"gptface-sample-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another build serves a sample web: waiting for it to end (lock %s)", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def free_port() -> int:
    """The fixed port where its neighbours are free too, else 0 (any): the same addresses give the same splits."""
    import socket

    for port in range(_PORT, _PORT + 4):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return 0
    return _PORT
