"""What a flow run leaves on the Prefect page: a summary, the reasons as a table, a link to the report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

if TYPE_CHECKING:
    from flows.steps.nightly import NightSummary
    from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary


def show_build(summary: BuildSummary, report: Path) -> None:
    """Summary, table of reasons and link to the report of a build."""
    news = "published" if summary.is_new else "unchanged"
    rows = {
        "pairs": summary.pairs,
        "downloaded": summary.downloaded,
        "with a face": summary.with_face,
        "kept": summary.kept,
        **{f"samples ({split})": count for split, count in summary.samples.items()},
        "shards": summary.shards,
        "detector": summary.detector,
        "seconds": summary.seconds,
        "root": summary.root,
    }
    title = f"Release {summary.release} of `{summary.source}`, {news}"
    _markdown("build-summary", title, "What the build found and left", rows)
    show_reasons(summary.reasons)
    link_report(report)


def show_model(summary: TrainSummary, report: Path) -> None:
    """Figures of a training and link to the report."""
    rows = {"preset": summary.preset, "release": summary.release, "seconds": summary.seconds, **summary.metrics}
    _markdown("training-summary", f"Model `{summary.model}`", "What the training reached", rows)
    link_report(report)


def show_evaluation(summary: EvaluateSummary, report: Path) -> None:
    """A model's figures, each beside its baseline, and link to the report."""
    table = [{"metric": name, **metric} for name, metric in summary.metrics.items()]
    create_table_artifact(table, key="evaluation-metrics", description=f"Figures of {summary.model} on held-out faces")
    rows: dict[str, Any] = {name: metric["value"] for name, metric in summary.metrics.items()}
    left_out = {f"left out: {name}": reason for name, reason in summary.left_out.items()}
    title = f"Model `{summary.model}` on release {summary.release}"
    _markdown("evaluation-summary", title, "Figures on held-out faces", rows | left_out)
    link_report(report)


def show_night(night: NightSummary, report: Path) -> None:
    """What a night did and decided, both models' figures on the same faces, what was pruned, and the build."""
    create_markdown_artifact(_cell(night.sentence()), key="night-summary", description="What this night did")
    if decision := night.decision:
        rows = {"promoted": decision.promoted, "why": decision.why, "challenger": decision.challenger}
        rows |= {"champion before": decision.champion or "none", "test faces of release": decision.test_release or ""}
        _markdown("night-decision", "Champion and challenger", "Who is the champion now, and why", rows)
    if comparison := night.comparison():
        create_table_artifact(comparison, key="night-comparison", description="Both models on the same frozen faces")
    if night.pruned and night.pruned.items:
        table = [{"what": k, "count": n, "bytes": size} for k, (n, size) in night.pruned.by_kind().items()]
        create_table_artifact(table, key="night-pruned", description="What the policy did not keep")
    show_build(night.built, report)


def show_reasons(reasons: Mapping[str, int]) -> None:
    """Why pairs were kept or dropped, the most frequent first, each with its share."""
    total = sum(reasons.values()) or 1
    ordered = sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
    table = [{"reason": name, "pairs": count, "share": f"{count / total:.1%}"} for name, count in ordered]
    create_table_artifact(table, key="build-reasons", description="One decision per pair: kept, or why not")


def link_report(report: Path) -> None:
    """The report where `gptface up` serves it, else as a file."""
    report = report.resolve()
    served = os.environ.get("GPTFACE_REPORT_URL", "")
    is_served = bool(served) and report.parent == Path(os.environ.get("GPTFACE_ROOT", "")).resolve() / "reports"
    link = f"{served}{report.name}" if is_served else report.as_uri()
    create_link_artifact(link, link_text="Report", key="report", description=f"The report lies at {report}")


def markdown_table(rows: Mapping[str, Any]) -> str:
    """Two columns, name and value; nested mappings as dotted names; what the page would read as markup is escaped."""
    lines = ["| | |", "|---|---:|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in _flat(rows)]
    return "\n".join(lines)


def _markdown(key: str, title: str, description: str, rows: Mapping[str, Any]) -> None:
    create_markdown_artifact(f"## {title}\n\n{markdown_table(rows)}\n", key=key, description=description)


def _flat(rows: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in rows.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        elif not (isinstance(value, list | tuple) and len(value) > 8):  # curves are for the report
            flat.append((prefix + str(name), value))
    return flat


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
