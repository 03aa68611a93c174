"""img2dataset's Downloader as a library: one shard, in this process, with our fetch in place of its own.

`import img2dataset` takes 4 to 10 s, nearly all of it for parts that are not used here: webdataset (torch),
albumentations and wandb. The Downloader itself needs none of them, so its module is loaded alone, as a private copy
under which its fetch can be replaced without touching the package that others may import.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

FetchNext = Callable[[], tuple[int, BytesIO | None, str | None]]
"""() -> (position of the row that ended, its bytes or None, error line or None); must not raise."""


_LOADING = threading.Lock()  # loading stands modules in for others, which two threads must not do at once


class SampleWriter(Protocol):
    """What img2dataset calls with each finished row, from one thread, in the order of completion."""

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@contextmanager
def _standing_in(**modules: types.ModuleType) -> Iterator[None]:
    """Put modules into sys.modules for the block, then put back what was there."""
    names = [name.replace("__", ".") for name in modules]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict(zip(names, modules.values(), strict=True)))
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _load(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_downloader() -> types.ModuleType:
    """A private copy of `img2dataset.downloader`; every call gives a new one."""
    spec = importlib.util.find_spec("img2dataset")  # finds, but does not execute, the package
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("img2dataset is not installed: run `make setup`")
    folder = Path(next(iter(spec.submodule_search_locations)))
    package = types.ModuleType("img2dataset")
    package.__path__ = [str(folder)]
    # Its logger imports wandb, but uses it only when asked to report there.
    wandb = sys.modules.get("wandb") or types.ModuleType("wandb")
    with _LOADING, _standing_in(img2dataset=package, wandb=wandb):
        logger = _load("img2dataset.logger", folder / "logger.py")
        with _standing_in(img2dataset__logger=logger):
            return _load("img2dataset.downloader", folder / "downloader.py")


def _original_bytes(stream: BytesIO, _boxes: object = None) -> tuple[bytes, None, None, None, None, None]:
    """In place of img2dataset's Resizer: the bytes as served (its `disable_all_reencoding`)."""
    return stream.getvalue(), None, None, None, None, None


def download_shard(
    shard: int, rows: Sequence[tuple[str, str]], folder: Path, threads: int, fetch: FetchNext, writer: SampleWriter
) -> None:
    """Run `rows` of (url_id, address) through img2dataset's Downloader with `threads` threads.

    `folder` is a scratch folder for its input shard and statistics. The Downloader hands out rows in the order of
    `rows`; `fetch` takes that as leave to end any one of them, and says which: a row's position is its place in `rows`.
    """
    module: Any = load_downloader()

    def fetch_row(_row: tuple[int, str], **_: object) -> tuple[int, BytesIO | None, str | None]:
        return fetch()

    module.download_image_with_retry = fetch_row
    input_shard = folder / f"{shard}.feather"
    table = pa.table({"url_id": [row[0] for row in rows], "url": [row[1] for row in rows]})
    with pa.ipc.new_file(str(input_shard), table.schema) as sink:
        sink.write_table(table)
    downloader = module.Downloader(
        sample_writer_class=lambda *_: writer,
        resizer=_original_bytes,
        thread_count=threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url_id", "url"],
        timeout=0,
        number_sample_per_shard=max(2, len(rows)),
        oom_shard_count=max(5, math.ceil(math.log10(shard + 1))),
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=None,
    )
    downloader.download_shard((shard, str(input_shard)))
