"""What a person sees in the terminal: progress, tables, and errors as one clear line."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

out = Console()
err = Console(stderr=True)


class RichSink:
    """Progress of the pipeline's steps: live bars on a terminal, one line per finished step elsewhere."""

    def __init__(self, console: Console = err) -> None:
        self._console = console
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
            from rich.progress import TimeElapsedColumn as Elapsed

            columns = (
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                Elapsed(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            self._live = Progress(*columns, console=self._console)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, name: str, total: float | None) -> None:
        self._started[name] = time.monotonic()
        if self._live is None:
            return
        if name in self._tasks:
            self._live.reset(self._tasks[name], total=total, visible=True)
        else:
            self._tasks[name] = self._live.add_task(name, total=total, note="")

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        if name not in self._started:
            self.start(name, total)
        if self._live is not None:
            self._live.update(self._tasks[name], completed=done, total=total, note=note)

    def finish(self, name: str) -> None:
        seconds = time.monotonic() - self._started.get(name, time.monotonic())
        if self._live is None:
            self._console.print(f"{name:<12} done in {seconds:.1f} s", highlight=False)
            return
        task = self._live.tasks[list(self._tasks).index(name)]
        total = task.total if task.total else 1
        self._live.update(self._tasks[name], completed=total, total=total, note="")
        self._live.stop_task(self._tasks[name])


def is_user_error(error: BaseException) -> bool:
    """Whether the error says what a user can mend (its message is then enough)."""
    from crawler.errors import InputError as CrawlInput
    from flows.steps.config import ConfigError
    from flows.steps.runner import WorkerDiedError
    from flows.steps.space import is_disk_full
    from gptface_core.errors import InputError as CoreInput
    from gptface_core.errors import TrainingError
    from sample_web.errors import InputError as SampleInput
    from warehouse.errors import InputError as LakeInput

    kinds = (CrawlInput, CoreInput, SampleInput, LakeInput, ConfigError, WorkerDiedError, TrainingError, OSError)
    return isinstance(error, kinds) or is_disk_full(error)


def describe(error: BaseException) -> str:
    """One line: an OSError with its file, anything else as it says itself."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split())


def fail(message: str, code: int = 2) -> None:
    """Say it on stderr in one line and leave."""
    err.print(f"[bold red]gptface:[/] {message}", highlight=False, soft_wrap=True, markup=True)
    sys.exit(code)
