"""`gptface metrics`: what runs on a root, for Prometheus."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root


def metrics(
    root: Root = DEFAULT_ROOT,
    listen: Annotated[str, typer.Option(help="[HOST:]PORT; without a host, this machine alone can ask.")] = "9464",
) -> None:
    """Tell Prometheus about the runs on a root, one after the other, whoever starts them. Ctrl-C stops it.

    Example: gptface metrics --root ./gptface-data --listen 0.0.0.0:9464
    """
    from flows.cli.ui import out
    from flows.steps.metrics import served_metrics

    with served_metrics(root, listen) as url:
        out.print(f"Metrics of {root}: {url}", soft_wrap=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
