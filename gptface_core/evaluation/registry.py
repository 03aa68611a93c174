"""The benchmarks there are, and how a suite of them is run.

A benchmark is a module of this package with a `BENCHMARK`: its name, the suites it belongs to, what it needs, and a
function from a `Context` to figures (it may also draw pictures, `Context.draw`). A new one is a line in MODULES. One
module may have several BENCHMARKS, a data set each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from gptface_core.errors import InputError
from gptface_core.evaluation.context import Context, NotMeasuredError
from gptface_core.evaluation.figure import Figure
from gptface_core.evaluation.kept import KeptWork, Record
from gptface_core.evaluation_options import EvaluationOptions

logger = logging.getLogger(__name__)

NEEDS = ("labels", "classifier", "data")  # see Context.missing

# In the order in which they run.
MODULES = (
    *("inpaint", "mim", "itm", "probe", "edit_sheet"),
    *(
        "itm_attributes",
        "retrieval",
        "attribute_classifier",
        "editing",
        "editing_alpha",
        "captioning",
        "unmask",
        "text_to_face",
        "leaks",
        "attributes",
        "expression",
        "manipulation",
    ),
)


@dataclass(frozen=True)
class Benchmark:
    """`headline`: a figure that stands in the results by its own name alone, as in every evaluation since the first.
    `options`: names of the options (beside `split`) that its figures depend on: with others it is measured anew.

    Without suites it runs only where it is asked for.
    """

    name: str
    suites: tuple[str, ...]
    run: Callable[[Context], list[Figure]]
    needs: tuple[str, ...] = ()
    headline: str = ""
    options: tuple[str, ...] = ()


@dataclass
class Measured:
    """Figures in the order they were made, seconds by benchmark, and what an earlier run had measured."""

    figures: list[Figure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    modules = (import_module(f"gptface_core.evaluation.{name}") for name in MODULES)
    found = [b for module in modules for b in getattr(module, "BENCHMARKS", None) or (module.BENCHMARK,)]
    return {benchmark.name: benchmark for benchmark in found}


def choose(options: EvaluationOptions) -> list[Benchmark]:
    """The benchmarks of a suite, or those asked for by name; InputError for a name that does not exist."""
    known = benchmarks()
    for name in options.only:
        if name not in known:
            raise InputError(f"no benchmark '{name}': choose {', '.join(known)}")
    asked = {*options.only, *(["editing_alpha"] if options.alphas else [])}
    by_suite = not options.only
    return [b for b in known.values() if b.name in asked or (by_suite and options.suite in b.suites)]


def run_suite(
    context: Context,
    chosen: Sequence[Benchmark],
    key: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Measured:
    """Run benchmarks one after the other; what cannot run is told in `context.left_out`.

    With a `key` (kept.key_of) each is kept below the results when it ends, and one that was kept under the same key is
    not run again. `on_progress` gets benchmarks done, all, and what is under way.
    """
    measured = Measured()
    for number, benchmark in enumerate(chosen):

        def told(note: str, done: int = number, name: str = benchmark.name) -> None:
            on_progress(done, len(chosen), f"{name} {note}".strip())

        context.tell = told
        context.tell("")
        context.kept = kept_work(context, benchmark, key) if key is not None else None
        try:
            record = _kept_record(context)
            if record is not None:
                measured.kept.append(benchmark.name)
                _take_over(context, record)
            else:
                record = _measure(context, benchmark)
        except NotMeasuredError as error:
            context.left_out[benchmark.headline or benchmark.name] = str(error)
            continue
        measured.figures += record.figures
        measured.seconds[benchmark.name] = record.seconds
    return measured


def kept_work(context: Context, benchmark: Benchmark, key: Mapping[str, Any]) -> KeptWork:
    """Where a benchmark's work is kept: beside the results, by split."""
    options = {name: getattr(context.options, name) for name in ("split", *benchmark.options)}
    folder = context.out / "kept" / context.options.split
    return KeptWork(folder, benchmark.name, {**key, "options": options, "benchmark": benchmark.name})


def _kept_record(context: Context) -> Record | None:
    """The record of an earlier run, where its pictures are still there (a takedown removes them)."""
    record = context.kept.load(context.rng.bit_generator.state) if context.kept else None
    return record if record and all(context.picture(name).is_file() for name in record.pictures) else None


def _take_over(context: Context, record: Record) -> None:
    """All that the benchmark would have left in the context."""
    context.rows |= record.rows
    context.left_out |= record.left_out
    if record.before != record.after:
        context.rng.bit_generator.state = dict(record.after)


def _measure(context: Context, benchmark: Benchmark) -> Record:
    """Run it; what it leaves, which is kept where work is. Raises NotMeasuredError where it cannot run."""
    if reason := next(filter(None, map(context.missing, benchmark.needs)), None):
        raise NotMeasuredError(reason)
    started, before = time.monotonic(), context.rng.bit_generator.state
    rows, left_out, context.rows, context.left_out, context.drawn = context.rows, context.left_out, {}, {}, []
    try:
        figures = benchmark.run(context)
        seconds, after = round(time.monotonic() - started, 1), context.rng.bit_generator.state
        record = Record(figures, context.rows, context.left_out, context.drawn, seconds, before, after)
    finally:
        context.rows, context.left_out = rows | context.rows, left_out | context.left_out
    if context.kept:
        context.kept.save(record)
    logger.info("%s measured in %.0f s", benchmark.name, seconds)
    return record
