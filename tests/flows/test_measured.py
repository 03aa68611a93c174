"""What the report and the command line say of an evaluation's details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.steps.measured import by_reason, calibrations, confusions, subgroups
from flows.steps.model_card import write_model_card


def figure(benchmark: str, metric: str, **details: Any) -> dict[str, Any]:
    return {"benchmark": benchmark, "metric": metric, "details": details}


def test_names_that_share_a_reason_are_told_together() -> None:
    left_out = {"attributes_lfw": "needs --data", "editing identity": "no weights", "attributes_celeba": "needs --data"}
    assert by_reason(left_out) == [
        ("attributes_lfw, attributes_celeba", "needs --data"),
        ("editing identity", "no weights"),
    ]


def test_a_reliability_diagram_stands_beside_the_straight_line() -> None:
    bins = [{"predicted": 0.1, "observed": 0.3, "samples": 5}, {"predicted": 0.9, "observed": 0.7, "samples": 7}]
    measured = [figure("itm", "itm_accuracy", calibration={"bins": bins, "error": 0.2}), figure("mim", "gain")]
    (chart,) = calibrations(measured)
    assert [line.name for line in chart.lines] == ["share that is true", "perfect"]
    assert "calibration error 0.200, 12 pairs" in chart.note and chart.title.startswith("ITM accuracy")


def test_matrices_are_shown_once_and_those_of_attributes_each() -> None:
    table = {"classes": ["no", "yes"], "confusion": [[8, 2], [1, 9]]}
    other = {"classes": ["black", "red"], "confusion": [[3, 0], [0, 3]]}
    many = {"classes": [str(n) for n in range(40)], "confusion": [[0] * 40] * 40}
    measured = [
        figure("expression_fer2013", "probe_accuracy", **table),
        figure("expression_fer2013", "probe_mean_class_accuracy", **table),
        figure("probe", "probe_balanced_accuracy", attributes={"beard": table, "hair_colour": other}),
        figure("attributes_celeba", "probe_accuracy", **many),
    ]
    found = list(confusions(measured))
    assert [each.title for each in found] == ["Expression fer2013 probe accuracy", "Probe beard", "Probe hair colour"]
    assert found[2].classes == ("black", "red") and found[2].counts == ((3, 0), (0, 3))


def test_a_subgroup_with_three_samples_gets_no_percentage() -> None:
    by = {"beard": {"True": {"samples": 3}, "False": {"samples": 57, "value": 0.5, "low": 0.37, "high": 0.63}}}
    (found,) = subgroups([figure("editing", "success_smiling", by=by), figure("mim", "gain")])
    assert found.title == "Editing success smiling"
    few, many = found.rows
    assert (few.name, few.share, few.note, few.samples) == ("Beard: True", "", "too few for a share", 3)
    assert (many.share, many.note) == ("0.50", "95 % interval 0.37 to 0.63")


def test_the_model_card_has_every_figure_beside_its_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"preset": "mini", "release": 3, "parameters": 5171287}))
    evaluation = {"test_faces": 448, "seed": 0, "left_out": {"attributes_lfw": "needs public data sets"}}
    evaluation["figures"] = [figure("editing", "success_beard")]
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    headline = {"value": 0.98, "baseline": 0.5, "low": 0.96, "high": 0.99, "samples": 448.0}
    rows = {"itm_accuracy": headline, "editing_success_beard": {"value": 0.65, "baseline": 0.05}}
    text = write_model_card(folder, 3, rows).read_text("utf-8")
    assert "| Image-text matching | 0.98 | chance 0.50 | 95 % interval 0.96 to 0.99, 448 samples |" in text
    assert "**Editing**" in text and "| Success beard | 0.65 | baseline 0.05 |" in text
    assert "- parameters: 5,171,287" in text and "- attributes lfw: needs public data sets" in text
