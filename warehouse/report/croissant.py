"""Croissant metadata of a release (JSON-LD): its shards and manifest, their columns, their hashes; filled from SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.errors import InputError
from warehouse.manifest import MANIFEST, SAMPLE_COLUMNS, TABLE_FILE
from warehouse.report.card import CardFigures, Naming

CROISSANT = "http://mlcommons.org/croissant/1.0"
_URN, _UNNAMED = "urn:gptface:", "unnamed"  # where nothing was given


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
        "url": naming.url or f"{_URN}{naming.name}:release:{card.corpus.release}",
        "version": f"{card.corpus.release}.0.0",
        "datePublished": card.corpus.created_at.date().isoformat(),
        "creator": {"@type": "sc:Organization", "name": naming.contact or _UNNAMED},
        "distribution": [*tars, table, *([crops] if tars else [])],
        "recordSet": [_samples(), *([_crops()] if tars else [])],
    }


def read_naming(document: Mapping[str, Any]) -> tuple[Naming, int]:
    """What such metadata was given, and the release that it is about. Raises InputError where it is none of ours."""
    try:
        name, url, contact = str(document["name"]), str(document["url"]), str(document["creator"]["name"])
        release = int(document["version"].partition(".")[0])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"no metadata of a release ({error}): write the card again with `gptface card`") from error
    return Naming(name, "" if url.startswith(_URN) else url, "" if contact == _UNNAMED else contact), release


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
