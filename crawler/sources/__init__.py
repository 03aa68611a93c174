"""Where pictures on pages come from. One protocol, chosen by prefix: `site: list: warc: wat: cc:`."""

from __future__ import annotations

from crawler.errors import InputError
from crawler.extract import Caption
from crawler.sources.base import Candidate, CrawlLimits, Source

__all__ = ["Candidate", "Caption", "CrawlLimits", "Source", "open_source"]

_EXAMPLES = (
    "site:https://example.org, list:pictures.parquet, warc:'crawl/*.warc.gz', wat:s3://bucket/file.wat.gz "
    "or cc:CC-MAIN-2024-10"
)


def open_source(spec: str, limits: CrawlLimits | None = None) -> Source:
    """The source that `spec` names; raises InputError for a kind that does not exist, or a spec without a place.

    Nothing is opened here: missing files are found by `units`, and files of another kind by `read`.

    Example: `source = open_source("warc:crawl/*.warc.gz"); found = source.read(source.units()[0])`.
    """
    kind, colon, rest = spec.partition(":")
    where = rest.strip()
    if not colon or not where:
        raise InputError(f"source {spec!r} is not of the form KIND:WHERE: give {_EXAMPLES}")
    limits = limits or CrawlLimits()
    if kind == "site":
        from crawler.sources.site import SiteSource

        return SiteSource(where, limits)
    if kind == "list":
        from crawler.sources.list import ListSource

        return ListSource(where)
    if kind == "warc":
        from crawler.sources.warc import WarcSource

        return WarcSource(where)
    if kind == "wat":
        from crawler.sources.wat import WatSource

        return WatSource(where)
    if kind == "cc":
        from crawler.sources.cc import open_crawl

        return open_crawl(where, limits)
    raise InputError(f"no source kind {kind!r}: give {_EXAMPLES}")
