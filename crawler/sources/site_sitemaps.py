"""Walks a site's sitemaps: those that robots.txt names, else /sitemap.xml, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crawler.address import authority_of
from crawler.extract import Picture
from crawler.robots import RobotsGate
from crawler.sources.site_visit import PageReader, Reply
from crawler.sources.sitemap import MAX_SITEMAP_BYTES, parse_sitemap, sitemap_lines

_MAX_SITEMAPS = 200
_MAX_LEVELS = 3  # the protocol knows one index above the sitemaps
_MAX_PAGES = 200_000
_TRIES = 3
_BACK_OFF_S = 0.5


async def read_sitemaps(
    authorities: list[str], gate: RobotsGate, reader: PageReader, note: Callable[[str], None]
) -> tuple[dict[str, tuple[Picture, ...]], int]:
    """Pages on `authorities` with the pictures that the sitemaps name on them, and the bytes that it took.

    A sitemap on another host, or one that robots.txt forbids, is left alone; `note` is told where a bound was met.
    """
    pages: dict[str, tuple[Picture, ...]] = {}
    level: list[str] = []
    for authority in authorities:
        level += sitemap_lines(gate.record(authority).robots_txt, f"{authority}/") or [f"{authority}/sitemap.xml"]
    asked: set[str] = set()
    size = 0
    for _ in range(_MAX_LEVELS):
        further: list[str] = []
        for url in dict.fromkeys(level):
            if url in asked or authority_of(url) not in authorities or not gate.verdict(url).allowed:
                continue
            if len(asked) >= _MAX_SITEMAPS or len(pages) >= _MAX_PAGES:
                note(f"sitemaps read up to {len(asked)} files and {len(pages)} pages")
                return pages, size
            asked.add(url)
            reply = await _sitemap(url, reader)
            size += len(reply.body)
            if reply.status != 200:
                continue
            for entry in parse_sitemap(reply.body, url):
                if entry.is_sitemap:
                    further.append(entry.url)
                elif authority_of(entry.url) in authorities and len(pages) < _MAX_PAGES:
                    pages[entry.url] = pages.get(entry.url, ()) + entry.pictures
        level = further
    return pages, size


async def _sitemap(url: str, reader: PageReader) -> Reply:
    """One sitemap, asked for again where that failed by accident: without it, pictures that it names would be lost."""
    for attempt in range(_TRIES):
        reply = await reader.reply(url, {}, MAX_SITEMAP_BYTES)
        if not reply.is_accident:
            break
        await asyncio.sleep(_BACK_OFF_S * 2**attempt)
    return reply
