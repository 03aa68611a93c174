"""Commands that run everything: demo, up, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.options import DEFAULT_ROOT, Root, RootOnDisk, Seed


def demo(
    root: RootOnDisk = DEFAULT_ROOT,
    images: Annotated[int, typer.Option(min=50, help="Pictures of the small web.")] = 3_600,
    detector: Annotated[str, typer.Option(help="insightface, cascade or auto.")] = "auto",
    seed: Seed = 0,
) -> None:
    """The whole way in minutes: a small web of drawn faces, crawled, curated, trained on, evaluated, edited.

    Example: gptface demo --root ./gptface-data
    """
    from flows.cli.tables import print_demo
    from flows.cli.ui import RichSink
    from flows.steps.demo import DemoConfig, run_demo
    from flows.steps.runner import LocalRunner, WorkerPool

    config = DemoConfig(root=str(root), images=images, detector=detector, seed=seed)
    with WorkerPool() as pool, RichSink() as sink:
        summary = run_demo(config, LocalRunner(pool, sink))
    print_demo(summary)


def up(
    root: Root = DEFAULT_ROOT,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the Prefect page; 0 for any.")] = 4200,
    auto_train: Annotated[
        bool,
        typer.Option(
            "--auto-train/--no-auto-train", help="Each new release starts a training, each model an evaluation."
        ),
    ] = False,
    train_preset: Annotated[str, typer.Option(help="Preset of such a training, or a .json file.")] = "demo",
    train_processes: Annotated[int, typer.Option(min=0, help="Its processes (0: one per CUDA device, else one).")] = 0,
) -> None:
    """Start Prefect here: server, work pools, deployments, automations and workers. Ctrl-C stops all of it.

    Example: gptface up, then in another terminal: prefect deployment run build-dataset/local --watch
    """
    from flows.automations import AutoTrain
    from flows.cli.ui import fail
    from flows.cli.up import StartError
    from flows.cli.up import up as run

    try:
        run(root, port, AutoTrain(auto_train, train_preset, train_processes))
    except StartError as error:
        fail(str(error), code=1)


def doctor(root: Root = DEFAULT_ROOT) -> None:
    """Check this machine: Python, packages, detector, GPU, disk, Prefect; say how to mend what is wrong.

    Example: gptface doctor
    """
    from flows.cli.tables import print_checks
    from flows.steps.doctor import examine

    if print_checks(examine(root)):
        raise typer.Exit(1)
