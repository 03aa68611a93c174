"""The benchmarks there are, and how a suite of them is run.

A benchmark is a module of this package with a `BENCHMARK`: its name, the suites it belongs to, what it needs, and a
function from a `Context` to figures (it may also draw pictures, `Context.draw`). A new one is a line in MODULES.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from gptface_core.errors import InputError
from gptface_core.evaluation.context import Context, NotMeasuredError, Options
from gptface_core.evaluation.figure import Figure

logger = logging.getLogger(__name__)

SUITES = ("quick", "full")
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
    ),
)


@dataclass(frozen=True)
class Benchmark:
    """`headline`: a figure that stands in the results by its own name alone, as in every evaluation since the first.

    Without suites it runs only where it is asked for.
    """

    name: str
    suites: tuple[str, ...]
    run: Callable[[Context], list[Figure]]
    needs: tuple[str, ...] = ()
    headline: str = ""


@dataclass(frozen=True)
class Measured:
    """Figures in the order they were made, and seconds by benchmark."""

    figures: list[Figure]
    seconds: dict[str, float]


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    modules = (import_module(f"gptface_core.evaluation.{name}") for name in MODULES)
    return {module.BENCHMARK.name: module.BENCHMARK for module in modules}


def choose(options: Options) -> list[Benchmark]:
    """The benchmarks of a suite, or those asked for by name; InputError for a name that does not exist."""
    known = benchmarks()
    if options.suite not in SUITES:
        raise InputError(f"no suite '{options.suite}': choose {' or '.join(SUITES)}")
    for name in options.only:
        if name not in known:
            raise InputError(f"no benchmark '{name}': choose {', '.join(known)}")
    asked = {*options.only, *(["editing_alpha"] if options.alphas else [])}
    by_suite = not options.only
    return [b for b in known.values() if b.name in asked or (by_suite and options.suite in b.suites)]


def run_suite(context: Context, chosen: Sequence[Benchmark]) -> Measured:
    """Run benchmarks one after the other; what cannot run is told in `context.left_out`."""
    figures: list[Figure] = []
    seconds: dict[str, float] = {}
    for benchmark in chosen:
        started = time.monotonic()
        reason = next(filter(None, map(context.missing, benchmark.needs)), None)
        try:
            if reason:
                raise NotMeasuredError(reason)
            figures += benchmark.run(context)
        except NotMeasuredError as error:
            context.left_out[benchmark.headline or benchmark.name] = str(error)
            continue
        seconds[benchmark.name] = round(time.monotonic() - started, 1)
        logger.info("%s measured in %.0f s", benchmark.name, seconds[benchmark.name])
    return Measured(figures, seconds)
