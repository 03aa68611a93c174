"""The command that writes the dataset card."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, At, Root


def card(
    root: Root = DEFAULT_ROOT,
    name: Annotated[str, typer.Option(help="Name of the corpus.")] = "gptface-corpus",
    url: Annotated[str, typer.Option(help="Where the corpus lies.")] = "",
    contact: Annotated[str, typer.Option(help="Whom to ask for a takedown.")] = "",
    at: At = None,
) -> None:
    """Write the dataset card: README.md for the Hugging Face hub and Croissant metadata, filled from SQL.

    Example: gptface card --name my-faces --contact takedown@example.org
    """
    from flows.cli.ui import out
    from flows.steps.card import write_card
    from warehouse.report.card import Naming

    out.print(f"Card     {write_card(root, Naming(name, url, contact), at)}", soft_wrap=True, highlight=False)
