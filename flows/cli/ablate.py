"""The command that asks what each part of the method is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Release, RootOnDisk


def ablate(
    root: RootOnDisk = DEFAULT_ROOT,
    preset: Annotated[str, typer.Option(help="Preset that all arms change, or a .json file.")] = "demo",
    suite: Annotated[str, typer.Option(help="quick (spans, matching, masked matching), or full.")] = "quick",
    seeds: Annotated[str, typer.Option(help="Seeds of each arm, with commas between.")] = "0,1,2",
    release: Release = 0,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Folder (default: ROOT/ablations/PRESET).")] = None,
    precision: Annotated[str, typer.Option(help="auto (bf16 on CUDA, else fp32), bf16 or fp32.")] = "auto",
) -> None:
    """Train and evaluate the method with one thing changed at a time, and tabulate what each is worth.

    Every arm has the same data, image tokenizer and steps. Stopped, the same command goes on with what is missing.

    Example: gptface ablate --preset tiny --suite quick
    """
    from flows.cli.tables import print_ablations
    from flows.cli.ui import out
    from flows.steps.ablate import ablate_release

    numbers = _seeds(seeds)

    def tell(arm: str, seed: int) -> None:
        out.print(f"arm {arm}, seed {seed}", highlight=False)

    print_ablations(ablate_release(root, preset, suite, numbers, release, output, precision, tell))


def _seeds(text: str) -> tuple[int, ...]:
    from flows.steps.config import ConfigError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ConfigError(f"--seeds {text}: give different whole numbers with commas between, as in 0,1,2")
    return tuple(map(int, words))
