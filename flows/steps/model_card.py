"""The model card: README.md in a model's folder, filled from its evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.measured import by_reason
from flows.steps.model_report import figure_groups, figure_of, read_json, training_facts
from gptface_core.files import write_text

if TYPE_CHECKING:
    from flows.steps.model import Metrics


def write_model_card(folder: Path, release: int, metrics: Metrics) -> Path:
    """Write `folder/README.md` from training.json, evaluation.json and the figures' rows; its path."""
    from warehouse.report.data import Metric
    from warehouse.report.page import render_model_card

    evaluation = read_json(folder / "evaluation" / "evaluation.json")
    groups = figure_groups(evaluation.get("figures", []))
    figures = []
    for metric, row in metrics.items():
        value, samples = row["value"] or 0.0, row.get("samples")
        count = None if samples is None else int(samples)
        known = Metric(metric, value, row.get("baseline"), row.get("low"), row.get("high"), count)
        figures.append(figure_of(known, groups.get(metric, "")))
    text = render_model_card(
        name=folder.name,
        release=release,
        facts=training_facts(read_json(folder / "training.json")),
        figures=figures,
        left_out=by_reason(evaluation.get("left_out", {})),
        test_faces=evaluation.get("test_faces", 0),
        seed=evaluation.get("seed", 0),
    )
    write_text(folder / "README.md", text)
    return folder / "README.md"
