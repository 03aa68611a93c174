"""docs/crawling.md names a test for every claim about consent: each of them must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOC = TESTS.parent / "docs" / "crawling.md"

_TEST = re.compile(r"`([a-z_/]+\.py)::(\w+)`")
_HEADER_OF_CLAIMS = re.compile(r"^\| claim \| proved by \|$")


def named_tests() -> list[tuple[str, str]]:
    return sorted(set(_TEST.findall(DOC.read_text(encoding="utf-8"))))


def rows_of_claims() -> list[str]:
    """The rows of all tables that begin with "claim | proved by"."""
    rows: list[str] = []
    inside = False
    for line in DOC.read_text(encoding="utf-8").splitlines():
        if _HEADER_OF_CLAIMS.match(line):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("file", sorted({file for file, _ in named_tests()}))
def test_every_named_test_exists(file: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for named, name in named_tests() if named == file} - there == set()


def test_every_claim_names_a_test() -> None:
    rows = rows_of_claims()
    assert len(rows) > 40
    assert [row for row in rows if not _TEST.search(row)] == []
