"""What an evaluation has measured so far, on disk: a run that was stopped goes on there, a larger one skips it.

One JSON file per benchmark, written when it ends, and until then an npz file per chunk of its faces. Both name their
key; what has another one is measured anew. A benchmark that draws from the suite's one stream of random numbers also
has to meet it where it was, and leaves it where it went.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gptface_core
from gptface_core.bundle import Bundle
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.rows import RowValues
from gptface_core.files import replacing, write_text
from gptface_core.image_tokenizer import weights_digest
from gptface_core.shards import ShardIndex

Arrays = dict[str, npt.NDArray[Any]]  # all of as many rows as there are faces, `shown` pictures apart
Stream = Mapping[str, Any]  # the state of a numpy bit generator


@dataclass(frozen=True)
class Record:
    """What one benchmark left: `before` and `after` are where the suite's random stream stood."""

    figures: list[Figure]
    rows: RowValues
    left_out: dict[str, str]
    pictures: list[str]
    seconds: float
    before: Stream
    after: Stream


class KeptWork:
    """The work on one benchmark: its record, and its chunks while it is under way."""

    def __init__(self, folder: Path, name: str, key: Mapping[str, Any]) -> None:
        self._record, self._chunks = folder / f"{name}.json", folder / name
        self._key = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()

    def load(self, stream: Stream) -> Record | None:
        """The finished benchmark, where it has this key and the stream would give it the same numbers."""
        try:
            found = json.loads(self._record.read_text("utf-8"))
            if found.pop("key") != self._key:
                return None
            record = Record(**{**found, "figures": [Figure(**figure) for figure in found["figures"]]})
        except (OSError, ValueError, KeyError, TypeError):  # none, or not ours: measured anew
            return None
        return record if record.before in (record.after, stream) else None

    def save(self, record: Record) -> None:
        """Write the record; its chunks are not needed any more."""
        write_text(self._record, json.dumps({"key": self._key, **asdict(record)}))
        shutil.rmtree(self._chunks, ignore_errors=True)

    def chunk(self, name: str) -> Arrays | None:
        try:
            with np.load(self._chunks / f"{name}.npz", allow_pickle=False) as file:
                arrays = dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return arrays if str(arrays.pop("key", "")) == self._key else None

    def save_chunk(self, name: str, arrays: Arrays) -> None:
        with replacing(self._chunks / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, key=np.array(self._key), **arrays)

    def forget(self) -> None:
        self._record.unlink(missing_ok=True)
        shutil.rmtree(self._chunks, ignore_errors=True)


def key_of(bundle: Bundle, index: ShardIndex, labels: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """What every figure depends on: the model, the faces and what is known of them, the seed, this package's source."""
    settings = {name: value for name, value in bundle.model.config.to_dict().items() if name != "_name_or_path"}
    return {
        "model": weights_digest(settings, bundle.model),
        "image_tokenizer": bundle.image.digest(),
        "text_tokenizer": bundle.text.digest(),
        "shards": index.digest(),
        "labels": hashlib.blake2b(json.dumps(labels, sort_keys=True).encode(), digest_size=16).hexdigest(),
        "seed": seed,
        "code": code_digest(),
    }


def code_digest() -> str:
    """32 hex digits over this package's Python files: a version number stays while sampling or a metric changes."""
    folder, state = Path(gptface_core.__file__).parent, hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*.py")):
        state.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return state.hexdigest()
