"""The command that tells what changed between two releases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.corpus import Format
from flows.cli.options import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from warehouse.diff import Diff


def diff(
    a: Annotated[int, typer.Argument(min=1, metavar="A", help="The older release.")],
    b: Annotated[int, typer.Argument(min=1, metavar="B", help="The newer release.")],
    root: Root = DEFAULT_ROOT,
    kind: Annotated[
        str,
        typer.Option(
            "--list",
            help="Show the rows of one kind: new_pairs, gone_pairs, link_rot, changed_bytes, withdrawn_consent, "
            "regained, changed_captions, dropped or taken_in.",
        ),
    ] = "",
    format: Annotated[Format, typer.Option("--format", help="How to show the result.")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (required for parquet).")] = None,
) -> None:
    """What changed between two releases: link rot, changed pictures, withdrawn consent, new and gone pairs.

    Example: gptface diff 1 2 --list link_rot --format csv --out rot.csv
    """
    from warehouse.diff import diff as compare
    from warehouse.diff import write_counts, write_diff

    if kind:
        write_diff(root, a, b, kind, format.value, output)
        return
    found = compare(root, a, b)
    if output is not None or format in (Format.CSV, Format.PARQUET):
        write_counts(found, format.value, output)
    elif format is Format.JSON:
        sys.stdout.write(json.dumps(found.as_dict(), indent=1) + "\n")
    else:
        _print(found)


def _print(found: Diff) -> None:
    from rich.table import Table

    from flows.cli.ui import out
    from warehouse.diff import KINDS

    table = Table(title=f"Release {found.a} to release {found.b}", title_justify="left")
    table.add_column("change", no_wrap=True)
    table.add_column("count", justify="right")
    table.add_column("of")
    table.add_column("--list", style="dim", no_wrap=True)
    for kind in KINDS:
        number = found.counts[kind.name]
        table.add_row(kind.title, f"{number:,}", kind.unit, kind.name, style="bold" if number else "dim")
        for reason, part in found.reasons.get(kind.name, {}).items():
            table.add_row(f"  {reason}", f"{part:,}", "", "", style="dim")
    out.print(table)
    out.print(f"Kept   {found.kept_a:,} → {found.kept_b:,}", highlight=False)
