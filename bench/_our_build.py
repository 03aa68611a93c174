"""Our build as the command line runs it, timed by phase: `python -m bench._our_build SOURCE ROOT OPTIONS` (JSON).

The last line of its output is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from bench._clock import StepClock
from flows.steps.config import BuildConfig
from flows.steps.runner import LocalRunner, WorkerPool

_PHASES = {
    "download": "download",
    "detect": "detect",
    "faces taken down": "detect",
    "embed": "detect",
    "publish": "curate",
}
_BEFORE = ("sources", "extract", "plan", "hosts", "consent", "taken down")  # all others write


def phase(step: str) -> str:
    return _PHASES.get(step, "plan" if step in _BEFORE else "write")


def _ready(_: int) -> int:
    """A worker has started, with what it imports at the beginning."""
    return os.getpid()


def main() -> None:
    source, root, words = sys.argv[1:]
    options: dict[str, Any] = json.loads(words)
    os.environ["GPTFACE_INSIGHTFACE_ROOT"] = options["models"]
    from flows.steps.pipeline import build

    config = BuildConfig(
        source=source,
        root=root,
        detector="insightface",
        pack=options["pack"],
        part_urls=options["shard_rows"],
        workers=options["processes"],
        download_threads=options["threads"],
        allow_private=True,
        embed=True,
    )
    clock = StepClock()
    with WorkerPool(config.workers) as pool:
        started = time.perf_counter()
        for future in [pool.submit(_ready, index) for index in range(config.workers)]:
            future.result()
        loading_s = time.perf_counter() - started
        summary = build(config, LocalRunner(pool, clock))
    phases = dict.fromkeys(("plan", "download", "detect", "curate", "write"), 0.0)
    for step, seconds in clock.seconds.items():
        phases[phase(step)] += seconds
    phases["other"] = summary.seconds - sum(phases.values())
    print(json.dumps({"phases": phases, "loading_s": loading_s, "kept": summary.kept}))


if __name__ == "__main__":
    main()
