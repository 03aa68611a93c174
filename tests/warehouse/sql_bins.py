"""The bars of a report's histogram, counted anew by SQL."""

from __future__ import annotations

import duckdb

from warehouse.report.data import Histogram


def sql_bins(con: duckdb.DuckDBPyConnection, chart: Histogram, select: str) -> list[tuple[int, int]]:
    """(found, kept) of each bin of `chart`, of `select`, which gives image_id and x; the last bin is open."""
    bins = []
    for i in range(len(chart.found)):
        low, high, is_last = chart.low + i * chart.width, chart.low + (i + 1) * chart.width, i == len(chart.found) - 1
        bins += con.execute(
            f"""SELECT count(*), count(*) FILTER (image_id IN (SELECT image_id FROM corpus))
                FROM ({select}) WHERE x >= ? AND (x < ? OR ?)""",
            [low, high, is_last],
        ).fetchall()
    return bins
