"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from flows.cli.ui import out

if TYPE_CHECKING:
    from flows.steps.demo import DemoSummary
    from flows.steps.doctor import Check
    from flows.steps.pipeline import BuildSummary, EvaluateSummary, TrainSummary
    from gptface_core.ablation import Difference
    from warehouse.whatif import WhatIf


def shown_root(root: str) -> str:
    """What to call the root of a summary in a further command."""
    from warehouse.store import shown

    return shown(Path(root))


def print_build(summary: BuildSummary) -> None:
    """What came how far, why the rest did not, and where the result lies."""
    out.print(_funnel_table(summary.pairs, summary.downloaded, summary.with_face, summary.kept, summary.reasons))
    samples = ", ".join(f"{count:,} {split}" for split, count in summary.samples.items())
    news = "" if summary.is_new else " (nothing new: as before)"
    out.print(
        f"Release  {summary.release}{news} · detector {summary.detector} · {summary.seconds:.0f} s", highlight=False
    )
    out.print(f"Shards   {summary.shards} ({samples})", highlight=False)
    root = shown_root(summary.root)
    out.print(f"Lake     {root}/lake", soft_wrap=True, highlight=False)
    out.print(f'Ask it   gptface sql --root {root} "select * from funnel"', soft_wrap=True, highlight=False)


def print_funnel(root: Path, at: int | None) -> None:
    """The funnel of the current release, or of release `at`, and what its reasons mean."""
    import warehouse
    from warehouse.report.reasons import sentence

    with warehouse.connect(root, at=at) as con:
        rows = con.execute("SELECT stage, reason, pairs, remaining FROM funnel ORDER BY stage_order").fetchall()
    total = sum(row[2] for row in rows)
    table = Table(title=f"{total:,} pairs", title_justify="left")
    for name in ("stage", "reason"):
        table.add_column(name)
    for name in ("pairs", "share", "left"):
        table.add_column(name, justify="right")
    for stage, reason, pairs, remaining in rows:
        style = "bold green" if reason == "kept" else ""
        table.add_row(stage, reason, f"{pairs:,}", _share(pairs, total), f"{remaining:,}", style=style)
    out.print(table)
    for _, reason, _, _ in rows:
        out.print(f"{reason}: {sentence(reason)}", style="dim", markup=False, highlight=False, soft_wrap=True)


def print_what_if(answer: WhatIf, rule: str, values: tuple[object, object], by: str, top: int) -> None:
    """Rows lost and gained by a change of `rule` between two values: the whole, the largest groups, the reasons."""
    before, after = (escape(_rule_value(value)) for value in values)
    table = Table(title=f"If {rule} were {after}, not {before}", title_justify="left")
    table.add_column(by)
    for name in (f"kept at {before}", f"kept at {after}", "lost", "gained", "lost share"):
        table.add_column(name, justify="right")
    for cost in (answer.total, *answer.groups[:top]):
        cells = [f"{number:,}" for number in (cost.before, cost.after, cost.lost, cost.gained)]
        style = "bold" if cost is answer.total else ""
        table.add_row(cost.group, *cells, f"{cost.lost_share:.1%}", style=style)
    out.print(table)
    if len(answer.groups) > top:
        out.print(f"... and {len(answer.groups) - top:,} more groups: --top shows more", highlight=False)
    for reason, rows in answer.reasons.items():
        out.print(f"{rows:,} would go by {reason}", highlight=False)


def _rule_value(value: object) -> str:
    """As `--rule` takes it; "none" for an empty list or text."""
    if isinstance(value, bool):
        return str(value).lower()
    return (",".join(map(str, value)) if isinstance(value, tuple) else str(value)) or "none"


def print_training(summary: TrainSummary) -> None:
    table = Table("figure", title=f"Model {summary.model}", title_justify="left")
    table.add_column("value", justify="right")
    for name, value in summary.metrics.items():
        table.add_row(name, f"{value:.3f}")
    out.print(table)
    out.print(f"Model  {summary.path} · {summary.seconds:.0f} s", soft_wrap=True, highlight=False)


def print_evaluation(summary: EvaluateSummary) -> None:
    from flows.steps.measured import by_reason

    table = Table(title=f"Model {summary.model} on release {summary.release}", title_justify="left")
    _metric_columns(table)
    for name, metric in summary.metrics.items():
        table.add_row(name, *_metric_cells(metric))
    out.print(table)
    for names, why in by_reason(summary.left_out):
        out.print(f"left out: {names} ({why})", highlight=False)
    if summary.kept:
        out.print(f"measured by an earlier run: {', '.join(summary.kept)} (--fresh runs them again)", highlight=False)


def print_demo(summary: DemoSummary) -> None:
    """The end of `gptface demo`: corpus, model, and where everything lies."""
    from flows.steps.demo import HEADLINE

    built = summary.build
    out.print(_funnel_table(built.pairs, built.downloaded, built.with_face, built.kept, built.reasons))
    table = Table(
        title="Model, on held-out faces",
        title_justify="left",
        caption_justify="left",
        caption="baseline: chance for the first two, no gain for the others",
    )
    _metric_columns(table)
    for name, metric in summary.headline.items():
        table.add_row(HEADLINE[name], *_metric_cells(metric))
    out.print(table)
    out.print(
        f"Release {built.release} · {built.shards} shards · detector {built.detector} · {summary.seconds:.0f} s in all",
        highlight=False,
    )
    for name, place in (("Report", summary.report), ("Lake", f"{built.root}/lake"), ("Model", summary.model)):
        out.print(f"{name:<7} {place}", soft_wrap=True, highlight=False)
    out.print(f'Next    gptface sql --root {built.root} "select * from funnel"', soft_wrap=True, highlight=False)


def print_checks(checks: Iterable[Check]) -> bool:
    """The doctor's report, line by line as the checks end; True where something is bad."""
    marks = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "bad": "[bold red]✗[/]"}
    bad = False
    for check in checks:
        bad = bad or check.verdict == "bad"
        out.print(f"{marks[check.verdict]} {check.name:<15}", end="", highlight=False)
        out.print(check.found, markup=False, highlight=False, soft_wrap=True)
        if check.mend:
            out.print(f"  {'':<15}→ {check.mend}", markup=False, highlight=False, soft_wrap=True, style="dim")
    return bad


def _funnel_table(pairs: int, downloaded: int, with_face: int, kept: int, reasons: dict[str, int]) -> Table:
    table = Table(title="Corpus", title_justify="left")
    table.add_column("pairs")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    for name, count in (("found", pairs), ("downloaded", downloaded), ("with a face", with_face), ("kept", kept)):
        table.add_row(name, f"{count:,}", _share(count, pairs), style="bold green" if name == "kept" else "bold")
    table.add_section()
    for reason, count in reasons.items():
        if reason != "kept":
            table.add_row(f"  {reason}", f"{count:,}", _share(count, pairs), style="dim")
    return table


def _metric_columns(table: Table) -> None:
    table.add_column("figure", overflow="fold")  # a long name takes two lines before a number is cut
    for name in ("value", "95 % interval", "baseline", "samples"):
        table.add_column(name, justify="right", no_wrap=True)


def _metric_cells(metric: dict[str, float | None]) -> tuple[str, str, str, str]:
    low, high, samples = metric.get("low"), metric.get("high"), metric.get("samples")
    interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return _number(metric.get("value")), interval, _number(metric.get("baseline")), f"{samples:,.0f}" if samples else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


def print_ablations(differences: Iterable[Difference]) -> None:
    """What the whole method gains over each arm; bold where that is beyond its interval, red where it loses."""
    from gptface_core.ablation import ARMS

    table = Table(title="What each part is worth", title_justify="left")
    for name in ("without it", "figure"):
        table.add_column(name)
    for name in ("whole", "without", "gain", "95 % interval"):
        table.add_column(name, justify="right")
    for each in differences:
        style = "bold green" if each.low > 0 else "red" if each.high < 0 else ""
        cells = [f"{each.whole:.3f}", f"{each.without:.3f}", f"{each.difference:+.3f}"]
        table.add_row(ARMS[each.arm].says, each.metric, *cells, f"{each.low:+.3f} to {each.high:+.3f}", style=style)
    out.print(table)
