"""Extraction on one core: `python -m bench.extract`.

WARC/HTML pages per second against warcio + BeautifulSoup (key `html_ratio`), and WAT image links per second against
cc2dataset's own extraction function (key `ratio`), each in an environment of its own that is made on first use. Needs
GPTFACE_TEST_DATA. One line of JSON last.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json

from bench import _html

HTML_TARGET = 10.0
WAT_TARGET = 1.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="paired runs; the median counts")
    parser.add_argument("--only", choices=("html", "wat"), help="one half")
    options = parser.parse_args()
    result: dict[str, object] = {}
    if options.only != "wat":
        result |= _html.measure(runs=options.runs)
        print(f"HTML: {result['html_ratio']} times BeautifulSoup's pages/s (target {HTML_TARGET})")
    if options.only != "html":
        result |= _wat(3 * options.runs)
    ratios = [(result.get("html_ratio"), HTML_TARGET), (result.get("ratio"), WAT_TARGET)]
    result["ok"] = all(float(str(ratio)) >= target for ratio, target in ratios if ratio is not None)
    print(json.dumps(result))


def _wat(runs: int) -> dict[str, object]:
    if importlib.util.find_spec("bench._wat") is None:
        print("WAT: bench/_wat.py is missing, so there is no key `ratio`")
        return {}
    measured: dict[str, object] = importlib.import_module("bench._wat").measure(runs=runs)
    print(f"WAT: {measured['ratio']} times cc2dataset's links/s (target {WAT_TARGET})")
    return measured


if __name__ == "__main__":
    main()
