"""A corpus and a preset so small that a whole training takes seconds."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from gptface_core.config import Preset, load_preset, override

SPLITS = {"train": 24, "val": 6, "test": 8}


def micro_preset() -> Preset:
    return override(
        load_preset("demo"),
        {
            "name": "micro",
            "threads": 1,
            "tokenizer": {"image_px": 32, "grid": 4, "levels": [4, 4], "width": 16, "blocks": 1},
            "model": {"layers": 1, "width": 16, "heads": 2, "projection_dim": 8, "max_text_tokens": 12},
            "tokenizer_training": {"steps": 6, "batch": 8},
            "training": {
                "modelling_steps": 3,
                "warmup_steps": 3,
                "warmup_batch": 8,
                "steps": 4,
                "milm_batch": 8,
                "itm_batch": 8,
            },
        },
    )


def write_corpus(folder: Path) -> tuple[Path, Path]:
    """Shards of two-coloured squares with captions that name the colour, and their labels: (shards, labels)."""
    shards, labels = folder / "shards", []
    shards.mkdir(parents=True)
    index: dict[str, object] = {}
    number = 0
    for split, count in SPLITS.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for _ in range(count):
                red = bool(number % 2)
                row_id = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
                caption, contrary = (f"a {'red' if r else 'blue'} face number {number % 5}" for r in (red, not red))
                for extension, data in (("jpg", _jpeg(number, red)), ("txt", caption.encode()), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{row_id}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                hair = "red" if red else "black"
                truth = {"true_caption": caption, "contradicting_caption": contrary, "hair_colour": hair}
                labels.append({"row_id": row_id, **truth, "eyeglasses": red, "beard": not red, "smiling": red})
                number += 1
        name = f"{split}-00000.tar"
        (shards / name).write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        shard = {"file": name, "sha256": digest, "samples": count, "bytes": len(buffer.getvalue())}
        index[split] = {"samples": count, "shards": [shard]}
    (shards / "index.json").write_text(json.dumps({"version": 1, "release": 3, "crop_px": 64, "splits": index}))
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    return shards, folder / "labels.parquet"


def _jpeg(number: int, red: bool) -> bytes:
    rng = np.random.default_rng(number)
    picture = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
    picture[16:48, 16:48] += np.array([180, 20, 20] if red else [20, 20, 180], np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
