"""A crawl in a process of its own, whose time and memory can be measured, or which can be killed.

`python crawl_process.py CRAWL URLS.json CONFIG.json`: URLS is a list of [page_url, image_url]; CONFIG has "fetch" and
"download" settings and "detect". One line of JSON last: seconds and peak MiB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def peak_mib() -> float:
    """Most memory that this program had resident.

    On Linux not by getrusage: there a process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        [kib] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(kib) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    from crawler.consent import decide_all
    from crawler.download import DownloadConfig, download_part
    from crawler.fetch import FetchConfig
    from crawler.hosts import ConsentConfig
    from crawler.plan import write_plan
    from crawler.sources.base import Candidate

    crawl, urls, config = Path(sys.argv[1]), *(json.loads(Path(path).read_text()) for path in sys.argv[2:4])
    started = time.monotonic()
    candidates = [Candidate(page, image, (), "") for page, image in urls]
    plan = write_plan(candidates, crawl / "plan", config.get("part_urls", 10_000), "test")
    fetch = FetchConfig(allow_private=True, **config["fetch"])
    decide_all(crawl, ConsentConfig(fetch=fetch))
    for part in range(plan.parts):
        download_part(part, crawl, "raw/test/g000/images", DownloadConfig(fetch=fetch, **config["download"]))
    downloaded = time.monotonic()
    if config.get("detect"):
        from flows.steps.detect import detect_part

        for part in range(plan.parts):
            detect_part(part, crawl, "cascade")
    seconds = {"download_s": downloaded - started, "detect_s": time.monotonic() - downloaded}
    sys.stdout.write(json.dumps({**seconds, "peak_mib": peak_mib()}) + "\n")


if __name__ == "__main__":
    main()
