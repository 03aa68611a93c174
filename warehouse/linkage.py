"""Groups of vectors by average linkage of their cosines, without ever holding all pairs of them.

Two groups become one where the mean cosine over all pairs between them reaches the threshold, nearest groups first
(UPGMA: Sokal and Michener 1958). Single linkage would chain: one picture between two people, or a row of blurred faces,
would make one person of many. The mean over all pairs lets no single picture join two groups.

What makes that cheap: the mean of pairs is a product of the groups' sums, and groups whose mean reaches the threshold
hold at least one pair that does. So only near pairs are kept, found by blocks of a matrix product. Pairs of groups that
are each other's nearest are merged side by side, round by round, which gives what one merge at a time gives
(Sumengen et al., Scaling Hierarchical Agglomerative Clustering to Billion-sized Datasets, 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Vectors are rounded to whole numbers of this length: below 2**12, so that every partial sum of a product of two is a
# whole number below 2**24, which float32 holds exactly. No order of summation, block or processor then changes a group;
# a cosine is off by about 1e-4.
_LENGTH = 4000
_ROWS, _COLUMNS = 1024, 16_384  # of a block of the product: 64 MiB
_NEAREST = 64  # pairs kept per vector at most: a crowd of pictures of one person costs no square
_PAIRS = 1 << 15  # whose sums are multiplied at a time

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def average_linkage(vectors: NDArray[np.float32], min_mean: float) -> NDArray[np.int64]:
    """Per unit vector (N, D) the number of the first vector of its group. `min_mean`: cosine in (0, 1]."""
    whole = np.rint(vectors * _LENGTH).astype(np.float32)
    labels = np.arange(len(whole))
    first, second = _near_pairs(whole, min_mean)
    sums, sizes = whole.astype(np.int64), np.ones(len(whole), dtype=np.int64)
    while len(first):
        means = _means(sums, sizes, first, second)
        near = means >= min_mean  # a mean below it stays below: it is a mean of what is merged
        first, second, means = first[near], second[near], means[near]
        a, b = _mutual((first, second), means, len(whole))
        sums[a] += sums[b]
        sizes[a] += sizes[b]
        into = np.arange(len(whole))
        into[b] = a
        labels = into[labels]
        first, second = _distinct(into[first], into[second])
    return labels


def _near_pairs(whole: NDArray[np.float32], min_cosine: float) -> Pairs:
    """Numbers of vectors (the smaller first) with at least this cosine, for each vector the nearest few."""
    found = [_nearest(whole, start, min_cosine) for start in range(0, len(whole), _ROWS)]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return _distinct(np.concatenate([rows for rows, _ in found]), np.concatenate([others for _, others in found]))


def _nearest(whole: NDArray[np.float32], start: int, min_cosine: float) -> Pairs:
    """Of each of the rows from `start` on the `_NEAREST` others with the highest cosine of at least `min_cosine`."""
    block = whole[start : start + _ROWS]
    rows, others = np.zeros(0, np.int64), np.zeros(0, np.int64)
    products = np.zeros(0, np.float32)
    for column in range(0, len(whole), _COLUMNS):
        product = block @ whole[column : column + _COLUMNS].T
        row, other = np.nonzero(product >= np.float32(min_cosine * _LENGTH**2))
        apart = row + start != other + column
        row, other = row[apart], other[apart]
        rows, others = np.concatenate([rows, row + start]), np.concatenate([others, other + column])
        products = np.concatenate([products, product[row, other]])
        order = np.lexsort((others, -products, rows))
        place = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
        best = order[place < _NEAREST]
        rows, others, products = rows[best], others[best], products[best]
    return rows, others


def _means(
    sums: NDArray[np.int64], sizes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean cosine over all pairs between two groups, from the sums of their vectors; exact up to one division."""
    products = [
        np.einsum("nd,nd->n", sums[first[i : i + _PAIRS]], sums[second[i : i + _PAIRS]])
        for i in range(0, len(first), _PAIRS)
    ]
    return np.concatenate(products) / (sizes[first] * sizes[second] * _LENGTH**2)


def _mutual(pairs: Pairs, means: NDArray[np.float64], count: int) -> Pairs:
    """The pairs of groups that are each other's nearest; of equally near ones the first."""
    first, second = pairs
    rank = np.empty(len(first), np.int64)
    rank[np.lexsort((second, first, -means))] = np.arange(len(first))
    best = np.full(count, len(first))
    np.minimum.at(best, first, rank)
    np.minimum.at(best, second, rank)
    chosen = (best[first] == rank) & (best[second] == rank)
    return first[chosen], second[chosen]


def _distinct(one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
    """Pairs of different numbers, the smaller first, each once."""
    pairs = np.unique(np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    return pairs[:, 0], pairs[:, 1]
