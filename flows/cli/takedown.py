"""The command that takes things down for good."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from flows.steps.takedown import TakedownPlan, TakedownSummary

_SHOWN_HOSTS = 10


def takedown(
    url: Annotated[list[str] | None, typer.Option(help="Address of a picture or of a page; may be repeated.")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="All from a host, such as example.org; may be repeated.")
    ] = None,
    sha256: Annotated[list[str] | None, typer.Option(help="Hash of a picture's bytes (image_id).")] = None,
    like: Annotated[list[Path] | None, typer.Option(help="A picture file: it, and what looks the same.")] = None,
    person_like: Annotated[
        list[Path] | None,
        typer.Option(help="A picture file with one face: pictures of this person (needs a recogniser)."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    near_bits: Annotated[int, typer.Option(min=0, max=16, help="Bits in which hashes of --like may differ.")] = 3,
    similarity: Annotated[float, typer.Option(help="Cosine from which --person-like takes faces for the same.")] = 0.4,
    detector: Annotated[str, typer.Option(help="Of --like and --person-like: insightface, cascade or auto.")] = "auto",
    pack: Annotated[str, typer.Option(help="Of --like and --person-like: InsightFace model pack.")] = "buffalo_sc",
) -> None:
    """Remove pictures for good, from all releases and all files, and see to it that they do not come back.

    Shows what will go, asks, then removes it. Without anything to take down, an interrupted takedown is finished.

    Example: gptface takedown --url https://example.org/people/jane.jpg --root ./gptface-data
    """
    from flows.cli.ui import RichSink, out
    from flows.steps.runner import LocalRunner, WorkerPool
    from flows.steps.takedown import TakedownConfig, plan, take_down

    config = TakedownConfig(
        root=str(root),
        urls=tuple(url or ()),
        hosts=tuple(host or ()),
        sha256s=tuple(sha256 or ()),
        like=tuple(map(str, like or ())),
        person_like=tuple(map(str, person_like or ())),
        near_bits=near_bits,
        similarity=similarity,
        detector=detector,
        pack=pack,
    )
    shown = None
    if config.kinds and not (yes and not dry_run):
        shown = plan(config)
        _print_plan(shown)
        if dry_run or not sys.stdin.isatty():
            out.print("Nothing was removed" + ("." if dry_run else ": add --yes to do it."))
            return
        typer.confirm("Remove all this for good?", abort=True)
    with WorkerPool() as pool, RichSink() as sink:
        done = take_down(config, LocalRunner(pool, sink), shown.found if shown else None)
    for summary in done:
        _print_summary(summary)


def _print_plan(found: TakedownPlan) -> None:
    from rich.table import Table

    from flows.cli.ui import out

    table = Table(title="To be removed, from all releases", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in (
        ("pictures", found.pictures),
        ("their addresses", found.addresses),
        ("pairs", found.pairs),
        ("copies of bytes", found.raw_copies),
        ("shards to be rewritten", sum(map(len, found.shards.values()))),
    ):
        table.add_row(name, f"{count:,}")
    for name, count in list(found.hosts.items())[:_SHOWN_HOSTS]:
        table.add_row(f"  pairs from {name}", f"{count:,}", style="dim")
    out.print(table)
    if found.is_empty:
        out.print("Nothing of it is here now; taking it down would keep it out.")
    if found.near_duplicates:
        out.print(f"{found.near_duplicates:,} pictures look nearly the same and stay: --like takes them along.")
    _print_models(found.models)


def _print_summary(done: TakedownSummary) -> None:
    from flows.cli.ui import out

    begun = " (begun by an earlier run)" if done.resumed else ""
    out.print(f"Takedown {done.takedown_id}{begun}: {done.pictures:,} pictures, {done.pairs:,} pairs", highlight=False)
    for table, rows in done.rows.items():
        out.print(f"  {rows:,} rows of {table}, over all releases", highlight=False)
    shards = sum(map(len, done.shards.values()))
    out.print(f"  {done.raw_copies:,} copies of bytes overwritten, {shards:,} shards rewritten", highlight=False)
    _print_models(done.models)


def _print_models(models: list[str]) -> None:
    from flows.cli.ui import out

    if models:
        named = ", ".join(models)
        out.print(f"Models that saw it: {named}. Their weights stay until you retrain or delete them.", markup=False)
