"""Clusters and splits: what is near, what is transitive, what must not merge, what new data may move."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.dedup import find_clusters
from warehouse.splits import split_sql

Pictures = list[tuple[str, int | None, int]]  # image_id, hash, first release


def clusters(pictures: Pictures, distance: int = 3) -> dict[str, str]:
    con = duckdb.connect(config={"threads": 1})
    con.execute("CREATE TEMP TABLE hashed_pictures (image_id VARCHAR, phash VARCHAR, first_release BIGINT)")
    if pictures:
        rows = [(i, None if h is None else f"{h:016x}", release) for i, h, release in pictures]
        con.executemany("INSERT INTO hashed_pictures VALUES (?, ?, ?)", rows)
    find_clusters(con, distance)
    return dict(con.execute("SELECT image_id, cluster_id FROM clusters").fetchall())


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


@pytest.mark.parametrize("distance", [0, 1, 3, 5, 8])
def test_every_pair_within_the_distance_is_found_and_none_beyond(distance: int) -> None:
    rng = random.Random(distance)
    for _ in range(15):
        base = rng.getrandbits(64)
        near = flipped(base, rng.sample(range(64), distance))
        beyond = flipped(base, rng.sample(range(64), distance + 1))
        assert clusters([("a", base, 1), ("b", near, 1)], distance) == {"a": "a", "b": "a"}
        assert clusters([("a", base, 1), ("b", beyond, 1)], distance) == {"a": "a", "b": "b"}


def test_clusters_are_transitive_over_long_chains() -> None:
    chain = list(itertools.accumulate(range(60), lambda value, bit: value ^ (1 << bit), initial=0))
    pictures: Pictures = [(f"{i:03d}", h, 1) for i, h in enumerate(chain)]
    assert set(clusters(random.Random(0).sample(pictures, len(pictures)), 1).values()) == {"000"}


def test_pictures_without_a_hash_stand_alone() -> None:
    assert clusters([("a", None, 1), ("b", None, 1), ("c", 0, 1)]) == {"a": "a", "b": "b", "c": "c"}
    assert clusters([]) == {}


def test_the_earliest_member_names_the_cluster() -> None:
    assert clusters([("b", 0, 1), ("a", 1, 2)]) == {"a": "b", "b": "b"}


# A small space of hashes, so that neighbours and chains are frequent.
_PICTURES = st.lists(
    st.sampled_from([0, 1, 3, 7, 15, 31, 63, 127, 1 << 63, 1 << 62, 0xFF << 32, 0xFE << 32]), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(_PICTURES, st.randoms(use_true_random=False), st.integers(1, 3))
def test_clusters_agree_with_brute_force_in_any_order(hashes: list[int], rng: random.Random, distance: int) -> None:
    pictures: Pictures = [(f"{i:02d}", h, 1) for i, h in enumerate(hashes)]
    label = {i: i for i, _, _ in pictures}
    for _ in pictures:
        for (a, x, _), (b, y, _) in itertools.product(pictures, repeat=2):
            if x is not None and y is not None and (x ^ y).bit_count() <= distance:
                label[a] = label[b] = min(label[a], label[b])
    assert clusters(rng.sample(pictures, len(pictures)), distance) == label


def splits(ids: list[str], val: float = 0.1, test: float = 0.1) -> dict[str, str]:
    con = duckdb.connect()
    rows = con.execute(f"SELECT c, {split_sql('c', val, test)} FROM (SELECT unnest(?::VARCHAR[]) AS c)", [ids])
    return dict(rows.fetchall())


def test_shares_and_independence_of_other_rows() -> None:
    ids = [f"{i:064x}" for i in range(20_000)]
    found = splits(ids)
    counts = {name: sum(v == name for v in found.values()) / len(ids) for name in ("train", "val", "test")}
    assert counts == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.01)
    assert splits(ids[::7]) == {i: found[i] for i in ids[::7]}


def test_raising_a_share_moves_rows_out_of_train_only() -> None:
    ids = [f"{i:064x}" for i in range(2000)]
    before, after = splits(ids, val=0.05), splits(ids, val=0.1)
    assert {(before[i], after[i]) for i in ids if before[i] != after[i]} == {("train", "val")}


@settings(max_examples=25, deadline=None)
@given(_PICTURES, _PICTURES)
def test_new_data_moves_no_old_row_unless_it_joins_two_clusters(old: list[int], new: list[int]) -> None:
    first: Pictures = [(f"m{i:02d}", h, 1) for i, h in enumerate(old)]
    added: Pictures = [(f"a{i:02d}", h, 2) for i, h in enumerate(new)]  # sorts before the old ones
    before, after = clusters(first), clusters(first + added)
    for image_id, cluster in before.items():
        if after[image_id] != cluster:  # then an older cluster took it in
            assert after[image_id] in before
            assert after[image_id] < cluster
    if len(set(before.values())) == len({after[i] for i in before}):
        assert {i: after[i] for i in before} == before


@pytest.mark.realdata
def test_portraits_of_different_people_are_not_merged(test_data: Path) -> None:
    """539 official portraits, many before the same flag: none is another's duplicate."""
    from gptface_core.faces.decode import decode_upright
    from gptface_core.faces.phash import perceptual_hash

    pictures: Pictures = []
    for path in sorted((test_data / "congress" / "images").glob("*.jpg")):
        picture = decode_upright(path.read_bytes())
        pictures.append((path.stem, int(perceptual_hash(picture.rgb), 16), 1))
    assert len(pictures) == 539
    merged = {i: c for i, c in clusters(pictures).items() if i != c}
    assert merged == {}
