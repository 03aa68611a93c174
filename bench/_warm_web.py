"""A small web whose pictures are all rendered before it answers: `bench.e2e` measures its readers, not the renderer."""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sample_web import answers
from sample_web.pictures import serve_picture
from sample_web.serving import serve
from sample_web.site import Site


@contextmanager
def warm_web(images: int, seed: int) -> Iterator[str]:
    """Address of a small web in a process of its own, which ends with the block. Raises RuntimeError if it cannot."""
    words = ["--images", str(images), "--seed", str(seed), "--parent", str(os.getpid())]
    process = subprocess.Popen([sys.executable, "-m", "bench._warm_web", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the sample web did not start")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--images", "--seed", "--parent"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    keep = functools.lru_cache(maxsize=None)(serve_picture.__wrapped__)
    for index in range(options.images):
        keep(options.seed, index)
    vars(answers)["serve_picture"] = keep  # the same function, all of whose answers are kept
    site = Site(options.images, options.seed)
    serve(site, 0, options.parent, lambda url: print(json.dumps({"url": url}), flush=True))


if __name__ == "__main__":
    main()
