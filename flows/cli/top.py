"""`gptface top`: a run as it goes, of this process or any other that works on the root."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from flows.steps.progress import Progress, Step

_BAR_FROM = 100  # columns of the terminal from which on there is room for bars
_REASONS = 8  # shown, the rest as one


def top(
    root: Root = DEFAULT_ROOT,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave (for scripts).")] = False,
    every_s: Annotated[float, typer.Option(min=0.2, help="Seconds between two frames.")] = 1.0,
) -> None:
    """Watch a run on a root: steps, shards, rows, why rows were lost, speed, time left. Ctrl-C leaves, the run goes on.

    Example: gptface top --root ./gptface-data
    """
    from rich.live import Live

    from flows.cli.ui import out

    progress = _read(root)
    if once or not out.is_terminal:
        out.print(frame(progress, out.width, time.time()))
        return
    try:
        with Live(frame(progress, out.width, time.time()), console=out, auto_refresh=False) as live:
            while progress.is_alive():
                time.sleep(every_s)
                progress = _read(root)
                live.update(frame(progress, out.width, time.time()), refresh=True)
    except KeyboardInterrupt:
        pass


def _read(root: Path) -> Progress:
    from flows.steps.config import ConfigError
    from flows.steps.progress import read_progress

    progress = read_progress(root)
    if progress is None:
        raise ConfigError(f"no run under {root}: start one (`gptface build ...`), or name its --root")
    return progress


def frame(progress: Progress, width: int, now: float) -> RenderableType:
    """Everything about a run, for a terminal of `width` columns, at `now` (seconds since the epoch)."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_headline(progress, now), Text(), _steps(progress, width, now)]
    if lost := _lost(progress, width):
        parts += [Text(), lost]
    return Group(*parts)


def _headline(progress: Progress, now: float) -> RenderableType:
    from rich.text import Text

    from flows.steps.progress import span

    run = progress.run
    ended = run.ended_at or (now if progress.is_alive() else progress.told_at)
    colour, word = {"running": ("cyan", "running"), "completed": ("green", "done"), "failed": ("red", "failed")}[
        run.status
    ]
    if run.status == "running" and not progress.is_alive():
        colour, word = "red", "died"
    line = Text.assemble(
        (f"{run.kind} ", "bold"), (run.subject, ""), "  ", (f"{word} {span(ended - run.started_at)}", f"bold {colour}")
    )
    line.append(f"\nrun {run.run_id[:8]}, process {run.pid} on {run.host}", "dim")
    silent = now - progress.told_at
    if progress.is_alive() and silent > 60:
        line.append(f", nothing told for {span(silent)}", "yellow")
    if word == "died":
        line.append("\nits process is gone; start the same command again to go on where it was", "red")
    if run.error:
        line.append(f"\n{run.error}", "red")
    return line


def _steps(progress: Progress, width: int, now: float) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("step", no_wrap=True)
    if width >= _BAR_FROM:
        table.add_column("", no_wrap=True)
    for name in ("done", "queued", "rows", "rows/s", "time", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in progress.run.steps:
        table.add_row(*_row(progress, step, width, now))
    return table


def _row(progress: Progress, step: Step, width: int, now: float) -> list[RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    from flows.steps.progress import span

    done, work = progress.shards_done(step), progress.of(step)
    is_open = step.ended_at is None
    mark, style = ("▶", "cyan") if is_open and progress.is_alive() else ("✗", "red") if is_open else ("✓", "green")
    row: list[RenderableType] = [Text.assemble((f"{mark} ", style), step.name)]
    if width >= _BAR_FROM:
        row.append(ProgressBar(step.total, done, width=24) if step.total else Text(step.note[:24], "dim"))
    counted = step.total is not None
    left = progress.seconds_left(step, now)
    row += [
        f"{done:,.0f}" if counted or done else "",
        f"{step.total - done:,.0f}" if step.total is not None else "",
        f"{work.rows:,}" if work.rows else "",
        f"{progress.rows_per_s(step, now):,.0f}" if work.rows else "",
        span(progress.seconds(step, now)),
        "" if left is None else span(left),
    ]
    return row


def _lost(progress: Progress, width: int) -> RenderableType | None:
    """Rows kept or still in the race, and why the others are not."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    decisions, lost = progress.run.decisions, progress.lost()
    if not decisions and not any(work.rows for work in progress.work.values()):
        return None
    gone = sum(lost.values())
    line = Text.assemble(("lost ", "bold"), f"{gone:,} rows so far")
    if decisions:
        of = f"{decisions.get('kept', 0):,} of {sum(decisions.values()):,} rows, "
        line = Text.assemble(("kept ", "bold"), of, ("lost ", "bold"), f"{gone:,}")
    shown = list(lost.items())[:_REASONS]
    if len(lost) > _REASONS:
        shown.append(("others", gone - sum(rows for _, rows in shown)))
    words = [Text.assemble((f"{reason} ", "dim"), f"{rows:,}") for reason, rows in shown]
    return Group(line, Columns(words, padding=(0, 3), width=max(20, min(34, width // 2 - 4))))
