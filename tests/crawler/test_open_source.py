"""Which source a spec names, and what is said of one that names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.errors import InputError
from crawler.sources import CrawlLimits, open_source
from crawler.sources.cc import CommonCrawl
from crawler.sources.list import ListSource
from crawler.sources.site import SiteSource
from crawler.sources.warc import WarcSource
from crawler.sources.wat import WatSource


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("site:https://example.org", SiteSource),
        ("list:pairs.parquet", ListSource),
        ("warc:crawl/*.warc.gz", WarcSource),
        ("wat:s3://bucket/x.warc.wat.gz", WatSource),
        ("cc:CC-MAIN-2024-10", CommonCrawl),
    ],
)
def test_sources_are_chosen_by_prefix(spec: str, kind: type) -> None:
    assert isinstance(open_source(spec), kind)


@pytest.mark.parametrize("spec", ["", "warc", "warc:", "wat: ", "pairs.csv", "zip:x", "WARC:x", ":x"])
def test_what_names_no_source_is_an_input_error(spec: str) -> None:
    with pytest.raises(InputError, match=r"KIND:WHERE|no source kind") as error:
        open_source(spec)
    assert "cc:CC-MAIN-2024-10" in str(error.value)


@pytest.mark.parametrize("kind", ["warc", "wat", "list"])
def test_files_that_are_not_there_are_named(kind: str, tmp_path: Path) -> None:
    for name in ("missing.gz", "*.gz"):
        with pytest.raises(InputError, match="no file matches") as error:
            open_source(f"{kind}:{tmp_path}/{name}").units()
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("CC-MAIN-2024-10", (0, None)),
        ("CC-MAIN-2024-10[10:20]", (10, 20)),
        ("CC-MAIN-2024-10[:20]", (0, 20)),
        ("CC-MAIN-2024-10[5:]", (5, None)),
        ("CC-MAIN-2024-10[7]", (7, 8)),
    ],
)
def test_slices_of_a_crawl(where: str, expected: tuple[int, int | None]) -> None:
    crawl = open_source(f"cc:{where}", CrawlLimits(cc_base="https://mirror.example/cc", limit=3))
    assert isinstance(crawl, CommonCrawl)
    assert (crawl.crawl, crawl.base, crawl.limit) == ("CC-MAIN-2024-10", "https://mirror.example/cc/", 3)
    assert (crawl.start, crawl.stop) == expected


@pytest.mark.parametrize("where", ["CC-MAIN-2024-10[]", "CC-MAIN-2024-10[a:b]", "../x", "CC MAIN", "x[1:2:3]"])
def test_what_names_no_crawl(where: str) -> None:
    with pytest.raises(InputError, match=r"CC-MAIN-2024-10\[10:20\]"):
        open_source(f"cc:{where}")
