"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Root = Annotated[
    Path,
    typer.Option("--root", envvar="GPTFACE_ROOT", help="Folder of lake, raw pictures, shards, models and reports."),
]
At = Annotated[int | None, typer.Option("--at", min=1, help="Read an earlier release (default: the current one).")]
Release = Annotated[int, typer.Option("--release", min=0, help="Release of the corpus (0: the newest).")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
DEFAULT_ROOT = Path("gptface-data")
