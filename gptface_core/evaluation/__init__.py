"""What a trained model is worth on held-out faces, each figure beside its chance level or baseline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptface_core.bundle import Bundle, load_bundle
from gptface_core.config import MaskingConfig
from gptface_core.editing import edit
from gptface_core.errors import InputError
from gptface_core.evaluation.inpaint import inpainting, masked_image_gain
from gptface_core.evaluation.itm import pairwise
from gptface_core.evaluation.probe import frozen_features, probe
from gptface_core.evaluation.rows import RowValues, mean_rows, save_rows
from gptface_core.figures import contact_sheet
from gptface_core.files import write_text
from gptface_core.shards import Pictures, ShardIndex, open_index, read_shard, shrink
from gptface_core.tokens import decode_split
from gptface_core.train_tokenizer import measure_tokenizer

PROBED = ("eyeglasses", "beard", "hair_colour")  # the mean of these is the headline; smiling is reported beside
EDITS = (("mouth", "smiling"), ("eyes", "with eyeglasses"), ("beard", "a full beard"), ("hair", "red hair"))
Labels = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Split:
    row_ids: list[str]
    captions: list[str]
    pictures: Pictures
    codes: torch.Tensor  # ids of the model's table


def evaluate(
    model_dir: Path | str, shards_dir: Path | str, labels: Path | str | None, out_dir: Path | str, seed: int = 0
) -> dict[str, Any]:
    """Metrics with 95 % intervals, written to `out_dir/evaluation.json` (last) beside figures and `rows.npz`.

    With a labels table (row_id, true_caption, contradicting_caption, eyeglasses, beard, hair_colour, smiling) matching
    is true against contradicting caption and the probe runs; without, matching is against another row's caption, and
    `left_out` says what is missing and why. Raises InputError for an unreadable model, shards or labels.
    """
    bundle, index, out = load_bundle(model_dir), open_index(shards_dir), Path(out_dir)
    truth = read_labels(Path(labels)) if labels is not None else None
    threads = torch.get_num_threads()
    torch.set_num_threads(int((bundle.model.config.resolved or {}).get("threads", threads)))
    try:
        results = _measure(bundle, index, truth, out / "figures", seed)
    finally:
        torch.set_num_threads(threads)
    save_rows(out, results.pop("rows"))
    write_text(out / "evaluation.json", json.dumps(results, indent=1))
    return results


def read_labels(path: Path) -> Labels:
    """Label rows by row_id. Raises InputError where the file or a column is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    needed = {"row_id", "true_caption", "contradicting_caption", *PROBED, "smiling"}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"labels {path} cannot be read as Parquet: {error}") from error
    if missing := sorted(needed - set(table.column_names)):
        raise InputError(f"labels {path} lack the columns {', '.join(missing)}")
    return {row["row_id"]: row for row in table.select(sorted(needed)).to_pylist()}


def _load(bundle: Bundle, index: ShardIndex, split: str) -> _Split:
    shards = index.splits.get(split, ())
    samples = [(sample.row_id, sample.caption) for shard in shards for sample in read_shard(shard)]
    pictures = decode_split(shards, bundle.image.config.image_px)
    codes = bundle.image_ids(pictures)
    return _Split([row_id for row_id, _ in samples], [caption for _, caption in samples], pictures, codes)


def _measure(bundle: Bundle, index: ShardIndex, truth: Labels | None, figures: Path, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    train, test = _load(bundle, index, "train"), _load(bundle, index, "test")
    if len(test.row_ids) < 2:
        raise InputError(f"release {index.release} has {len(test.row_ids)} test samples: build a larger corpus first")
    config = bundle.model.config
    first, codes, slots = bundle.model.first_code, config.codes, config.image_slots
    counts = np.zeros((slots, codes), np.int64)
    np.add.at(counts, (np.arange(slots)[None, :], (train.codes - first).numpy()), 1)
    masking = MaskingConfig(**_tuples((config.resolved or {}).get("masking", {})))
    mean_face = train.pictures.mean(0, dtype=np.float64) / 255
    inpaint, rows = inpainting(bundle, test.pictures[:300], test.captions[:300], mean_face.mean((0, 1)), mean_face, rng)
    contact_sheet(rows, figures / "inpaintings.png")
    metrics = {
        "mim_gain_nats": masked_image_gain(bundle, test.codes[:512], test.captions[:512], counts, masking, rng),
        "inpaint_gain_db": inpaint,
        "itm_accuracy": _matching(bundle, test, truth, rng),
    }
    left_out: dict[str, str] = {}
    if truth is None:
        left_out["probe_balanced_accuracy"] = "needs labels: the attributes of these faces are not known"
    else:
        metrics["probe_balanced_accuracy"] = _probe(bundle, train, test, truth, rng)
    _edit_sheet(bundle, test, figures, seed)
    rows_of: RowValues = {
        name: dict(zip(metric.pop("row_ids", test.row_ids), metric.pop("per_row"), strict=False))
        for name, metric in metrics.items()
    }
    return {
        "rows": rows_of,
        "release": index.release,
        "seed": seed,
        "test_faces": len(test.row_ids),
        "provenance": config.provenance,
        "metrics": metrics,
        "tokenizer": measure_tokenizer(bundle.image, test.pictures[:300]),
        "left_out": left_out,
    }


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _matching(bundle: Bundle, test: _Split, truth: Labels | None, rng: np.random.Generator) -> dict[str, Any]:
    """True against contradicting caption on at most 500 test faces; without labels against another row's caption."""
    if truth is not None:
        rows = [i for i, row_id in enumerate(test.row_ids) if row_id in truth][:500]
        if not rows:
            raise InputError("the labels name no row of the test split: make them from the same release")
        chosen = [truth[test.row_ids[i]] for i in rows]
        true, other = ([row[f"{kind}_caption"] for row in chosen] for kind in ("true", "contradicting"))
        measured = pairwise(bundle, test.codes[rows], true, other, "a contradicting caption")
        return {**measured, "row_ids": [test.row_ids[i] for i in rows]}
    rows, other = [], []
    for i, caption in enumerate(test.captions[:500]):
        different = [c for c in test.captions if c != caption]
        if different:
            rows.append(i)
            other.append(different[int(rng.integers(len(different)))])
    true = [test.captions[i] for i in rows]
    against = "the caption of another test face, as found (some untrue)"
    measured = pairwise(bundle, test.codes[rows], true, other, against)
    return {**measured, "row_ids": [test.row_ids[i] for i in rows]}


def _probe(bundle: Bundle, train: _Split, test: _Split, truth: Labels, rng: np.random.Generator) -> dict[str, Any]:
    """Each attribute's balanced accuracy, and the mean over PROBED."""
    by_attribute: dict[str, dict[str, Any]] = {}
    per_row: RowValues = {}
    features = (frozen_features(bundle, train.codes), frozen_features(bundle, test.codes))
    for attribute in (*PROBED, "smiling"):
        rows = [
            [i for i, row_id in enumerate(split.row_ids) if truth.get(row_id, {}).get(attribute) is not None]
            for split in (train, test)
        ]
        values = [[truth[s.row_ids[i]][attribute] for i in r] for s, r in zip((train, test), rows, strict=True)]
        if min(len(set(values[0])), len(set(values[1]))) > 1:
            found = probe((features[0][rows[0]], features[1][rows[1]]), (values[0], values[1]), rng)
            per_row[attribute] = dict(zip([test.row_ids[i] for i in rows[1]], found.pop("per_row"), strict=True))
            by_attribute[attribute] = found
    headline = [by_attribute[a] for a in PROBED if a in by_attribute]
    if not headline:
        raise InputError("the labels know no attribute with two values in both train and test: nothing to probe")
    mean = {key: float(np.mean([entry[key] for entry in headline])) for key in ("value", "low", "high", "chance")}
    together = mean_rows({a: per_row[a] for a in PROBED if a in per_row})
    return {**mean, "attributes": by_attribute, "row_ids": list(together), "per_row": list(together.values())}


def _edit_sheet(bundle: Bundle, test: _Split, figures: Path, seed: int) -> None:
    """One face per row: the face, then each of EDITS, guided. Faces at four times the model's size, as a user sees."""
    size_px, rows = 4 * bundle.image.config.image_px, []
    for picture in test.pictures[:6]:
        crop = shrink(picture, size_px)
        edits = [edit(bundle, crop, prompt, region, seed=seed).images[0] for region, prompt in EDITS]
        rows.append([crop, *edits])
    contact_sheet(rows, figures / "edits.png")
