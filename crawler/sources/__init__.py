"""Where candidate pairs come from. One protocol, chosen by prefix: `site:URL`, `list:FILE`."""

from __future__ import annotations

from crawler.errors import InputError
from crawler.extract import Caption
from crawler.sources.base import Candidate, CrawlLimits, Source

__all__ = ["Candidate", "Caption", "CrawlLimits", "Source", "open_source"]

_EXAMPLES = "site:https://example.org or list:pictures.parquet"


def open_source(spec: str, limits: CrawlLimits | None = None) -> Source:
    """The source that `spec` names; raises InputError for one that does not exist.

    Example: `open_source("list:pairs.csv").candidates()`.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or not rest.strip():
        raise InputError(f"source {spec!r} is not of the form KIND:WHERE: give {_EXAMPLES}")
    if kind == "site":
        from crawler.sources.site import SiteSource

        return SiteSource(rest.strip(), limits or CrawlLimits())
    if kind == "list":
        from crawler.sources.list import ListSource

        return ListSource(rest.strip())
    raise InputError(f"no source kind {kind!r}: give {_EXAMPLES}")
