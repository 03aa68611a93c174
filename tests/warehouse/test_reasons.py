"""Every reason is documented: docs/rules.md lists the closed enum, in order, with the sentences of the report."""

from __future__ import annotations

import re
from pathlib import Path

from warehouse.report.reasons import SENTENCES
from warehouse.rules import RULES
from warehouse.schema import Reason
from warehouse.tables import reason_rows

RULES_DOC = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_documented_reasons_are_the_closed_enum() -> None:
    section = RULES_DOC.read_text("utf-8").split("\n## Every reason\n", 1)[1].split("\n## ", 1)[0]
    documented = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", section, re.MULTILINE)
    assert documented == [(reason, stage, SENTENCES[reason]) for reason, stage, _ in reason_rows()]
    assert {reason for reason, _, _ in documented} == set(Reason)


def test_every_rule_and_its_reason_stand_in_the_table_of_rules() -> None:
    section = RULES_DOC.read_text("utf-8").split("\n## Every reason\n", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    for rule in RULES:
        row = next((row for row in rows if re.search(rf"\b{rule.name}\b", row.split("|")[1])), "")
        assert row, rule.name
        assert rule.reason_sql or f"`{rule.reason}`" in row, rule.name
