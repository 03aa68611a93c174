"""The grammar of X-Robots-Tag, meta robots and tdm-reservation, as tables of cases."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.directives import (
    forbids_following,
    parse_date,
    refused_by_headers,
    refused_by_page,
    refusing_directive,
    reserves_tdm,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)

PLAIN: list[tuple[str, str | None]] = [
    ("", None),
    ("all", None),
    ("index, follow", None),
    ("nofollow", None),
    ("noarchive, nosnippet, notranslate, indexifembedded", None),
    ("noai", "noai"),
    ("NoAI", "noai"),
    (" noimageai ", "noimageai"),
    ("noai, noimageai", "noai"),
    ("none", "none"),
    ("noindex", "noindex"),
    ("noindex, nofollow", "noindex"),
    ("noimageindex", "noimageindex"),
    ("index, noindex", "noindex"),  # the most restrictive of competing rules
    ("noaipreview", None),
    ("no-ai", None),
    ("ai", None),
    (",,noai,,", "noai"),
    ("noarchive; noai", "noai"),  # not the published separator, but plain enough
    ("noarchive noai", "noai"),
    ("noindex|nofollow", "noindex"),
    ("\tnoai\t", "noai"),
    ("somethingnew", None),
    ("somethingnew, noai", "noai"),
]

VALUED: list[tuple[str, str | None]] = [
    ("max-image-preview:none", None),
    ("max-image-preview: none", None),
    ("max-snippet:-1, max-image-preview:large, max-video-preview:-1", None),
    ("noindex, max-image-preview: large", "noindex"),
    ("max-image-preview: large, noai", "noai"),
    ("max-image-preview:large noai", "noai"),
    ("max-snippet: 0, none", "none"),
    ("max-snippet: 20", None),
    ("max-age: 3, noai", "noai"),  # a value of a rule that we do not know is no user agent
]

AGENTS: list[tuple[str, str | None]] = [
    ("otherbot: noai", None),
    ("otherbot: noai, noindex", None),
    ("otherbot:noai", None),
    ("gptface: noai", "noai"),
    ("GPTFace: noai", "noai"),
    ("gptface/1.0: noai", "noai"),
    ("gptface : noai", "noai"),
    ("gptfacer: noai", None),
    ("gptface-news: noai", None),
    ("gpt: noai", None),
    ("*: noai", "noai"),
    ("robots: noai", "noai"),
    ("otherbot: noindex, gptface: noai", "noai"),
    ("gptface: nofollow, otherbot: noai", None),
    ("noindex, otherbot: nofollow", "noindex"),
    ("noai, otherbot: all", "noai"),
    ("otherbot: all, *: noai", "noai"),
    ("otherbot: noindex, nofollow, googlebot: none", None),
    ("otherbot: max-image-preview: none, noai", None),
    ("gptface: max-image-preview: none, noai", "noai"),
    ("otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST", None),
    ("gptface: unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after"),
    ("some other bot: noai", None),
    ("otherbot: gptface: noai", "noai"),  # unclear, but it names us and the rule
    (": noai", "noai"),
]

DATES: list[tuple[str, str | None]] = [
    ("unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after"),
    ("unavailable_after: 25-Jun-2010 15:00:00 EST", "unavailable_after"),
    ("unavailable_after: Fri, 25 Jun 2010 15:00:00 +0200", "unavailable_after"),
    ("unavailable_after: Friday, 25-Jun-10 15:00:00 GMT", "unavailable_after"),
    ("unavailable_after: Fri Jun 25 15:00:00 2010", "unavailable_after"),
    ("unavailable_after: 25 Jun 2010", "unavailable_after"),
    ("unavailable_after: 2010-06-25", "unavailable_after"),
    ("unavailable_after: 20100625", "unavailable_after"),
    ("unavailable_after: 2010-06-25T15:00:00Z", "unavailable_after"),
    ("unavailable_after: 2010-06-25T15:00:00+02:00", "unavailable_after"),
    ("unavailable_after: 2010-06-25 15:00:00 EST", "unavailable_after"),
    ("UNAVAILABLE_AFTER: 2010-06-25", "unavailable_after"),
    ("unavailable-after: 2010-06-25", "unavailable_after"),
    ("noarchive, unavailable_after: 2010-06-25", "unavailable_after"),
    ("unavailable_after: 31 Dec 2025 23:59:59 GMT", "unavailable_after"),
    ("unavailable_after: 1 Jan 2026 00:00:01 GMT", None),
    ("unavailable_after: 31 Dec 2025 23:59:59 PST", None),
    ("unavailable_after: 25 Jun 2040 15:00:00 GMT", None),
    ("unavailable_after: 25 Jun 2040 15:00:00 GMT, noai", "noai"),
    ("unavailable_after: Friday, 25-Jun-40 15:00:00 GMT, noai", "noai"),
    ("unavailable_after: some day", None),
    ("unavailable_after: some day, noai", "noai"),
    ("unavailable_after:", None),
    ("unavailable_after", None),
    ("unavailable_after: 99999999999999999999", None),
    ("unavailable_after: 9999-12-31T23:59:59-23:59", None),
    ("unavailable_after: 0001-01-01T00:00:00+23:59", "unavailable_after"),
]


@pytest.mark.parametrize(("value", "refusal"), PLAIN)
def test_rules(value: str, refusal: str | None) -> None:
    assert refusing_directive(value, NOW) == refusal


@pytest.mark.parametrize(("value", "refusal"), VALUED)
def test_rules_with_values(value: str, refusal: str | None) -> None:
    assert refusing_directive(value, NOW) == refusal


@pytest.mark.parametrize(("value", "refusal"), AGENTS)
def test_user_agent_prefixes(value: str, refusal: str | None) -> None:
    assert refusing_directive(value, NOW) == refusal


@pytest.mark.parametrize(("value", "refusal"), DATES)
def test_unavailable_after(value: str, refusal: str | None) -> None:
    assert refusing_directive(value, NOW) == refusal


def test_dates_without_zone_are_utc() -> None:
    assert parse_date("2010-06-25 15:00") == datetime(2010, 6, 25, 15, tzinfo=UTC)
    assert parse_date("25 Jun 2010 15:00:00 PST") == datetime(2010, 6, 25, 23, tzinfo=UTC)
    assert parse_date("no date") is None


@pytest.mark.parametrize(
    ("value", "reserved"),
    [
        *[("1", True), (" 1 ", True), ('"1"', True), ("0, 1", True)],
        *[("0", False), ("", False), ("10", False), ("true", False), ("2", False)],
    ],
)
def test_tdm_reservation(value: str, reserved: bool) -> None:
    assert reserves_tdm(value) is reserved


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ([("content-type", "noai")], None),
        ([("robots", "noai")], None),
        ([("x-robots-tag", "otherbot: noai"), ("x-robots-tag", "noindex")], "x-robots-tag: noindex"),
        ([("x-robots-tag", "gptface: all"), ("x-robots-tag", "noai")], "x-robots-tag: noai"),
        # A prefix holds to the end of its header, not into the next one.
        ([("x-robots-tag", "otherbot: all"), ("x-robots-tag", "none")], "x-robots-tag: none"),
        ([("x-robots-tag", "otherbot: noai"), ("x-robots-tag", "otherbot: noindex")], None),
        ([("x-robots-tag", "all"), ("tdm-reservation", "1")], "tdm-reservation: 1"),
        ([("tdm-reservation", "0"), ("tdm-policy", "https://example.org/policy")], None),
        ([("tdm-policy", "https://example.org/policy")], None),
        ([("tdm-reservation", "0"), ("tdm-reservation", "1")], "tdm-reservation: 1"),
    ],
)
def test_headers(headers: list[tuple[str, str]], refusal: str | None) -> None:
    assert refused_by_headers(headers, NOW) == refusal


@pytest.mark.parametrize(
    ("directives", "refusal"),
    [
        ("", None),
        ("meta robots: index", None),
        ("meta robots: noindex, nofollow", "meta robots: noindex"),
        ("meta gptface: noimageai", "meta gptface: noimageai"),
        ("meta otherbot: noai", None),
        ("meta robots: all\nx-robots-tag: noai", "x-robots-tag: noai"),
        ("meta robots: all\nmeta gptface: none", "meta gptface: none"),
        ("x-robots-tag: otherbot: noai", None),
        ("x-robots-tag: otherbot: noai\nx-robots-tag: noimageindex", "x-robots-tag: noimageindex"),
        ("tdm-reservation: 1", "tdm-reservation: 1"),
        ("meta tdm-reservation: 1", "tdm-reservation: 1"),
        ("tdm-reservation: 0\nmeta robots: nofollow", None),
        ("meta robots: unavailable_after: 25 jun 2010 15:00:00 pst", "meta robots: unavailable_after"),
        ("noai", None),
    ],
)
def test_page_directives(directives: str, refusal: str | None) -> None:
    assert refused_by_page(directives, NOW) == refusal


def test_nofollow() -> None:
    assert forbids_following("meta robots: index, nofollow")
    assert forbids_following("x-robots-tag: none")
    assert not forbids_following("meta robots: noai\nx-robots-tag: otherbot: nofollow")
    assert not forbids_following("meta robots: max-image-preview: none")


@settings(max_examples=25)
@given(st.text(max_size=200))
def test_no_value_raises(value: str) -> None:
    refusing_directive(value, NOW)
    refused_by_page(f"meta robots: {value}\ntdm-reservation: {value}", NOW)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["all", "nofollow", "max-snippet: 3", "noarchive"]), max_size=5), st.integers(0, 5))
def test_noai_refuses_wherever_it_stands(rules: list[str], at: int) -> None:
    assert refusing_directive(", ".join([*rules[:at], "noai", *rules[at:]]), NOW) == "noai"
