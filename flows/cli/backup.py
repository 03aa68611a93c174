"""Commands against the loss of a root: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, RootOnDisk


def backup(
    target: Annotated[Path, typer.Argument(help="Folder of the backups, best on another disk.")],
    root: RootOnDisk = DEFAULT_ROOT,
    keep: Annotated[int, typer.Option(min=1, help="Newest backups that stay there.")] = 2,
) -> None:
    """Add a backup of the root to a folder: the catalogue and all files, those that are unchanged as hard links.

    After a takedown, --keep 1: earlier backups still hold what was taken down.

    Example: gptface backup /mnt/other-disk/gptface --keep 7
    """
    from flows.cli.ui import RichSink, out
    from flows.steps.backup import backup as run

    with RichSink() as sink:
        done = run(root, target, keep, lambda sofar, total: sink.update("backup", sofar, total))
    new = f"{done.copied / 1e6:,.1f} MB of {done.bytes / 1e6:,.1f} MB are new"
    out.print(f"{done.files:,} files in {done.path}, {new}", soft_wrap=True, markup=False, highlight=False)


def restore(
    source: Annotated[Path, typer.Argument(help="A backup, or the folder of the backups (then the newest).")],
    root: RootOnDisk = DEFAULT_ROOT,
    catalog: Annotated[
        str, typer.Option(help="An empty database postgres://user@host/name, where the catalogue was in PostgreSQL.")
    ] = "",
) -> None:
    """Bring a lost root back from a backup, every file checked; the root must not exist, or be empty.

    Example: gptface restore /mnt/other-disk/gptface --root ./gptface-data
    """
    from flows.cli.ui import RichSink, out
    from flows.steps.backup import restore as run

    with RichSink() as sink:
        done = run(source, root, catalog, lambda sofar, total: sink.update("restore", sofar, total))
    out.print(f"{done.files:,} files from {done.path} in {root}", soft_wrap=True, markup=False, highlight=False)
    out.print("What was taken down after that backup is there again: run those takedowns once more.", soft_wrap=True)
