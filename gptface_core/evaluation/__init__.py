"""What a trained model is worth on held-out faces, each figure beside its chance level or baseline.

`registry` lists the benchmarks, each a module here; docs/evaluation.md tells their protocols.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gptface_core.bundle import load_bundle
from gptface_core.evaluation.context import Context
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.kept import key_of
from gptface_core.evaluation.labels import read_labels
from gptface_core.evaluation.registry import choose, kept_work, run_suite
from gptface_core.evaluation.rows import save_rows
from gptface_core.evaluation_options import EvaluationOptions
from gptface_core.files import write_text
from gptface_core.shards import open_index
from gptface_core.train_tokenizer import measure_tokenizer

__all__ = ["EvaluationOptions", "evaluate", "read_labels"]


def evaluate(
    model_dir: Path | str,
    shards_dir: Path | str,
    labels: Path | str | None,
    out_dir: Path | str,
    seed: int = 0,
    options: EvaluationOptions | None = None,
    fresh: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """Run a suite of benchmarks; results are written to `out_dir/evaluation.json` (`options.file`), last, beside
    pictures and `rows.npz`.

    `metrics` holds the headline figures, `figures` all of them, `left_out` what could not be measured and why, `kept`
    which benchmarks an earlier run had measured: under the same key (`kept.py`) they are not run again, unless `fresh`.
    `labels` is a table of attributes and opposed captions by row_id (`labels.py`). `on_progress` gets benchmarks done,
    all of them, and what is under way.
    Raises InputError for an unreadable model, shards or labels, and an unknown suite or benchmark.
    """
    options = options or EvaluationOptions()
    chosen = choose(options)
    bundle, out = load_bundle(model_dir), Path(out_dir)
    truth = read_labels(Path(labels)) if labels is not None else None
    context = Context(bundle, open_index(shards_dir), out, seed, truth, options)
    key = key_of(bundle, context.index, truth, seed)
    if fresh:
        for benchmark in chosen:
            kept_work(context, benchmark, key).forget()
    threads = torch.get_num_threads()
    torch.set_num_threads(int((bundle.model.config.resolved or {}).get("threads", threads)))
    try:
        measured = run_suite(context, chosen, key, on_progress)
        results = {
            "release": context.index.release,
            "seed": seed,
            "suite": options.suite,
            "test_faces": len(context.test.row_ids),
            "provenance": bundle.model.config.provenance,
            "metrics": _headlines(measured.figures, [benchmark.headline for benchmark in chosen]),
            "figures": [asdict(figure) for figure in measured.figures],
            "tokenizer": measure_tokenizer(bundle.image, context.test.pictures[:300]),
            "left_out": context.left_out,
            "seconds": measured.seconds,
            "kept": measured.kept,
        }
    finally:
        torch.set_num_threads(threads)
    if not options.is_part:
        save_rows(out, context.rows)
    write_text(out / options.file, json.dumps(results, indent=1))
    return results


def _headlines(figures: list[Figure], names: list[str]) -> dict[str, dict[str, Any]]:
    """Headline figures by name: value, interval, and their details."""
    return {
        f.metric: {"value": f.value, "low": f.low, "high": f.high, **f.details} for f in figures if f.metric in names
    }
