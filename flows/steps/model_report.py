"""What training and evaluation leave behind, read for the report: figures, curves and pictures of one model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.steps.config import ConfigError
from flows.steps.layout import Layout
from flows.steps.measured import by_reason, calibrations, confusions, subgroups
from flows.steps.model import DONE_FILE, chosen_model, trained_models

if TYPE_CHECKING:
    from warehouse.report.charts import Chart
    from warehouse.report.data import Metric
    from warehouse.report.page import Figure, ModelReport, Picture


@dataclass(frozen=True)
class MetricText:
    """How a metric is called, what it is compared with, and its unit."""

    label: str
    baseline: str  # what the baseline is; a gain already is a difference from it
    unit: str = ""
    digits: int = 2
    is_gain: bool = False
    lower_is_better: bool = False


# The four that also stand on top of the page come first. Others are shown by their own name.
METRICS = {
    "itm_accuracy": MetricText("Image-text matching", "chance"),
    "probe_balanced_accuracy": MetricText("Attribute probe", "chance"),
    "inpaint_gain_db": MetricText("Inpainting gain", "over filling with the mean colour", "dB", 1, is_gain=True),
    "mim_gain_nats": MetricText("Masked image gain", "under the unigram loss", "nats", is_gain=True),
    "inpaint_psnr_db": MetricText("Inpainting, PSNR in the region", "mean colour", "dB", 1),
    "inpaint_psnr_db_at_best": MetricText("Inpainting, the tokenizer's own PSNR there", "mean colour", "dB", 1),
}
_HEADLINE = tuple(METRICS)[:4]
_BY_CLASS = ("attribute", "expression", "manipulation")  # benchmarks whose accuracy stands beside a constant answer

# Pictures that evaluation draws: the order on the page, the title, and what one sees.
PICTURES = {
    "reconstructions": (
        "Reconstructions",
        "What the image tokenizer keeps: held-out faces above, and below what is left of them in its tokens.",
    ),
    "inpaintings": (
        "Inpaintings",
        "From above: held-out faces, the region that was hidden, what the model filled in, and the tokenizer's own "
        "rendering of the whole face, which no filling can surpass.",
    ),
    "inpaintings_extremes": (
        "Inpaintings, best and worst",
        "The same rows for the six faces of the largest gain over the mean colour, then for the six of the smallest.",
    ),
    "edits": (
        "Edit",
        "Held-out faces and one edit per column, each by a sentence and a region: smiling (mouth), with eyeglasses "
        "(eyes), a full beard (lower face), red hair (hair). Outside the region nothing changes.",
    ),
    "editing": (
        "Edits that are judged",
        "Held-out faces that lack what is asked for: smiling, then with eyeglasses, then no beard. The first column is "
        "the input; the others are the edit guided, unguided, and by the baselines.",
    ),
    "manipulation": (
        "Expressions that are judged",
        "Neutral faces of FER2013 PrivateTest and what a prompt for an expression made of them, guided and unguided.",
    ),
    "unmask": ("Mask removal", "A face, the same occluded, the region found, its likeliest filling, and two samples."),
    "leaks": (
        "Held-out faces seen in training",
        "Above, test faces that look like a training face (same bytes, or at most 2 of 64 bits of a perceptual hash "
        "apart); below, that training face.",
    ),
    "text_to_face": (
        "Text to face",
        "Faces made from captions of held-out faces, guided and not, beside the tokenizer's rendering of the face that "
        "the caption is about.",
    ),
}


def shown_model(layout: Layout, release: int | None = None) -> Path | None:
    """Folder of the champion or the newest trained model; where `release` is named, of the newest trained on that; None
    without one."""
    if release is None:
        return chosen_model(layout)
    for folder in reversed(trained_models(layout)):
        if json.loads((folder / DONE_FILE).read_text("utf-8")).get("release") == release:
            return folder
    return None


def read_model(folder: Path, metrics: Sequence[Metric]) -> ModelReport:
    """The report of the model in `folder`; `metrics` are its rows in the lake.

    Raises InputError (a picture) or ConfigError (a table) where a file cannot be read.
    """
    from warehouse.report.page import ModelReport

    training, config = read_json(folder / "training.json"), read_json(folder / "config.json")
    evaluation, part = (read_json(folder / "evaluation" / f"evaluation{kind}.json") for kind in ("", "-part"))
    measured = [*part.get("figures", []), *evaluation.get("figures", [])]
    groups = figure_groups(measured)
    order = {name: i for i, name in enumerate([*METRICS, *groups])}
    ranked = sorted(metrics, key=lambda m: (order.get(m.name, len(order)), m.name))
    return ModelReport(
        name=folder.name,
        headline=tuple(figure_of(m) for m in ranked if m.name in _HEADLINE),
        figures=tuple(figure_of(m, groups.get(m.name, "")) for m in ranked),
        charts=_charts(read_history(folder / "history.jsonl")),
        calibration=tuple(calibrations(measured)),
        confusions=tuple(confusions(measured)),
        subgroups=tuple(subgroups(measured)),
        pictures=_pictures(folder),
        facts=training_facts(training),
        config=config,
        evaluated=bool(metrics),
        left_out=tuple(by_reason(evaluation.get("left_out", {}))),
    )


def figure_groups(figures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The benchmark of each figure by the name of its row in the lake."""
    return {f"{figure['benchmark']}_{figure['metric']}": str(figure["benchmark"]) for figure in figures}


def read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of a training's history; a half-written last line (training goes on, or was killed) is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _charts(history: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Per stage of the training: its losses, and codebook use and accuracies where it has them."""
    from warehouse.report.charts import line_chart

    charts = []
    for stage in dict.fromkeys(str(row.get("stage", "training")) for row in history):
        rows = [row for row in history if str(row.get("stage", "training")) == stage]
        names = list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value)))
        for word, title in _CURVES:
            chosen = [name for name in names if word in name][:5]
            curves = [(_words(n, word), [(float(r["step"]), float(r[n])) for r in rows if n in r]) for n in chosen]
            chart = line_chart(_title(f"{_words(stage)}: {title}"), curves)
            charts += [chart] if chart else []
    return tuple(charts)


# What is drawn of a history: keys that hold the word, and the chart's title.
_CURVES = (("loss", "losses"), ("code", "codebook use"), ("accuracy", "accuracy"), ("psnr", "reconstruction, dB"))


def _pictures(folder: Path) -> tuple[Picture, ...]:
    """The figures that training and evaluation drew, known ones first, others under their own name."""
    from warehouse.report.gallery import figure_uri
    from warehouse.report.page import Picture

    found = {path.stem: path for sub in _FIGURE_FOLDERS for path in sorted((folder / sub).glob("*.png"))}
    order = [name for name in PICTURES if name in found] + sorted(set(found) - set(PICTURES))
    pictures = []
    for name in order:
        title, note = PICTURES.get(name, (_title(_words(name)), ""))
        pictures.append(Picture(title, note, *figure_uri(found[name])))
    return tuple(pictures)


_FIGURE_FOLDERS = ("figures", "evaluation/figures", "evaluation")


def figure_of(metric: Metric, group: str = "") -> Figure:
    """A metric as text beside its baseline; green or red only where its interval or value leaves no doubt."""
    from warehouse.report.page import Figure

    text = METRICS.get(metric.name) or _unknown(metric.name.removeprefix(f"{group}_"), group)
    baseline = 0.0 if text.is_gain and metric.baseline is None else metric.baseline
    beside = text.baseline if text.is_gain else "" if baseline is None else f"{text.baseline} {_number(baseline, text)}"
    notes = []
    if metric.low is not None and metric.high is not None:
        notes.append(f"95 % interval {metric.low:.{text.digits}f} to {metric.high:.{text.digits}f}")
    if metric.samples is not None:
        notes.append(f"{metric.samples:,} samples")
    value, verdict = _number(metric.value, text), _verdict(metric, baseline, text)
    return Figure(text.label, value, beside, ", ".join(notes), verdict, _title(_words(group)) if group else "")


def _verdict(metric: Metric, baseline: float | None, text: MetricText) -> bool | None:
    if baseline is None:
        return None
    if text.lower_is_better:
        return (metric.high if metric.high is not None else metric.value) < baseline
    return (metric.low if metric.low is not None else metric.value) > baseline


def _unknown(name: str, group: str = "") -> MetricText:
    """Text of a metric that is not in METRICS, by the words in its name."""
    unit = "dB" if name.endswith(("_db", "psnr")) else "nats" if name.endswith("_nats") else ""
    baseline = "chance" if "accuracy" in name or name.startswith("probe_") else "baseline"
    balanced = name.endswith(("balanced_accuracy", "class_accuracy"))
    if "accuracy" in name and group.startswith(_BY_CLASS) and not balanced:
        baseline = "most frequent class"
    label = _title(_words(name).removesuffix(f" {unit}".lower()))
    return MetricText(label, baseline, unit, lower_is_better="loss" in name and "gain" not in name)


def _number(value: float, text: MetricText) -> str:
    return f"{value:,.{text.digits}f} {text.unit}".strip()


def training_facts(training: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Plain values of training.json, in its order, for the line under the heading."""
    shown = []
    told = {key: value for key, value in training.items() if key not in ("model_dir", "key")}  # of no use to a reader
    for key, value in told.items():
        if isinstance(value, bool | str) or _is_number(value):
            text = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if _is_number(value) else str(value)
            shown.append((_words(key), text))
    return tuple(shown[:12])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _title(text: str) -> str:
    """First letter large, names as their owners write them."""
    text = text.replace("gptface", "GPTFace").replace("itm", "ITM").replace("milm", "MILM").replace("psnr", "PSNR")
    return text[:1].upper() + text[1:]


def _words(name: str, but: str = "") -> str:
    words = [word for word in name.replace("-", "_").split("_") if word and word != but]
    return " ".join(words) or name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file. Raises ConfigError where it cannot be read."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}): train or evaluate the model again") from error
    return found if isinstance(found, dict) else {}
