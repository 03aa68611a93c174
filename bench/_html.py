"""HTML half of bench/extract.py: our way from WARC files to pictures against warcio + BeautifulSoup."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._env import baseline_python, clean_environment, test_data
from crawler import references
from crawler.sources import open_source
from crawler.sources.base import Candidate, PageVisit
from warehouse.schema import CaptionKind

PACKAGES = ("warcio==1.8.1", "beautifulsoup4==4.15.0", "lxml==6.1.3")
FILES = ("derived/articles-keep.warc.gz", "warc/dolma-sample-0000.warc.gz", "warc/jwatr-sample.warc.gz")
PARSERS = ("lxml", "html.parser")
_RULES = {
    "lazy_srcsets": references.LAZY_SRCSETS,
    "lazy_sources": references.LAZY_SOURCES,
    "lazy_backgrounds": references.LAZY_BACKGROUNDS,
    "ambiguous": sorted(references.AMBIGUOUS),
    "image_endings": references.IMAGE_ENDINGS,
}
_SHOWN = 12  # differences that are printed

Captions = list[tuple[str, str]]
Pages = list[tuple[str, dict[str, Captions]]]


class Baseline:
    """bench/_soup.py as a process that answers commands; a context manager."""

    def __init__(self, python: Path, parser: str) -> None:
        self._process = subprocess.Popen(
            [str(python), "-m", "bench._soup", parser],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )

    def __enter__(self) -> Baseline:
        self.ask("rules", json.dumps(_RULES))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def ask(self, *words: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the baseline ended: exit code {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer


def our_pages(files: Sequence[str]) -> Iterator[tuple[str, dict[str, Captions]]]:
    """(address, pictures) of every page, by the source that a crawl uses."""
    for file in files:
        source = open_source(f"warc:{file}")
        for unit in source.units():
            page: tuple[str, dict[str, Captions]] | None = None
            for found in source.read(unit):
                if isinstance(found, PageVisit):
                    if page is not None:
                        yield page
                    page = (found.page_url, {})
                elif isinstance(found, Candidate) and page is not None:
                    page[1][found.image_url] = [
                        (caption.kind.value, caption.text)
                        for caption in found.captions
                        if caption.kind is not CaptionKind.PAGE_TITLE  # of the page, not of a picture
                    ]
            if page is not None:
                yield page


def our_seconds(files: Sequence[str]) -> tuple[float, int]:
    """Processor time of one reading, and the number of pages."""
    gc.collect()
    started = time.process_time()
    count = 0
    for file in files:
        source = open_source(f"warc:{file}")
        for unit in source.units():
            count += sum(isinstance(found, PageVisit) for found in source.read(unit))
    return time.process_time() - started, count


@dataclass(frozen=True)
class Comparison:
    """How far two readings of the same pages agree. `differences` says in words what each differing page has."""

    pages: int
    equal_pages: int
    pictures: int
    equal_addresses: int
    equal_pictures: int  # address and all captions with their kinds and ranks
    kinds: Counter[str]
    differences: list[str]


def compare(ours: Pages, theirs: Pages) -> Comparison:
    """Page by page (in file order per address); pictures by address."""
    remaining: dict[str, list[dict[str, Captions]]] = {}
    for url, pictures in theirs:
        remaining.setdefault(url, []).append(pictures)
    pages = equal = total = same_address = same = 0
    kinds: Counter[str] = Counter()
    differences: list[str] = []
    for url, mine in ours:
        others = remaining.get(url)
        if not others:
            kinds["page only ours"] += 1
            continue
        other = others.pop(0)
        pages += 1
        total += len(mine.keys() | other.keys())
        same_address += len(mine.keys() & other.keys())
        found = _differences(mine, other)
        same += len(mine.keys() & other.keys()) - sum(kind == "captions" for kind, _ in found)
        equal += not found
        kinds.update(kind for kind, _ in found)
        differences += [f"{url}: {kind}: {what}" for kind, what in found]
    kinds["page only theirs"] += sum(map(len, remaining.values()))
    return Comparison(pages, equal, total, same_address, same, kinds, differences)


def _differences(mine: dict[str, Captions], other: dict[str, Captions]) -> list[tuple[str, str]]:
    found = [("picture only ours", url) for url in mine.keys() - other.keys()]
    found += [("picture only theirs", url) for url in other.keys() - mine.keys()]
    for url in mine.keys() & other.keys():
        a, b = [tuple(c) for c in mine[url]], [tuple(c) for c in other[url]]
        if a != b:
            found.append(("captions", f"{url}: ours {set(a) - set(b)}, theirs {set(b) - set(a)}"[:300]))
    return sorted(found)


def faster_parser(python: Path, files: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The parser with which BeautifulSoup needs less time for these files, and the seconds of each (best of two)."""
    seconds = {}
    for parser in PARSERS:
        with Baseline(python, parser) as baseline:
            seconds[parser] = min(baseline.ask("time", *files)["seconds"] for _ in range(2))
    return min(seconds, key=lambda parser: seconds[parser]), seconds


def measure(runs: int = 5) -> dict[str, object]:
    """Pages per second of processor time on one core, ours over theirs: alternating runs, medians.

    Compared is the faster parser's time. Results are compared with both parsers: html.parser builds what HTML says for
    valid pages, lxml knows no HTML 5 (a <source> holds what follows it). Prints what differs.
    """
    files = [str(test_data("warc", *file.split("/"))) for file in FILES]
    python = baseline_python("soup", PACKAGES)
    parser, seconds = faster_parser(python, files)
    print(f"BeautifulSoup: {', '.join(f'{name} {s:.2f} s' for name, s in seconds.items())}; compared with: {parser}")
    ours = list(our_pages(files))
    results = {name: compare(ours, their_pages(python, name, files)) for name in PARSERS}
    with Baseline(python, parser) as baseline:
        baseline.ask("time", *files)  # warm-up
        pairs = []
        for _ in range(runs):
            (mine, count), other = our_seconds(files), baseline.ask("time", *files)
            pairs.append((count / mine, other["pages"] / other["seconds"]))
    for name, result in results.items():
        _print(name, result)
    return {
        "html_ratio": round(statistics.median(a / b for a, b in pairs), 2),
        "html_pages_per_s": round(statistics.median(a for a, _ in pairs), 1),
        "soup_pages_per_s": round(statistics.median(b for _, b in pairs), 1),
        "soup_parser": parser,
        "html_same": {name: _summary(result) for name, result in results.items()},
    }


def their_pages(python: Path, parser: str, files: Sequence[str]) -> Pages:
    """What the baseline finds, in file order."""
    with tempfile.TemporaryDirectory() as folder, Baseline(python, parser) as baseline:
        dump = Path(folder) / "theirs.json"
        baseline.ask("dump", str(dump), *files)
        return [page for pages in json.loads(dump.read_text("utf-8")).values() for page in pages]


def _summary(result: Comparison) -> dict[str, object]:
    return {
        "pages": result.pages,
        "equal_pages": result.equal_pages,
        "pictures": result.pictures,
        "equal_addresses": result.equal_addresses,
        "equal_pictures": result.equal_pictures,
        "differences": dict(result.kinds),
    }


def _print(parser: str, result: Comparison) -> None:
    print(
        f"{parser}: {result.equal_pages} of {result.pages} pages equal; of {result.pictures} pictures "
        f"{result.equal_addresses} with the same address, {result.equal_pictures} with the same captions too; "
        f"differences: {dict(result.kinds)}"
    )
    step = max(1, len(result.differences) // _SHOWN)
    for line in result.differences[::step]:
        print(f"  {line}")
