"""Commands that ask the lake: sql (one query, a ready-made one, or a prompt) and snapshots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.corpus import Format
from flows.cli.options import DEFAULT_ROOT, At, Root

if TYPE_CHECKING:
    from warehouse.snapshots import Snapshot

_WIDE = 110  # a narrower terminal wraps lines; nothing is cut


def sql(
    query: Annotated[
        str,
        typer.Argument(
            help="One SELECT over corpus, pairs, captions, images, faces, decisions, ... (default: a prompt, or the "
            "queries on standard input)."
        ),
    ] = "",
    root: Root = DEFAULT_ROOT,
    format: Annotated[Format, typer.Option("--format", help="How to show the result.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (required for parquet).")] = None,
    at: At = None,
    name: Annotated[str, typer.Option("--query", "-q", help="Run a ready-made query (see --list).")] = "",
    value: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of it, name=value; may be repeated.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the ready-made queries.")] = False,
) -> None:
    """Ask the corpus in SQL. Read-only, without access to files or the network.

    Example: gptface sql "select split, count(*), avg(face_px) from corpus group by split"

    Example: gptface sql --query captions_with --set word=glasses --format csv --out glasses.csv
    """
    from flows.cli.prompt import Prompt
    from warehouse.errors import InputError
    from warehouse.queries import ready_query
    from warehouse.query import run_query

    if listed:
        _print_queries()
        return
    if query and name:
        raise InputError(f"a query and --query {name}: give one of them")
    if value and not name:
        raise InputError(f"--set {value[0]}: a ready-made query takes values, choose one with --query")
    if name:
        query = ready_query(name).filled(_values(value or []))
    if query:
        run_query(root, query, format.value, output, at)
        return
    if output is not None:
        raise InputError(f"--out {output}: give the query whose result it is to hold")
    with Prompt(root, format.value, at) as prompt:
        if not prompt.run(sys.stdin):
            sys.exit(2)


def snapshots(
    root: Root = DEFAULT_ROOT,
    format: Annotated[Format, typer.Option("--format", help="How to show the result.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (required for parquet).")] = None,
) -> None:
    """List the releases: when, by which run, code and rules, what each kept, what came and went.

    A number in the first column is what --at takes, and `gptface diff A B`.

    Example: gptface snapshots --root ./gptface-data
    """
    from warehouse.snapshots import snapshots as read
    from warehouse.snapshots import write_snapshots

    if format is Format.TABLE and output is None:
        _print_snapshots(read(root))
    else:
        write_snapshots(root, format.value, output)


def _values(settings: list[str]) -> dict[str, str]:
    from warehouse.errors import InputError

    for setting in settings:
        if "=" not in setting:
            raise InputError(f"--set {setting}: give name=value")
    return {name: text for name, _, text in (setting.partition("=") for setting in settings)}


def _print_queries() -> None:
    from rich.table import Table

    from flows.cli.ui import out
    from warehouse.queries import ready_queries

    table = Table("--query", "answers", "--set")
    for query in ready_queries().values():
        takes = "\n".join(f"{p.name}={p.default}  {p.help}" for p in query.parameters)
        table.add_row(query.name, query.about, takes)
    out.print(table)


def _print_snapshots(found: list[Snapshot]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from flows.cli.ui import out

    table = Table(title="Releases, the newest first", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("release", "time (UTC)", "run", "code", "rules"):
        table.add_column(name, no_wrap=True)
    for name in ("pairs", "kept", "new", "gone", "shards"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        numbers = (f"{n:,}" for n in (each.pairs, each.kept, each.new, each.gone, each.shards))
        when = f"{each.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(each.release), when, escape(each.run_id[:8]), escape(each.code_version), each.rules, *numbers)
    Console(width=max(out.width, _WIDE)).print(table)
