"""A lake of any size for bench.query: real tables of a real DuckLake, filled by SQL with plausible rows.

Two releases; of one row in forty the first one says something else. Row ids rise with the row's number, as publish
sorts them; everything else follows from hashes of that number.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from warehouse import lake

KEPT_SHARE = 0.6
_CHANGED_EVERY = 40
_HOSTS = 20_000
_CHUNK_ROWS = 1_000_000
_MEMORY = "4GB"
# (reason, share of the pairs that were not kept); the rest are near duplicates
_LOST = {
    "robots_txt": 0.12,
    "page_opted_out": 0.05,
    "timeout": 0.05,
    "http_client_error": 0.12,
    "not_an_image": 0.02,
    "too_small": 0.08,
    "no_face": 0.26,
    "several_faces": 0.08,
    "face_px": 0.09,
    "caption_too_short": 0.07,
    "duplicate_image": 0.05,
}


def write_lake(root: Path, rows: int) -> None:
    """Make a lake of `rows` pairs with their decisions, addresses and corpus (KEPT_SHARE of them)."""
    lake.create(root)
    with lake.writing(root) as con:
        con.execute(f"SET memory_limit = '{_MEMORY}'")
        con.execute("BEGIN")
        for start in range(0, rows, _CHUNK_ROWS):
            con.execute(_made_up(rows, start, min(start + _CHUNK_ROWS, rows)))
            for table, select in _SELECTS.items():
                con.execute(f"INSERT INTO history.{table} BY NAME {select}")
        for release in (1, 2):
            con.execute("INSERT INTO releases VALUES (?, now(), 'bench', '', '{}', '{}', '{}', '{}')", [release])
        con.execute("COMMIT")


def data_files(root: Path, table: str) -> list[str]:
    """The Parquet files of a table with history, as DuckLake lists them."""
    with contextlib.closing(lake.connect(root)) as con:
        query = f"SELECT data_file FROM ducklake_list_files('lake', '{table}', schema => 'history') ORDER BY 1"
        return [str(row[0]) for row in con.execute(query).fetchall()]


def _made_up(rows: int, start: int, end: int) -> str:
    """Temporary table `made_up`: what the tables share; rows of version 1 are what release 1 alone says."""
    picked, edge = [], 0.0
    for reason, share in _LOST.items():
        edge += share
        picked.append(f"WHEN u < {edge:.2f} THEN '{reason}'")
    return f"""
        CREATE OR REPLACE TEMP TABLE made_up AS
        SELECT *, 'https://www.site-' || host || '.example' AS page_host,
               'https://img.site-' || host || '.example' AS image_host,
               'https://img.site-' || host || '.example/pictures/' || i || '.jpg' AS image_url,
               id || md5(row_id) AS image_id,
               CASE WHEN h % 10000 < {int(KEPT_SHARE * 10000)} THEN 'kept' {" ".join(picked)}
                    ELSE 'near_duplicate_image' END AS reason,
               {_CAPTION} AS caption, {_KIND} AS caption_kind, {_SPLIT} AS split,
               CASE WHEN version = 2 AND i % {_CHANGED_EVERY} = 0 THEN 2 ELSE 1 END AS release_from,
               CASE WHEN version = 1 THEN 2 END AS release_to
        FROM (
            SELECT i, version, h, g, g % 997 / 997.0 AS u, floor({_HOSTS} * power(g % 65521 / 65521.0, 3))::INT AS host,
                   md5(i::VARCHAR) AS id, lower(hex({1 << 60} + i * {(1 << 59) // rows})) || right(id, 16) AS row_id
            FROM (
                SELECT i, version, (hash(i, version) >> 1)::BIGINT AS h, (hash(i + 1) >> 1)::BIGINT AS g
                FROM range({start}, {end}) numbers(i), (SELECT unnest([1, 2]) AS version)
                WHERE version = 2 OR i % {_CHANGED_EVERY} = 0)) ORDER BY row_id"""


_WORDS = (
    "['a smiling woman', 'a young man', 'the president', 'an actor', 'two old friends', 'a scientist', 'my father']",
    "['dark', 'red', 'grey', 'long blond', 'short brown', 'curly', 'no']",
    "['London', 'Paris', 'Tokyo', 'Lagos', 'a park', 'a studio', 'the rain', 'parliament']",
)
_CAPTION = (
    f"{_WORDS[0]}[1 + (h >> 8) % 7] || ' with ' || {_WORDS[1]}[1 + (h >> 16) % 7] || ' hair in ' || "
    f"{_WORDS[2]}[1 + (h >> 24) % 8] || CASE WHEN g % 3 = 0 THEN ', ' || (1990 + g % 36) ELSE '' END || "
    "CASE WHEN g % 50 = 0 THEN ', wearing glasses' ELSE '' END"
)
_KIND = "['alt', 'figcaption', 'title', 'nearby', 'json_ld'][1 + (g >> 4) % 5]"
_SPLIT = "CASE WHEN g % 20 = 0 THEN 'val' WHEN g % 20 = 1 THEN 'test' ELSE 'train' END"
_FORMAT = "['jpeg', 'png', 'webp'][1 + (g % 10 > 6)::INT + (g % 10 > 8)::INT]"
_RAW = "'raw/list/g000/images/' || i // 10000 || '.tar' AS raw_shard, i % 10000 * 50000 AS raw_offset"
_RELEASES = "release_from, release_to"
_PARENT = f"'raw/list/g000' AS crawl, h AS digest, {_RELEASES}"
_SELECTS = {
    "pairs": f"""
        SELECT row_id, id AS url_id, page_host || '/people/' || i || '.html' AS page_url, image_url, page_host,
               image_host, 'list:bench' AS source, '' AS page_directives, {_PARENT} FROM made_up""",
    "images": f"""
        SELECT id AS url_id, image_url, CASE reason WHEN 'timeout' THEN 'failed' ELSE 'ok' END AS status,
               CASE reason WHEN 'timeout' THEN reason END AS reason, 200 AS http_status, image_id, {_RAW},
               20000 + h % 90000 AS raw_bytes, 1 + (g % 16 = 0)::INT AS attempts,
               TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i // 100) AS fetched_at, {_PARENT} FROM made_up""",
    "decisions": f"""
        SELECT row_id, reason = 'kept' AS kept, reason, caption, caption_kind,
               CASE reason WHEN 'kept' THEN image_id END AS cluster_id, CASE reason WHEN 'kept' THEN split END AS split,
               image_host, {_RELEASES} FROM made_up""",
    "corpus": f"""
        SELECT row_id, image_id, page_host || '/people/' || i || '.html' AS page_url, image_url, page_host, image_host,
               caption, caption_kind, split, image_id AS cluster_id, 256 + h % 1024 AS width_px,
               256 + g % 1024 AS height_px, {_FORMAT} AS format,
               h % 200 AS x0_px, g % 200 AS y0_px, h % 200 + 100 AS x1_px, g % 200 + 130 AS y1_px,
               [h % 99, g % 99, h % 98, g % 98, h % 97, g % 97, h % 96, g % 96, h % 95, g % 95]::FLOAT[] AS points_px,
               0.5 + (h >> 20) % 500 / 1000.0 AS score, 64 + (h >> 12) % 448 * u AS face_px,
               (g >> 8) % 60 - 30 AS roll_deg, (g >> 16) % 180 - 90 AS yaw_deg, (g >> 24) % 60 - 30 AS pitch_deg,
               (h >> 28) % 5000 / 10.0 AS sharpness, (h >> 36) % 256 AS brightness, left(id, 16) AS phash,
               'insightface buffalo_l' AS detector, 'list:bench' AS source, {_RAW}, 20000 + h % 90000 AS raw_bytes,
               {_RELEASES} FROM made_up WHERE reason = 'kept'""",
}
