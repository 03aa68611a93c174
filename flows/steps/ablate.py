"""Ablations on the shards of a release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps.layout import Layout
from flows.steps.shard import resolve_release

if TYPE_CHECKING:
    from gptface_core.ablation import Difference, OnArm


def ablate_release(
    root: Path,
    preset: str,
    suite: str,
    seeds: Sequence[int],
    release: int = 0,
    out: Path | None = None,
    precision: str = "auto",
    on_arm: OnArm | None = None,
) -> list[Difference]:
    """Run the suite's arms; rows and models below `out` (default: ROOT/ablations/PRESET)."""
    from transformers.utils import logging

    from gptface_core.ablation import ablate
    from gptface_core.config import RunOptions, load_preset

    logging.disable_progress_bar()
    layout = Layout(root)
    number, resolved = resolve_release(layout, release), load_preset(preset)
    labels = layout.labels(number)
    return ablate(
        layout.shards(number),
        labels if labels.is_file() else None,
        out or layout.ablations / resolved.name,
        resolved,
        suite,
        seeds,
        RunOptions(precision=precision),
        on_arm,
    )
