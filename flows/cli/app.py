"""The command tree, grouped as its help shows it."""

from __future__ import annotations

import typer

from flows.cli import (
    ablate,
    ask,
    backup,
    card,
    champions,
    corpus,
    curation,
    diff,
    edit,
    metrics,
    model,
    rebuild,
    service,
    takedown,
    top,
)

RUN, CORPUS, MODEL, USE = "Run everything", "Corpus", "Model", "Edit, generate, caption"

app = typer.Typer(
    name="gptface",
    help="From the open web to a trained face-language model, reproducibly.",
    epilog="Start with: gptface demo   ·   any command: --help for an example, --debug for the full traceback",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=RUN)(service.demo)
app.command(rich_help_panel=RUN)(service.up)
app.command(rich_help_panel=RUN)(service.doctor)
app.command(rich_help_panel=RUN)(top.top)
app.command(rich_help_panel=RUN)(metrics.metrics)
app.command(rich_help_panel=RUN)(backup.backup)
app.command(rich_help_panel=RUN)(backup.restore)
app.command(rich_help_panel=CORPUS)(corpus.build)
app.command(rich_help_panel=CORPUS)(ask.sql)
app.command(rich_help_panel=CORPUS)(ask.snapshots)
app.command(rich_help_panel=CORPUS)(corpus.funnel)
app.command(rich_help_panel=CORPUS)(curation.whatif)
app.command(rich_help_panel=CORPUS)(corpus.report)
app.command(rich_help_panel=CORPUS)(card.card)
app.command(rich_help_panel=CORPUS)(diff.diff)
app.command(rich_help_panel=CORPUS)(corpus.shard)
app.command(rich_help_panel=CORPUS)(rebuild.rebuild)
app.command(rich_help_panel=CORPUS)(takedown.takedown)
app.command(rich_help_panel=CORPUS)(champions.prune)
app.command(rich_help_panel=MODEL)(model.train)
app.command(rich_help_panel=MODEL)(model.evaluate)
app.command(rich_help_panel=MODEL)(ablate.ablate)
app.command(rich_help_panel=MODEL)(champions.models)
app.command(rich_help_panel=MODEL)(champions.promote)
app.command(rich_help_panel=MODEL)(champions.rollback)
app.command(rich_help_panel=USE)(edit.edit)
app.command(rich_help_panel=USE)(edit.generate)
app.command(rich_help_panel=USE)(edit.caption)
