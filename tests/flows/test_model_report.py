"""The model's part of the report, and the summary: what is there is shown, what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from flows.steps.model_report import read_history, read_model, shown_model
from flows.steps.report import write_report, write_summary
from warehouse.errors import InputError
from warehouse.report.data import Metric

METRICS = (
    Metric("itm_accuracy", 0.83, 0.5, 0.79, 0.86, 500),
    Metric("inpaint_gain_db", 4.25, None, 3.9, 4.6, 200),
    Metric("odd_loss", 4.4, 4.0),
)


def _model(folder: Path) -> Path:
    (folder / "figures").mkdir(parents=True)
    (folder / "config.json").write_text('{"layers": 3}')
    (folder / "training.json").write_text('{"preset": "demo", "steps": 1200, "release": 1}')
    history = [{"stage": "tokenizer", "step": s, "loss": 1 / (s + 1), "codes_used": s} for s in range(50)]
    history += [{"stage": "gptface", "step": s, "itm_loss": 0.7, "lr": 0.1} for s in range(50)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history) + '{"stage": "gp')
    Image.new("RGB", (64, 32)).save(folder / "figures" / "reconstructions.png")
    return folder


def test_figures_stand_beside_their_baselines(tmp_path: Path) -> None:
    report = read_model(_model(tmp_path / "demo"), METRICS)
    assert [(f.label, f.value, f.good) for f in report.headline] == [
        ("Image-text matching", "0.83", True),
        ("Inpainting gain", "4.2 dB", True),
    ]
    assert report.headline[0].beside == "chance 0.50"
    assert report.headline[0].note == "95 % interval 0.79 to 0.86, 500 samples"
    assert "mean colour" in report.headline[1].beside
    assert report.figures[-1].label == "Odd loss" and report.figures[-1].good is False
    assert report.evaluated


def test_figures_stand_by_benchmark_in_the_order_they_were_measured(tmp_path: Path) -> None:
    folder = _model(tmp_path / "demo")
    (folder / "evaluation").mkdir()
    names = (("retrieval", "r_at_1"), ("retrieval", "r_at_10"), ("attribute_classifier", "accuracy_beard"))
    measured = [{"benchmark": benchmark, "metric": metric, "details": {}} for benchmark, metric in names]
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps({"figures": measured}))
    rows = [Metric(f"{benchmark}_{metric}", 0.5, 0.4) for benchmark, metric in reversed(names)]
    assert [(f.group, f.label, f.beside) for f in read_model(folder, rows).figures] == [
        ("Retrieval", "R at 1", "baseline 0.40"),
        ("Retrieval", "R at 10", "baseline 0.40"),
        ("Attribute classifier", "Accuracy beard", "most frequent class 0.40"),
    ]


def test_interval_that_holds_chance_is_no_success(tmp_path: Path) -> None:
    report = read_model(_model(tmp_path / "demo"), [Metric("itm_accuracy", 0.52, 0.5, 0.48, 0.56, 500)])
    assert report.headline[0].good is False


def test_curves_per_stage_and_pictures(tmp_path: Path) -> None:
    report = read_model(_model(tmp_path / "demo"), ())
    assert [(c.title, [line.name for line in c.lines]) for c in report.charts] == [
        ("Tokenizer: losses", ["loss"]),
        ("Tokenizer: codebook use", ["codes used"]),
        ("GPTFace: losses", ["itm"]),
    ]
    assert [(p.title, p.width, p.height) for p in report.pictures] == [("Reconstructions", 64, 32)]
    assert ("steps", "1,200") in report.facts
    assert not report.evaluated


def test_half_written_history_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    assert len(read_history(_model(tmp_path / "demo") / "history.jsonl")) == 100
    assert read_history(tmp_path / "none.jsonl") == []


def test_broken_json_of_a_model_is_one_clear_line(tmp_path: Path) -> None:
    folder = _model(tmp_path / "demo")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is no JSON"):
        read_model(folder, ())


def test_no_trained_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "models" / "half").mkdir(parents=True)
    assert shown_model(Layout(tmp_path)) is None
    assert shown_model(Layout(_model(tmp_path / "models" / "demo").parents[1])) == tmp_path / "models" / "demo"


@pytest.mark.e2e
def test_report_joins_corpus_and_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from warehouse import register
    from warehouse.publish import publish

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "warehouse"))
    from literal_crawls import Shot, write_crawl

    publish(tmp_path, [write_crawl(tmp_path / "raw" / "t" / "g000", [Shot("a"), Shot("b", failed="dns")])])
    assert "No model yet" in write_report(tmp_path).read_text("utf-8")
    _model(tmp_path / "models" / "demo")
    row = {"model": "demo", "release": 1, "metric": "itm_accuracy", "value": 0.83, "baseline": 0.5, "run_id": "r"}
    register.register(tmp_path, "evaluations", [row | {"created_at": "2026-01-01 00:00:00+00"}])
    path = write_report(tmp_path)
    page = path.read_text("utf-8")
    assert path == tmp_path / "reports" / "index.html"
    assert "chance 0.50" in page and "No model yet" not in page and "Not evaluated yet" not in page


@pytest.mark.e2e
def test_report_of_an_earlier_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from warehouse.parameters import RuleParameters
    from warehouse.publish import publish

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "warehouse"))
    from literal_crawls import Shot, write_crawl

    crawl = write_crawl(tmp_path / "raw" / "t" / "g000", [Shot("a"), Shot("b", side_px=70)])
    publish(tmp_path, [crawl])
    publish(tmp_path, [crawl], RuleParameters(min_face_px=1000))
    _model(tmp_path / "models" / "demo")  # trained on release 1
    newest, first = write_report(tmp_path), write_report(tmp_path, at=1)
    assert (newest.name, first.name) == ("index.html", "release-00001.html")
    assert "Release 2" in newest.read_text("utf-8") and "Release 1" in first.read_text("utf-8")
    assert "No model yet" not in first.read_text("utf-8")
    assert "No model yet" in write_report(tmp_path, at=2).read_text("utf-8")
    with pytest.raises(InputError, match="release 3"):
        write_report(tmp_path, at=3)


def test_report_without_a_lake_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no lake under"):
        write_report(tmp_path)
    assert not (tmp_path / "reports").exists()


def test_summary_merges_and_replaces_what_is_no_json(tmp_path: Path) -> None:
    write_summary(tmp_path, {"pairs": 10, "kept": 1})
    path = write_summary(tmp_path, {"kept": 2, "itm_accuracy": 0.83})
    assert json.loads(path.read_text()) == {"pairs": 10, "kept": 2, "itm_accuracy": 0.83}
    path.write_text("{half")
    write_summary(tmp_path, {"pairs": 3})
    assert json.loads(path.read_text()) == {"pairs": 3}
