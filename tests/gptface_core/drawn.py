"""A corpus of drawn faces with labels, as a build of the sample web would leave it, without a build."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sample_web.captions import contradiction, sample_wording, true_claim, write
from sample_web.render import Attributes, render_face, sample_attributes

SIDE_PX = 64
SEED = 11


def attributes_of(number: int) -> Attributes:
    return replace(sample_attributes(number, SEED), face_mask=False, yaw_deg=0.0, roll_deg=0.0)


def row_id_of(number: int) -> str:
    return hashlib.blake2b(f"drawn {number}".encode(), digest_size=16).hexdigest()


def label_of(number: int) -> dict[str, Any]:
    attributes = attributes_of(number)
    wording = sample_wording(attributes, number)
    claim = true_claim(attributes, wording)
    return {
        "row_id": row_id_of(number),
        "true_caption": write(claim, wording),
        "contradicting_caption": write(contradiction(claim, number), wording),
        **{name: getattr(attributes, name) for name in ("eyeglasses", "beard", "hair_colour", "smiling")},
    }


def write_drawn_corpus(folder: Path, train: int, val: int, test: int) -> tuple[Path, Path]:
    """Shards and labels: (shards, labels)."""
    shards = folder / "shards"
    shards.mkdir(parents=True)
    index, number = {}, 0
    labels: list[dict[str, Any]] = []
    for split, count in {"train": train, "val": val, "test": test}.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for _ in range(count):
                label = label_of(number)
                for extension, data in _files(number, label["true_caption"]).items():
                    info = tarfile.TarInfo(f"{label['row_id']}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                labels.append(label)
                number += 1
        name = f"{split}-00000.tar"
        (shards / name).write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        shard = {"file": name, "sha256": digest, "samples": count, "bytes": len(buffer.getvalue())}
        index[split] = {"samples": count, "shards": [shard]}
    document = {"version": 1, "release": 1, "crop_px": SIDE_PX, "splits": index}
    (shards / "index.json").write_text(json.dumps(document))
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    return shards, folder / "labels.parquet"


def _files(number: int, caption: str) -> dict[str, bytes]:
    buffer = io.BytesIO()
    picture = render_face(attributes_of(number), number, SIDE_PX)
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return {"jpg": buffer.getvalue(), "json": b"{}", "txt": caption.encode()}
