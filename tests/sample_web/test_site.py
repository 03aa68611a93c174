"""The small web's content: any size, complete, with a truth that fits what is served."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sample_web.captions import contradiction, sample_wording, true_claim, write
from sample_web.errors import InputError
from sample_web.pages import home_html, picture_page_html, section_html
from sample_web.render import HAIR_COLOURS, sample_attributes
from sample_web.site import MAX_IMAGES, Site
from sample_web.truth import truth_table
from warehouse.schema import Reason

BASE = "http://127.0.0.1:8717"
ORIGINS = tuple(f"http://127.0.0.1:{8717 + k}" for k in range(4))


@pytest.mark.parametrize("images", [50, 51, 137, 4000])
def test_every_picture_is_on_one_page(images: int) -> None:
    site = Site(images)
    shown = [i for page in range(site.pages) for i in site.page_pictures(page)]
    assert shown == list(range(images))
    assert all(site.page_of(i) == page for page in range(site.pages) for i in site.page_pictures(page))
    linked = [p for section in range(site.sections) for p in site.section_pages(section)]
    assert linked == list(range(site.pages))


@pytest.mark.parametrize("images", [50, MAX_IMAGES])
def test_pages_are_linked_from_the_start(images: int) -> None:
    site = Site(images)
    sections = re.findall(r'href="/section/(\d+)\.html"', home_html(site))
    assert [int(s) for s in sections] == list(range(site.sections))
    last = section_html(site, site.sections - 1) or ""
    pages = re.findall(r'href="/people/(\d+)\.html"', last)
    assert int(pages[-1]) == site.pages - 1
    assert len(sections) < 400 and len(pages) < 400
    assert picture_page_html(site, site.pages - 1, ORIGINS) is not None
    assert picture_page_html(site, site.pages, ORIGINS) is None
    assert section_html(site, site.sections) is None


@pytest.mark.parametrize(
    ("images", "untrue", "message"),
    [(49, 0.25, "images 49: choose 50 to 1000000"), (MAX_IMAGES + 1, 0.25, "images"), (50, 1.5, "untrue share 1.5")],
)
def test_impossible_sites_are_refused(images: int, untrue: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Site(images, 0, untrue)


def test_a_site_of_50_has_everything() -> None:
    rows = truth_table(50, 3, BASE).to_pylist()
    assert {row["kind"] for row in rows} == {
        *("face", "exif", "slow", "several", "nonface", "duplicate", "broken", "refused", "noai", "boilerplate", "tiny")
    }
    assert {row["variant"] for row in rows if row["kind"] == "duplicate"} == {"same", "resized"}


def test_a_larger_site_begins_like_a_smaller_one() -> None:
    small, large = Site(120, 1), Site(5000, 1)
    assert [small.picture(i) for i in range(120)] == [large.picture(i) for i in range(120)]


def test_truth_names_reasons_of_the_schema_and_agrees_with_the_pages() -> None:
    site = Site(500, 5)
    table = truth_table(500, 5, BASE)
    assert table.num_rows == 500
    assert {r for r in table["expected_reason"].to_pylist() if r} <= {str(reason) for reason in Reason}
    kept = sum(r is None for r in table["expected_reason"].to_pylist())
    assert 0.75 <= kept / 500 <= 0.80
    urls = table["image_url"].to_pylist()
    assert len(set(urls)) == 500
    for row in table.to_pylist():
        page = int(re.search(r"/people/(\d+)\.html", row["page_url"])[1])  # type: ignore[index]
        html = picture_page_html(site, page, ORIGINS) or ""
        address = row["image_url"].removeprefix(BASE)
        assert f'src="{address}"' in html
        assert row["caption"] in html


def test_attributes_are_known_where_there_is_one_face_alone() -> None:
    for row in truth_table(300, 0, BASE).to_pylist():
        single = row["faces"] == 1
        assert (row["smiling"] is not None) == single
        assert (row["true_caption"] is not None) == single
        assert row["kind"] == "several" or row["faces"] <= 1


def test_share_of_untrue_captions_is_the_one_asked_for() -> None:
    faces = [r for r in truth_table(3000, 0, BASE).to_pylist() if r["claim"] and r["kind"] != "boilerplate"]
    claims = Counter(row["claim"] for row in faces)
    assert 0.72 < claims["true"] / len(faces) < 0.78
    assert 0.10 < claims["contradicting"] / len(faces) < 0.15
    assert 0.10 < claims["irrelevant"] / len(faces) < 0.15
    honest = truth_table(300, 0, BASE, untrue=0.0).to_pylist()
    assert all(row["caption_true"] is not False for row in honest if row["kind"] != "boilerplate")


def test_captions_say_what_their_claim_says() -> None:
    for row in truth_table(600, 2, BASE).to_pylist():
        if row["claim"] == "true":
            assert row["caption"] == row["true_caption"]
        elif row["claim"] == "contradicting":
            assert row["caption"] == row["contradicting_caption"]
        if row["true_caption"] is not None:
            text = row["true_caption"].lower()
            assert row["true_caption"] != row["contradicting_caption"]
            named = [c for c in HAIR_COLOURS if f"{c} hair" in text]
            assert named in ([], [row["hair_colour"]])
            if "glasses" in text:
                assert ("no glasses" in text or "no eyeglasses" in text) == (not row["eyeglasses"])
            if "beard" in text or "clean-shaven" in text:
                assert ("no beard" in text or "clean-shaven" in text) == (not row["beard"])
            assert "serious" not in text or not row["smiling"]


def test_a_contradiction_turns_every_named_attribute() -> None:
    for index in range(200):
        attributes = sample_attributes(index, 0)
        wording = sample_wording(attributes, 0, index)
        truth = true_claim(attributes, wording)
        other = contradiction(truth, 0, index)
        assert truth.agrees(attributes) and not other.agrees(attributes)
        for name in ("eyeglasses", "beard", "hair_colour", "smiling"):
            said, turned = getattr(truth, name), getattr(other, name)
            assert (said is None) == (turned is None)
            assert said is None or said != turned
        assert 1 <= sum(getattr(truth, n) is not None for n in ("eyeglasses", "beard", "hair_colour", "smiling")) <= 4
        assert len(write(truth, wording).split()) >= 4


def test_vocabulary_of_captions_is_small() -> None:
    words = Counter[str]()
    for row in truth_table(2000, 0, BASE).to_pylist():
        words.update(re.findall(r"[a-z-]+", (row["true_caption"] or "").lower()))
    assert len(words) <= 40


def test_a_masked_face_is_not_described_by_what_is_hidden() -> None:
    rows = [r for r in truth_table(3000, 0, BASE).to_pylist() if r["face_mask"]]
    assert len(rows) > 40
    for row in rows:
        assert not re.search("beard|shaven|smiling|serious", row["true_caption"].lower())


def test_a_bad_base_address_is_refused() -> None:
    with pytest.raises(InputError, match="base address 'ftp://x'"):
        truth_table(50, 0, "ftp://x")
