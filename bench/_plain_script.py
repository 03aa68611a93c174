"""What a competent user would write without us: img2dataset, a FaceAnalysis loop, a pandas filter, a shard writer.

`bench.e2e` runs it as a process of its own: `python -m bench._plain_script LIST OUT OPTIONS`, all but the paths as
JSON. Phases are timed apart, loading apart from working. The last line of its output is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

CROP_PX, JPEG_QUALITY = 256, 95
MIN_SIDE_PX, MIN_FACE_PX, MIN_SCORE, MIN_WORDS = 64, 64, 0.5, 3
SAMPLES_PER_SHARD = 1000


def download(pairs: str, folder: Path, options: dict[str, Any]) -> dict[str, float]:
    """img2dataset's command line, original bytes kept; seconds of work, of the whole process."""
    words = {
        "url_list": pairs,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": folder,
        "output_format": "webdataset",
        "processes_count": options["processes"],
        "thread_count": options["threads"],
        "number_sample_per_shard": options["shard_rows"],
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "extract_exif": False,
        "compute_hash": "sha256",
        "timeout": 30,
        "retries": 2,
        "enable_wandb": False,
    }
    tool = Path(sys.executable).with_name("img2dataset")
    started = time.perf_counter()
    command = [str(tool), *(f"--{name}={value}" for name, value in words.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole_s = time.perf_counter() - started
    stats = [json.loads(path.read_text()) for path in folder.glob("*_stats.json")]
    work_s = max(shard["end_time"] for shard in stats) - min(shard["start_time"] for shard in stats)
    return {"work_s": work_s, "whole_s": whole_s}


def pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of every picture of img2dataset's tars."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.rpartition(".")
                if extension not in ("json", "txt"):
                    yield key, tar.extractfile(member).read()  # type: ignore[union-attr]


def load(models: str, pack: str) -> Any:
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name=pack, root=models)
    app.prepare(ctx_id=0, det_size=(640, 640))
    return app


def detect(folder: Path, app: Any) -> pd.DataFrame:
    """One row per picture: its faces, of the first one the score, box, points and embedding."""
    rows = []
    for key, data in pictures(folder):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        row: dict[str, Any] = {"key": key, "sha256": hashlib.sha256(data).hexdigest(), "faces": -1}
        if bgr is not None:
            faces = app.get(bgr)
            row |= {"faces": len(faces), "side_px": min(bgr.shape[:2])}
            if faces:
                box = faces[0].bbox
                row |= {
                    "score": float(faces[0].det_score),
                    "face_px": float(min(box[2] - box[0], box[3] - box[1])),
                    "points": faces[0].kps.reshape(-1).tolist(),
                    "embedding": faces[0].normed_embedding.tolist(),
                }
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.to_parquet(folder / "faces.parquet")
    return frame


def select(folder: Path, faces: pd.DataFrame) -> pd.DataFrame:
    """Every address with `reason`: the first rule that it fails, or kept. The rules are ours, as far as they go."""
    listed = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("0*.parquet"))])
    rows = listed[["key", "url", "caption", "status"]].merge(faces, on="key", how="left")
    words = rows["caption"].fillna("").str.split().str.len()
    rules = {
        "not_downloaded": rows["status"] != "success",
        "not_an_image": ~(rows["faces"] >= 0),
        "too_small": rows["side_px"] < MIN_SIDE_PX,
        "no_face": rows["faces"] == 0,
        "several_faces": rows["faces"] > 1,
        "face_score": rows["score"] < MIN_SCORE,
        "face_px": rows["face_px"] < MIN_FACE_PX,
        "caption_too_short": words < MIN_WORDS,
    }
    rows["reason"] = "kept"
    for reason, fails in reversed(rules.items()):
        rows.loc[fails, "reason"] = reason
    kept = rows[rows["reason"] == "kept"]
    rows.loc[kept.index[kept.duplicated("sha256")], "reason"] = "duplicate_image"
    return rows


def write(folder: Path, out: Path, rows: pd.DataFrame) -> int:
    """WebDataset tars of the aligned faces of the kept rows; how many."""
    import webdataset as wds
    from insightface.utils.face_align import norm_crop

    kept = rows[rows["reason"] == "kept"].set_index("key")
    out.mkdir()
    with wds.ShardWriter(f"{out}/%05d.tar", maxcount=SAMPLES_PER_SHARD, verbose=0) as sink:
        for key, data in pictures(folder):
            if key not in kept.index:
                continue
            row = kept.loc[key]
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            crop = norm_crop(bgr, np.reshape(row["points"], (5, 2)), CROP_PX)
            jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            about = {name: row[name] for name in ("url", "sha256", "score", "face_px", "points")}
            sink.write({"__key__": key, "jpg": jpeg, "txt": row["caption"], "json": about})
    return len(kept)


def main() -> None:
    pairs, out, words = sys.argv[1:]
    options = json.loads(words)
    warnings.simplefilter("ignore")  # insightface: a deprecation, once per face
    output, sys.stdout = sys.stdout, sys.stderr  # insightface prints; the last line of our output is ours
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    raw = Path(out) / "raw"
    phases: dict[str, float] = {}

    def timed(name: str, call: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = call(*arguments)
        phases[name] = time.perf_counter() - started
        return result

    fetched = download(pairs, raw, options)
    app = timed("load", load, options["models"], options["pack"])
    faces = timed("detect", detect, raw, app)
    rows = timed("curate", select, raw, faces)
    kept = timed("write", write, raw, Path(out) / "shards", rows)
    rows[["url", "reason", "sha256"]].to_parquet(Path(out) / "reasons.parquet")
    loading = fetched["whole_s"] - fetched["work_s"] + phases.pop("load")
    phases = {"download": fetched["work_s"], **phases}
    print(json.dumps({"phases": phases, "loading_s": loading, "kept": kept}), file=output)


if __name__ == "__main__":
    main()
