"""`python -m sample_web --images 4000 --port 8717`: serve the small web until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import sys

from sample_web.errors import InputError
from sample_web.serving import serve
from sample_web.site import Site


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Serve; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m sample_web", description=__doc__)
    parser.add_argument("--images", type=int, default=4000, help="pictures on the web's pages (50 to 1,000,000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another web")
    parser.add_argument("--port", type=int, default=8717, help="first of four ports in a row; 0 chooses free ones")
    parser.add_argument("--untrue", type=float, default=0.25, help="share of untrue or irrelevant captions of faces")
    parser.add_argument("--parent", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    machine = options.parent is not None  # started by SampleWeb, which reads one line of JSON

    def ready(url: str) -> None:
        _say(json.dumps({"url": url}) if machine else f"{options.images} pictures at {url}/ (Ctrl-C stops)")

    try:
        serve(Site(options.images, options.seed, options.untrue), options.port, options.parent, ready)
    except InputError as error:
        if machine:
            _say(json.dumps({"error": str(error)}))
        else:
            sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
