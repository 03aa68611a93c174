"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _found(place: Path) -> Path:
    """The folder of a root, also of one on an object store."""
    from warehouse.store import find_root

    return find_root(place)


def on_disk(context: typer.Context, place: Path) -> Path:
    """The same for commands that know roots on disk alone."""
    from warehouse.store import need_folder

    root = _found(place)
    need_folder(root, f"gptface {context.info_name}")
    return root


_ROOT_HELP = "Folder of lake, raw pictures, shards, models and reports"
Root = Annotated[
    Path,
    typer.Option("--root", envvar="GPTFACE_ROOT", help=f"{_ROOT_HELP}, or s3://bucket/folder.", callback=_found),
]
RootOnDisk = Annotated[Path, typer.Option("--root", envvar="GPTFACE_ROOT", help=f"{_ROOT_HELP}.", callback=on_disk)]
At = Annotated[int | None, typer.Option("--at", min=1, help="Read an earlier release (default: the current one).")]
Release = Annotated[int, typer.Option("--release", min=0, help="Release of the corpus (0: the newest).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes (0: one per core).")]
PartUrls = Annotated[int, typer.Option(min=1, help="Picture addresses per part, the unit of resumption.")]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="Allow loopback and private addresses (tests, intranet).")
]
DownloadThreads = Annotated[int, typer.Option(min=1, help="Pictures asked for at once, per worker.")]
HostConcurrency = Annotated[int, typer.Option(min=1, help="Pictures of one host asked for at once.")]
HostDelay = Annotated[float, typer.Option("--host-delay-s", min=0, help="Seconds between two pictures of a host.")]
RefusalLimit = Annotated[int, typer.Option(min=1, help="Refusals in a row that end the asking of a host.")]
Retries = Annotated[int, typer.Option(min=0, help="Further tries after a passing failure.")]
DEFAULT_ROOT = Path("gptface-data")
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics", envvar="GPTFACE_METRICS", help="Serve Prometheus metrics at [HOST:]PORT meanwhile (default: not)."
    ),
]
