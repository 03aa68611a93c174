"""Average linkage on blocks: the textbook's groups, no chains, and the same whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from warehouse import linkage
from warehouse.linkage import average_linkage


def people(count: int, pictures: int, noise: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors of `count` people with `pictures` each, in random order."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count, 32))
    vectors = np.repeat(centres, pictures, axis=0) + noise * rng.standard_normal((count * pictures, 32))
    vectors = rng.permutation(vectors)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def partition(labels: NDArray[np.int64]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@pytest.mark.parametrize(("noise", "min_mean"), [(0.5, 0.6), (1.0, 0.45), (1.5, 0.32)])
def test_groups_are_those_of_scipy(noise: float, min_mean: float) -> None:
    from scipy.cluster.hierarchy import fcluster
    from scipy.cluster.hierarchy import linkage as upgma

    vectors = people(40, 6, noise)
    expected = fcluster(upgma(vectors, "average", "cosine"), 1 - min_mean, "distance")
    found = average_linkage(vectors, min_mean)
    assert partition(found) == partition(expected)
    assert 40 <= len(partition(found)) < len(vectors)
    assert all(found[number] == min(group) for group in partition(found) for number in group)


def test_a_chain_of_near_neighbours_is_not_one_person() -> None:
    angles = np.deg2rad(np.arange(0, 180, 10))  # neighbours have a cosine of 0.98, the ends of -0.98
    labels = average_linkage(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 0.5)
    assert labels[0] != labels[-1]
    assert 1 < len(partition(labels)) < 5  # single linkage would make one group of all


def test_blocks_and_the_limit_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = people(3, 90, 0.4)
    whole = average_linkage(vectors, 0.5)
    assert len(partition(whole)) == 3
    for name, value in {"_ROWS": 7, "_COLUMNS": 11, "_PAIRS": 13, "_NEAREST": 5}.items():
        monkeypatch.setattr(linkage, name, value)
    assert (average_linkage(vectors, 0.5) == whole).all()


def test_nothing_and_one_are_no_special_cases() -> None:
    assert average_linkage(np.zeros((0, 4), np.float32), 0.5).tolist() == []
    assert average_linkage(np.eye(2, dtype=np.float32), 0.5).tolist() == [0, 1]
    assert average_linkage(np.ones((2, 1), np.float32), 1.0).tolist() == [0, 0]
