"""Splits over releases: what is in the corpus never changes sides, and no photograph lies on two of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_crawls import Shot, write_crawl

from warehouse import connect
from warehouse.parameters import RuleParameters
from warehouse.publish import publish

EVEN = RuleParameters(val_share=0.3, test_share=0.3)  # so that two clusters often differ


def corpus_after(root: Path, shots: list[Shot], number: int) -> dict[str, tuple[str, str]]:
    """Split and cluster of each kept row once `shots` are published as crawl `number`."""
    publish(root, [write_crawl(root / f"raw/test/g{number:03d}", shots)], EVEN)
    with connect(root) as con:
        found = con.execute("SELECT image_url, split, cluster_id FROM corpus").fetchall()
    return {url: (split, cluster) for url, split, cluster in found}


def shot(name: str, bits: int, side_px: int) -> Shot:
    return Shot(name, phash=f"{bits:016x}", side_px=side_px)


@pytest.mark.slow
def test_a_picture_that_joins_two_clusters_moves_nothing(tmp_path: Path) -> None:
    elder, larger = shot("elder", 0, 200), shot("younger", 0b111111, 300)
    first = corpus_after(tmp_path, [elder], 0) | corpus_after(tmp_path, [larger], 1)
    assert len({split for split, _ in first.values()}) == 2
    after = corpus_after(tmp_path, [shot("bridge", 0b111, 100)], 2)
    assert set(after) == {larger.image_url}  # one cluster, of which the largest stays
    assert after[larger.image_url] == (first[larger.image_url][0], first[elder.image_url][1])
    newest = corpus_after(tmp_path, [shot("largest", 0b11, 400)], 3)
    assert {split for split, _ in newest.values()} == {first[elder.image_url][0]}
    assert len(newest) == 1


# Hashes on a line, neighbours 3 bits apart, so that later pictures join clusters of earlier ones.
_LINE = [2**bits - 1 for bits in range(0, 30, 3)]
_CRAWLS = st.lists(
    st.lists(st.tuples(st.sampled_from(_LINE), st.integers(100, 110)), min_size=1, max_size=4), min_size=2, max_size=4
)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(_CRAWLS)
def test_adding_pictures_never_moves_a_row_and_nothing_lies_on_two_sides(crawls: list[list[tuple[int, int]]]) -> None:
    sides: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, crawl in enumerate(crawls):
            shots = [shot(f"c{number}n{i}", bits, side) for i, (bits, side) in enumerate(crawl)]
            kept = corpus_after(Path(folder), shots, number)
            assert len({cluster for _, cluster in kept.values()}) == len(kept)
            assert {url: split for url, (split, _) in kept.items() if sides.get(url, split) != split} == {}
            sides |= {url: split for url, (split, _) in kept.items()}
