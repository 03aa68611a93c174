"""Which texts of a part are to be compared with which faces: those that the caption rules choose for its pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse import captions
from warehouse.duck import CONFIG
from warehouse.errors import InputError
from warehouse.lake import quoted
from warehouse.parameters import RuleParameters
from warehouse.schema import Status


@dataclass(frozen=True)
class FaceText:
    """A picture, where its bytes lie (below the root), and a cleaned text that a page shows with it."""

    image_id: str
    caption_id: str
    text: str
    raw_shard: str
    raw_offset: int
    raw_bytes: int


def chosen_texts(part: int, crawl_dir: Path, rules: RuleParameters) -> list[FaceText]:
    """The texts that the rules choose for the pairs of a part whose picture is there, in the order of the bytes.

    What the caption rules would drop anyway (boilerplate, too short) is left out. Raises InputError where a file of the
    part cannot be read.
    """
    files = {
        "captions": f"plan/{part:05d}.captions.parquet",
        "pairs": f"plan/{part:05d}.pairs.parquet",
        "images": f"images/{part:05d}.parquet",
    }
    with duckdb.connect(config=CONFIG) as con:
        con.execute("SET threads = 1")  # parts run side by side, one per core
        try:
            for name, file in files.items():
                con.execute(f"CREATE TABLE {name} AS FROM read_parquet({quoted(str(crawl_dir / file))})")
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"part {part} of {crawl_dir} cannot be read ({line}): run the build again") from error
        captions.choose_captions(con, rules.min_caption_words, rules.max_caption_chars)
        rows = con.execute(f"""
            SELECT DISTINCT ON (image_id, caption_id) image_id, caption_id, clean, raw_shard, raw_offset, raw_bytes
            FROM chosen_captions JOIN pairs USING (row_id) JOIN images USING (url_id)
            WHERE NOT boilerplate AND words >= {rules.min_caption_words} AND status = '{Status.OK.value}'
            ORDER BY raw_shard, raw_offset, image_id, caption_id""").fetchall()
    return [FaceText(*row) for row in rows]
