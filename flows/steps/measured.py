"""Figures of an evaluation (evaluation.json) read for people: what was left out, calibration, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warehouse.report.charts import Chart
    from warehouse.report.page import Confusion, Subgroups

_MOST_CLASSES = 12  # a larger matrix is no longer read


def figure_name(figure: Mapping[str, Any]) -> str:
    """Benchmark and metric, once where the metric says both."""
    benchmark, metric = str(figure["benchmark"]), str(figure["metric"])
    return metric if metric.startswith(f"{benchmark}_") else f"{benchmark} {metric}"


def by_reason(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was not measured and why; names that share a reason are told together."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(str(why), []).append(str(name))
    return [(", ".join(each), why) for why, each in names.items()]


def calibrations(figures: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """A reliability diagram for each figure that has one."""
    from warehouse.report.charts import line_chart

    for figure in figures:
        found = figure["details"].get("calibration")
        if not found:
            continue
        curve = [(row["predicted"], row["observed"]) for row in found["bins"]]
        samples = sum(row["samples"] for row in found["bins"])
        note = f"calibration error {found['error']:.3f}, {samples:,} pairs; the straight line would be perfect"
        lines = [("share that is true", curve), ("perfect", [(0.0, 0.0), (1.0, 1.0)])]
        title = f"{_words(figure['metric'])}: probability and truth"
        chart = line_chart(title, lines, "probability given", note)
        if chart is not None:
            yield chart


def confusions(figures: Sequence[Mapping[str, Any]]) -> Iterator[Confusion]:
    """The confusion matrix of each figure, or of each of its attributes; figures that share one show it once."""
    from warehouse.report.page import Confusion

    seen = set()
    for figure in figures:
        details, name = figure["details"], figure_name(figure)
        parts = {f"{figure['benchmark']} {key}": part for key, part in details.get("attributes", {}).items()}
        for title, part in {name: details, **parts}.items():
            classes, counts = tuple(part.get("classes", ())), part.get("confusion")
            if not counts or len(classes) > _MOST_CLASSES:
                continue
            table = Confusion(_words(title), classes, tuple(tuple(row) for row in counts))
            if (figure["benchmark"], table.counts) not in seen:
                seen.add((figure["benchmark"], table.counts))
                yield table


def subgroups(figures: Sequence[Mapping[str, Any]]) -> Iterator[Subgroups]:
    """The shares by subgroup of each figure that has them; a group with too few samples has none."""
    from warehouse.report.page import Subgroup, Subgroups

    for figure in figures:
        tables = figure["details"].get("by") or figure["details"].get("subgroups") or {}
        rows = []
        for kind, groups in tables.items():
            for name, each in groups.items():
                share = f"{each['value']:.2f}" if "value" in each else ""
                interval = f"95 % interval {each['low']:.2f} to {each['high']:.2f}" if share else "too few for a share"
                rows.append(Subgroup(f"{_words(kind)}: {name}", share, interval, each["samples"]))
        if rows:
            yield Subgroups(_words(figure_name(figure)), tuple(rows))


def _words(name: str) -> str:
    text = name.replace("_", " ").replace("itm", "ITM")
    return text[:1].upper() + text[1:]
