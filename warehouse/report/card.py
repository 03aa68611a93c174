"""The dataset card of a release: README.md for the Hugging Face hub, filled from SQL alone.

Hosts are counted, never named, so a card may be given away with the shards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.languages import language_of
from warehouse.manifest import MANIFEST, SAMPLE_COLUMNS
from warehouse.report.balance import Balance, read_balance
from warehouse.report.data import CorpusReport, read_corpus

LANGUAGE_CAPTIONS = 5_000  # so many captions, by row id, are looked at: each takes a fraction of a millisecond
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MORE_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))


@dataclass(frozen=True)
class Naming:
    """What a card says that no lake knows. `contact`: where to ask for a takedown; `url`: where the corpus lies."""

    name: str = "gptface-corpus"
    url: str = ""
    contact: str = ""


@dataclass(frozen=True)
class Split:
    name: str
    samples: int
    bytes: int
    shards: int


@dataclass(frozen=True)
class Consent:
    """Pairs by verdict, hosts asked, and how many of these answered with a robots.txt or a tdmrep.json."""

    allowed: int
    refused: tuple[tuple[str, int], ...]
    hosts: int
    robots_txt: int
    tdmrep: int


@dataclass(frozen=True)
class CardFigures:
    """All that a card says in numbers. `languages` over the first `language_captions` captions by row id."""

    corpus: CorpusReport
    balance: tuple[Balance, ...]
    splits: tuple[Split, ...]
    consent: Consent
    languages: tuple[tuple[str, int], ...]
    language_captions: int
    corpus_hosts: int
    largest_host_share: float
    takedowns: int


def read_card(con: duckdb.DuckDBPyConnection, at: int | None = None) -> CardFigures:
    """The figures of the release that `con` shows (`warehouse.connect(root, at)`). Raises InputError without one."""
    corpus = read_corpus(con, at)
    splits = con.execute(
        """SELECT split, sum(samples)::BIGINT, sum(bytes)::BIGINT, count(*) FROM shards WHERE release = ?
           GROUP BY split ORDER BY sum(samples) DESC, split""",
        [corpus.release],
    ).fetchall()
    hosts = con.execute("""
        SELECT count(*), coalesce(max(n) / sum(n), 0)::DOUBLE
        FROM (SELECT count(*) AS n FROM corpus GROUP BY image_host)""").fetchone()
    takedowns = con.execute("SELECT count(*) FROM takedowns").fetchone()
    languages = read_languages(con)
    return CardFigures(
        corpus=corpus,
        balance=read_balance(con),
        splits=tuple(Split(*row) for row in splits),
        consent=_consent(con),
        languages=languages,
        language_captions=sum(count for _, count in languages),
        corpus_hosts=int(hosts[0]) if hosts else 0,
        largest_host_share=float(hosts[1]) if hosts else 0.0,
        takedowns=int(takedowns[0]) if takedowns else 0,
    )


def read_languages(con: duckdb.DuckDBPyConnection, limit: int = LANGUAGE_CAPTIONS) -> tuple[tuple[str, int], ...]:
    """Languages of the kept captions (of the first `limit` by row id), the most frequent first; "?" for no letter."""
    rows = con.execute(
        "SELECT caption, count(*) FROM (SELECT caption FROM corpus ORDER BY row_id LIMIT ?) GROUP BY caption", [limit]
    ).fetchall()
    counts: Counter[str] = Counter()
    for caption, count in rows:
        counts[language_of(caption) or "?"] += count
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _consent(con: duckdb.DuckDBPyConnection) -> Consent:
    refused = con.execute("""
        SELECT reason, count(*) FROM decisions JOIN reasons USING (reason) WHERE stage = 'consent'
        GROUP BY reason ORDER BY count(*) DESC, reason""").fetchall()
    counts = con.execute("""
        SELECT (SELECT count(*) FROM pairs), count(*), count(*) FILTER (robots_status = 200),
               count(*) FILTER (tdmrep_status = 200) FROM hosts""").fetchone()
    pairs, hosts, robots_txt, tdmrep = counts or (0, 0, 0, 0)
    return Consent(pairs - sum(n for _, n in refused), tuple(refused), hosts, robots_txt, tdmrep)


def render_card(card: CardFigures, naming: Naming) -> str:
    """README.md: YAML front matter as the hub reads it, then the text."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from warehouse.report.page import percent

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown; nothing in it comes from the web but language codes and counts
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": lambda value: f"{value:,}", "percent": percent}
    front = yaml.safe_dump(_front_matter(card, naming), sort_keys=False, allow_unicode=True)
    text = environment.get_template("card.md.j2").render(c=card, r=card.corpus, naming=naming)
    return f"---\n{front}---\n\n{text.rstrip()}\n"


def _front_matter(card: CardFigures, naming: Naming) -> dict[str, Any]:
    kept = card.corpus.kept
    size = next((name for limit, name in (*_SIZES, *_MORE_SIZES) if kept < limit), "n>1B")
    languages = [code for code, count in card.languages if code != "?" and count >= 0.01 * card.language_captions]
    return {
        "pretty_name": naming.name,
        "license": "other",
        "license_name": "as-of-each-source",
        **({"language": languages} if languages else {}),
        "size_categories": [size],
        "task_categories": ["image-to-text", "text-to-image"],
        "tags": ["faces", "image-text", "webdataset", "gptface"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split.name, "path": f"{split.name}-*.tar"} for split in card.splits],
            }
        ],
        "dataset_info": {
            "features": [
                {"name": "__key__", "dtype": "string"},
                {"name": "__url__", "dtype": "string"},
                {"name": "jpg", "dtype": "image"},
                {"name": "txt", "dtype": "string"},
                {"name": "json", "struct": [_feature(MANIFEST.field(name)) for name in sorted(SAMPLE_COLUMNS)]},
            ],
            "splits": [
                {"name": split.name, "num_bytes": split.bytes, "num_examples": split.samples} for split in card.splits
            ],
            "dataset_size": sum(split.bytes for split in card.splits),
        },
    }


def _feature(field: pa.Field) -> dict[str, str]:
    """A member of a sample's JSON: numbers there are 64 bits wide."""
    if pa.types.is_list(field.type):
        return {"name": field.name, "sequence": "float64"}
    dtype = "string" if pa.types.is_string(field.type) else "int64" if pa.types.is_integer(field.type) else "float64"
    return {"name": field.name, "dtype": dtype}
