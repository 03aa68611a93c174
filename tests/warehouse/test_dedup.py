"""Clusters and splits: what is near, what is transitive, what must not merge, what new data may move."""

from __future__ import annotations

import itertools
import random
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.dedup import Nearness, find_clusters, key_masks, likeness
from warehouse.splits import split_sql

Pictures = list[tuple[str, int | None, int]]  # image_id, hash, first release
Faces = dict[str, tuple[int, bytes | None]]  # by image_id: hash and thumbnail of the face


@lru_cache(maxsize=1)
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def clusters(pictures: Pictures, distance: int = 3, faces: Faces | None = None) -> dict[str, str]:
    con = connection()
    con.execute(
        "CREATE OR REPLACE TEMP TABLE hashed_pictures "
        "(image_id VARCHAR, phash VARCHAR, face_phash VARCHAR, face_thumb BLOB, first_release BIGINT)"
    )
    rows = []
    for image_id, whole, release in pictures:
        face, thumb = (faces or {}).get(image_id, (None, None))
        hashes = [None if h is None else f"{h:016x}" for h in (whole, face)]
        rows.append([image_id, *hashes, thumb, release])
    if rows:
        con.executemany("INSERT INTO hashed_pictures VALUES (?, ?, ?, ?, ?)", rows)
    find_clusters(con, Nearness(whole_bits=distance))
    return dict(con.execute("SELECT image_id, elder_id FROM clusters").fetchall())


def flipped(value: int, bits: list[int]) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


@pytest.mark.parametrize("distance", [0, 1, 3, 5, 8])
def test_every_pair_within_the_distance_is_found_and_none_beyond(distance: int) -> None:
    rng = random.Random(distance)
    pictures: Pictures = []
    expected = {}
    for i in range(15):  # of random bases none is near another
        base = rng.getrandbits(64)
        near = flipped(base, rng.sample(range(64), distance))
        beyond = flipped(base, rng.sample(range(64), distance + 1))
        pictures += [(f"{i}a", base, 1), (f"{i}b", near, 1), (f"{i}c", beyond, 1)]
        joined = (near ^ beyond).bit_count() <= distance
        expected |= {f"{i}a": f"{i}a", f"{i}b": f"{i}a", f"{i}c": f"{i}a" if joined else f"{i}c"}
    assert clusters(pictures, distance) == expected


@pytest.mark.parametrize("hashes", [10, 10**5, 10**7, 10**9])
@pytest.mark.parametrize("distance", [1, 4, 7])
def test_near_hashes_agree_under_some_key(hashes: int, distance: int) -> None:
    masks = key_masks(hashes, distance)
    rng = random.Random(hashes)
    for _ in range(300):
        difference = flipped(0, rng.sample(range(64), distance))
        assert any(difference & mask == 0 for mask in masks)


def test_keys_get_longer_with_the_number_of_hashes() -> None:
    bits = [min(mask.bit_count() for mask in key_masks(n, 4)) for n in (10**3, 10**5, 10**7)]
    assert bits == sorted(bits) and bits[0] < bits[2]
    assert key_masks(10**7, 0) == []


PATTERN = bytes(range(256))
SIMILAR = bytes(max(0, min(255, value + (9 if value % 3 else -9))) for value in PATTERN)  # correlation 0.993
OTHER = bytes(value * 7 % 256 for value in PATTERN)


@pytest.mark.parametrize(
    ("bits", "thumb", "same"),
    [(6, SIMILAR, True), (8, SIMILAR, False), (0, OTHER, False), (0, None, False), (0, b"short", False)],
)
def test_faces_count_as_copies_where_hash_and_thumbnail_agree(bits: int, thumb: bytes | None, same: bool) -> None:
    far: Pictures = [("a", 0, 1), ("b", 2**64 - 1, 1)]  # the whole pictures have nothing in common
    faces: Faces = {"a": (5, PATTERN), "b": (5 ^ (2**bits - 1), thumb)}
    assert clusters(far, faces=faces) == {"a": "a", "b": "a" if same else "b"}


def test_whole_pictures_a_bit_too_far_apart_are_copies_if_their_faces_agree() -> None:
    apart: Pictures = [("a", 0, 1), ("b", 0b1111, 1)]
    assert clusters(apart) == {"a": "a", "b": "b"}
    assert clusters(apart, faces={"a": (0, PATTERN), "b": (2**64 - 1, SIMILAR)}) == {"a": "a", "b": "a"}
    assert clusters(apart, faces={"a": (0, PATTERN), "b": (2**64 - 1, OTHER)}) == {"a": "a", "b": "b"}


def test_a_crowd_of_equal_hashes_falls_into_its_pictures() -> None:
    """Of many pictures with one hash each finds its copies among the first few."""
    crowd: Pictures = [(f"{i:02d}", None, 1) for i in range(40)]
    faces: Faces = {f"{i:02d}": (7, OTHER if i % 2 else PATTERN) for i in range(40)}
    assert clusters(crowd, faces=faces) == {f"{i:02d}": f"0{i % 2}" for i in range(40)}


def test_likeness_takes_no_notice_of_brightness_and_contrast() -> None:
    rows = np.frombuffer(PATTERN, dtype=np.uint8).reshape(1, -1)
    assert likeness(rows, rows // 2 + 20)[0] == pytest.approx(1, abs=1e-3)
    assert likeness(rows, rows[:, ::-1])[0] == pytest.approx(-1)
    assert likeness(rows, np.full_like(rows, 9))[0] == 0


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


@settings(max_examples=12, deadline=None)
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


@settings(max_examples=12, deadline=None)
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
