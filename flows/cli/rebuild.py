"""The command that makes a corpus again from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import (
    AllowPrivate,
    DownloadThreads,
    HostConcurrency,
    HostDelay,
    PartUrls,
    RefusalLimit,
    Retries,
    Workers,
    on_disk,
)

if TYPE_CHECKING:
    from flows.steps.rebuild import RebuildReport

_SHOWN = 10
_VERDICTS = {
    "same": "same bytes",
    "changed": "other bytes",
    "gone": "gone",
    "refused": "refused now",
    "taken_down": "taken down",
}


def rebuild(
    manifest: Annotated[Path, typer.Argument(help="A manifest: its folder, manifest.json or manifest.parquet.")],
    root: Annotated[Path, typer.Option("--root", help="A new, empty root.", callback=on_disk)],
    allow_private: AllowPrivate = False,
    pixels_close: Annotated[
        bool, typer.Option("--pixels-close", help="With other encoder versions: compare pixels instead of bytes.")
    ] = False,
    tombstones: Annotated[Path | None, typer.Option(help="Another root whose takedowns are honoured as well.")] = None,
    workers: Workers = 0,
    part_urls: PartUrls = 2_000,
    download_threads: DownloadThreads = 32,
    host_concurrency: HostConcurrency = 8,
    host_delay_s: HostDelay = 0.0,
    refusal_limit: RefusalLimit = 3,
    retries: Retries = 2,
) -> None:
    """Make the shards of a manifest again: ask for its pictures, verify them, write the same bytes.

    Hosts are asked for consent anew, and takedowns are honoured. May be stopped at any moment: the same command goes
    on; after the end it asks again for what had failed for a passing reason. Exit code 1 where a shard is not what
    the manifest says although its pictures are.

    Example: gptface rebuild gptface-data/shards/r00001 --root ./rebuilt
    """
    from flows.cli.ui import RichSink
    from flows.steps.rebuild import rebuild as run
    from flows.steps.rebuild_crawl import RebuildConfig
    from flows.steps.runner import LocalRunner, WorkerPool

    config = RebuildConfig(
        manifest=str(manifest),
        root=str(root),
        tombstones=str(tombstones or ""),
        pixels_close=pixels_close,
        allow_private=allow_private,
        workers=workers,
        part_urls=part_urls,
        download_threads=download_threads,
        host_concurrency=host_concurrency,
        host_delay_s=host_delay_s,
        refusal_limit=refusal_limit,
        retries=retries,
    )
    with WorkerPool(workers) as pool, RichSink() as sink:
        report = run(config, LocalRunner(pool, sink))
    _print(report, root)
    if not report.is_verified:
        raise typer.Exit(1)


def _print(report: RebuildReport, root: Path) -> None:
    from rich.table import Table

    from flows.cli.ui import out

    table = Table(title=f"Rebuilt release {report.release}", title_justify="left")
    for name in ("pictures", "reason"):
        table.add_column(name)
    for name in ("samples", "share"):
        table.add_column(name, justify="right")
    for verdict, reasons in report.verdicts.items():
        for reason, count in reasons.items():
            style = "bold green" if verdict == "same" else ""
            table.add_row(_VERDICTS[verdict], reason, f"{count:,}", f"{count / report.samples:.1%}", style=style)
    out.print(table)
    for kind, text in (
        ("identical", "have the manifest's bytes (sha256)"),
        ("short", "lack samples; those that are left are as in the manifest"),
        ("close", "have the manifest's pixels, by another encoder"),
        ("dropped", "have no sample left"),
        ("other", "are NOT what the manifest says"),
    ):
        files = getattr(report, kind)
        if files:
            more = (
                "" if kind == "identical" else f": {', '.join(files[:_SHOWN])}{' ...' if len(files) > _SHOWN else ''}"
            )
            out.print(f"{len(files):,} of {_shards(report):,} shards {text}{more}", highlight=False)
    if report.pixels_close:
        out.print(f"Crops differ by at most {report.max_difference} of 255 levels in the mean of a block.")
    out.print(f"Report   {root / 'reports' / 'rebuild.json'}", soft_wrap=True, highlight=False)


def _shards(report: RebuildReport) -> int:
    return sum(len(files) for files in (report.identical, report.short, report.close, report.dropped, report.other))
