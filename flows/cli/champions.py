"""Commands about which model is in use: models, promote, rollback; and about what need not be kept: prune."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from flows.steps.champions import ModelRow
    from flows.steps.retention import PruneSummary
    from warehouse.champions import Promotion

Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
_WIDE = 130  # a narrower terminal wraps lines; nothing is cut


def models(
    root: Root = DEFAULT_ROOT,
    history: Annotated[bool, typer.Option("--history", help="Every decision about the champion instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the models, the newest first: alias, release, parent, newest figures. The champion is what edit, generate,
    caption and evaluate take by default.

    Example: gptface models --history
    """
    from flows.cli.ui import out
    from flows.steps.champions import read_history, read_models
    from flows.steps.layout import Layout

    rows: list[Promotion] | list[ModelRow] = read_history(Layout(root)) if history else read_models(Layout(root))
    if as_json:
        told = [vars(row) if history else row.as_dict() for row in rows]  # type: ignore[union-attr]
        sys.stdout.write(json.dumps(told, indent=1, default=str) + "\n")
    elif not rows:
        out.print("No decision yet." if history else "No model yet: run gptface train.")
    elif history:
        _print_history(rows)  # type: ignore[arg-type]
    else:
        _print_models(rows)  # type: ignore[arg-type]


def promote(
    model: Annotated[str, typer.Argument(help="Name below ROOT/models.")], root: Root = DEFAULT_ROOT, why: Why = ""
) -> None:
    """Make a model the champion, by your own decision: nothing is measured. `gptface rollback` takes it back.

    Example: gptface promote night-demo-r00007-s0 --why "better on our own pictures"
    """
    from flows.steps.champions import promote as run
    from flows.steps.layout import Layout

    _print_decision(run(Layout(root), model, why or "by hand"))


def rollback(root: Root = DEFAULT_ROOT, why: Why = "") -> None:
    """Bring the champion before this one back.

    Example: gptface rollback --why "smiles look worse"
    """
    from flows.steps.champions import rollback as run
    from flows.steps.layout import Layout

    _print_decision(run(Layout(root), why or "by hand"))


def prune(
    root: Root = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, and its bytes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    keep_releases: Annotated[int, typer.Option(min=1, help="Newest releases whose shards stay.")] = 3,
    keep_models: Annotated[int, typer.Option(min=0, help="Newest models that stay beside the champions.")] = 3,
    raw: Annotated[bool, typer.Option("--raw/--no-raw", help="Raw shards that nothing needs.")] = True,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints/--no-checkpoints", help="Checkpoints and tokens of finished trainings.")
    ] = True,
    lake_days: Annotated[int, typer.Option(min=0, help="Days for which the lake's own snapshots stay.")] = 7,
) -> None:
    """Remove what the policy does not keep: old shards, raw shards, checkpoints, models. Shows it first and asks.

    Releases stay, as rows and as manifests. Nothing goes that the champion, the one before it or a release kept needs.

    Example: gptface prune --dry-run --keep-releases 5
    """
    from flows.cli.ui import RichSink, out
    from flows.steps.config import RetentionConfig
    from flows.steps.layout import Layout
    from flows.steps.retention import plan
    from flows.steps.retention import prune as run
    from flows.steps.runner import LocalRunner, WorkerPool

    layout, config = Layout(root), RetentionConfig(keep_releases, keep_models, raw, checkpoints, lake_days)
    if dry_run or not yes:
        found = plan(layout, config)
        _print_items(found)
        if dry_run or not found.items or not sys.stdin.isatty():
            asked = not dry_run and found.items
            out.print("Nothing was removed" + (": add --yes to do it." if asked else "."))
            return
        typer.confirm("Remove all this?", abort=True)
    with WorkerPool() as pool, RichSink() as sink:
        done = run(layout, config, LocalRunner(pool, sink))
    out.print(done.sentence(), highlight=False)


def _print_models(rows: list[ModelRow]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from flows.cli.ui import out
    from flows.steps.champions import FIGURES

    table = Table(title="Models, the newest first", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("model", "alias", "release", "preset", "from", "time (UTC)"):
        table.add_column(name, no_wrap=True)
    for name in FIGURES:
        table.add_column(name, justify="right")
    for row in rows:
        figures = (f"{row.figures[name]:.3f}" if name in row.figures else "" for name in FIGURES)
        alias = row.alias if row.whole else "gone"
        words = (row.model, alias, str(row.release or ""), row.preset.rpartition("/")[2], row.parent)
        style = "bold green" if alias == "champion" else "" if row.whole else "dim"
        table.add_row(*map(escape, words), f"{row.created_at:%Y-%m-%d %H:%M}", *figures, style=style)
    Console(width=max(out.width, _WIDE)).print(table)


def _print_history(rows: list[Promotion]) -> None:
    from flows.cli.ui import out

    for row in rows:
        out.print(f"{row.decided_at:%Y-%m-%d %H:%M}  {row.action:<8} {row.model}  by {row.decided_by}", highlight=False)
        out.print(f"    {row.why}; champion: {row.champion or 'none'}", markup=False, highlight=False, style="dim")


def _print_decision(done: Promotion) -> None:
    from flows.cli.ui import out

    before = f", before it {done.previous}" if done.previous else ""
    out.print(f"The champion is {done.champion}{before}.", markup=False, highlight=False)


def _print_items(found: PruneSummary) -> None:
    from rich.table import Table

    from flows.cli.ui import out

    table = Table(title="To be removed", title_justify="left")
    for name in ("what", "path", "why"):
        table.add_column(name)
    table.add_column("bytes", justify="right")
    for item in found.items:
        table.add_row(item.kind, item.path, item.why, f"{item.bytes:,}")
    table.add_section()
    table.add_row("in all", f"{len(found.items):,} files and folders", "", f"{found.bytes:,}")
    out.print(table)
    if found.snapshots:
        out.print(f"{found.snapshots:,} snapshots of the lake's own end; no release does.", highlight=False)
