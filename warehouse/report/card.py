"""The dataset card of a release: README.md for the Hugging Face hub and croissant.json, filled from SQL alone.

Hosts are counted, never named, so a card may be given away with the shards.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.languages import language_of
from warehouse.manifest import MANIFEST, SAMPLE_COLUMNS, TABLE_FILE
from warehouse.report.balance import Balance, read_balance
from warehouse.report.data import CorpusReport, read_corpus

LANGUAGE_CAPTIONS = 5_000  # so many captions, by row id, are looked at: each takes a fraction of a millisecond
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MORE_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
CROISSANT = "http://mlcommons.org/croissant/1.0"


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


def croissant(
    con: duckdb.DuckDBPyConnection, card: CardFigures, naming: Naming, manifest_sha256: str
) -> dict[str, Any]:
    """Croissant 1.0 metadata (JSON-LD) of a release's shards and manifest, which lie beside each other."""
    shards = con.execute(
        "SELECT file, sha256, bytes, samples FROM shards WHERE release = ? ORDER BY file", [card.corpus.release]
    ).fetchall()
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": Path(file).name,
            "name": Path(file).name,
            "description": f"{samples} samples",
            "contentUrl": Path(file).name,
            "contentSize": f"{size} B",
            "encodingFormat": "application/x-tar",
            "sha256": sha256,
        }
        for file, sha256, size, samples in shards
    ]
    table = {
        "@type": "cr:FileObject",
        "@id": TABLE_FILE,
        "name": TABLE_FILE,
        "description": "One row per sample: addresses, hashes, boxes, captions, splits.",
        "contentUrl": TABLE_FILE,
        "encodingFormat": "application/x-parquet",
        "sha256": manifest_sha256,
    }
    crops = {
        "@type": "cr:FileSet",
        "@id": "crops",
        "name": "crops",
        "containedIn": [{"@id": tar["@id"]} for tar in tars],
        "encodingFormat": "image/jpeg",
        "includes": "*.jpg",
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": naming.name,
        "description": _description(card),
        "license": "Each picture and caption stays under the terms of its source.",
        "url": naming.url or f"urn:gptface:{naming.name}:release:{card.corpus.release}",
        "version": f"{card.corpus.release}.0.0",
        "datePublished": _date(card.corpus.created_at),
        "creator": {"@type": "sc:Organization", "name": naming.contact or "unnamed"},
        "distribution": [*tars, table, *([crops] if tars else [])],
        "recordSet": [_samples(), *([_crops()] if tars else [])],
    }


def _description(card: CardFigures) -> str:
    splits = ", ".join(f"{split.samples} {split.name}" for split in card.splits)
    return (
        f"{card.corpus.kept} face crops with captions ({splits}) from {card.corpus.pairs} pictures on "
        f"{card.corpus.pages} public web pages, with consent asked and every decision recorded."
    )


def _samples() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"samples/{name}",
            "name": name,
            "dataType": _croissant_type(MANIFEST.field(name)),
            **({"repeated": True} if pa.types.is_list(MANIFEST.field(name).type) else {}),
            "source": {"fileObject": {"@id": TABLE_FILE}, "extract": {"column": name}},
        }
        for name in (*SAMPLE_COLUMNS, "shard", "position", "crop_sha256")
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "key": {"@id": "samples/row_id"},
        "field": fields,
    }


def _crops() -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"faces/{name}",
            "name": name,
            "dataType": data_type,
            "source": {"fileSet": {"@id": "crops"}, "extract": {"fileProperty": file_property}},
        }
        for name, data_type, file_property in (("file", "sc:Text", "filename"), ("image", "sc:ImageObject", "content"))
    ]
    return {"@type": "cr:RecordSet", "@id": "faces", "name": "faces", "field": fields}


def _croissant_type(field: pa.Field) -> str:
    if field.name.endswith("_url"):
        return "sc:URL"
    if pa.types.is_string(field.type):
        return "sc:Text"
    return "sc:Integer" if pa.types.is_integer(field.type) else "sc:Float"


def _date(at: dt.datetime) -> str:
    return at.date().isoformat()


def as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


# The context of the specification, https://docs.mlcommons.org/croissant/docs/croissant-spec.html
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
