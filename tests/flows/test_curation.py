"""The funnel and the what-if in the terminal: reasons are explained, and what is compared is named."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.curation import whatif
from tests.warehouse.literal_crawls import Shot, write_crawl
from warehouse.publish import publish
from warehouse.report.reasons import SENTENCES
from warehouse.whatif import GROUPS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curation")
    shots = [Shot("a"), Shot("b", face_px=90.0), Shot("tiny", face_px=20.0), Shot("no", refused="robots_txt")]
    publish(root, [write_crawl(root / "raw/test/g000", shots)])
    return root


def printed(root: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--root", str(root)], env={"COLUMNS": "160", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_help_of_whatif_lists_its_groups() -> None:
    (option,) = typing.get_type_hints(whatif, include_extras=True)["by"].__metadata__
    listed = option.help.removeprefix("Group by ").removesuffix(".").replace(" or ", ", ").split(", ")
    assert listed == list(GROUPS)


@pytest.mark.e2e
def test_the_funnel_says_what_its_reasons_mean(root: Path) -> None:
    shown = printed(root, "funnel").splitlines()
    reasons = ("robots_txt", "face_px", "kept")
    assert [line for line in shown if ": " in line] == [f"{reason}: {SENTENCES[reason]}" for reason in reasons]


@pytest.mark.e2e
def test_what_if_names_the_values_that_it_compares(root: Path) -> None:
    faces = printed(root, "whatif", "--rule", "face_px", "--from", "80", "--to", "96")
    assert "If min_face_px were 96, not 80" in faces
    assert "kept at 80" in faces and "kept at 96" in faces
    assert "1 would go by face_px" in faces
    languages = printed(root, "whatif", "--rule", "languages", "--to", "en,de")
    assert "kept at none" in languages and "kept at en,de" in languages
