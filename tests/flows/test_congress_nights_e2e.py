"""Three nights over real portraits, of which nobody knows the attributes: a figure without labels decides.

Night 1 builds three fifths of the members and trains the first champion. Night 2 asks for the new portraits alone, goes
on from the champion and decides, whichever way: the decision must follow from the figures that both models' faces give.
Night 3 finds nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warehouse
from gptface_core.evaluation.rows import load_rows
from tests.flows.congress_site import PORTRAITS, CongressSite, serving, write_site
from tests.flows.nights import Nights, figure_of, starting_nights

pytestmark = [pytest.mark.e2e, pytest.mark.realdata, pytest.mark.slow]

METRIC = "mim_gain_nats"
FIRST_MEMBERS = 323
STEPS = 60
FIRST, SECOND = "night-nights-r00001-s0", "night-nights-r00002-s0"


@pytest.fixture(scope="module")
def nights(test_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    weights = {"GPTFACE_INSIGHTFACE_ROOT": str(test_models / "insightface")}
    with starting_nights(tmp_path_factory.mktemp("nights"), weights) as nights:
        yield nights


def test_three_nights_over_real_portraits(nights: Nights, test_data: Path, tmp_path: Path) -> None:
    write_site(test_data, tmp_path, FIRST_MEMBERS)
    with serving(tmp_path) as site:
        first, asked = _night(nights, site)
        assert "the first champion" in first["night-summary"] and nights.champion() == FIRST
        old_pictures = nights.pictures_of_release(1)
        assert len(old_pictures) == FIRST_MEMBERS and asked == old_pictures

        write_site(test_data, tmp_path)
        second, asked = _night(nights, site)
        new_pictures = nights.pictures_of_release(2) - old_pictures
        assert len(new_pictures) == PORTRAITS - FIRST_MEMBERS and asked == new_pictures, "exactly what is new"
        assert nights.parent(SECOND) == FIRST
        _check_decision(nights, second)

        before = _state(nights)
        third, asked = _night(nights, site)
        assert "No new faces: release 2 stands, nothing was trained" in third["night-summary"]
        assert "night-decision" not in third and not asked
        assert _state(nights) == before
        assert "nothing was trained" in nights.told[2]


def _night(nights: Nights, site: CongressSite) -> tuple[dict[str, Any], set[str]]:
    """Its artifacts by key, and the pictures that it asked for."""
    site.asked.clear()
    rules = {"min_face_px": 32, "val_share": 0.05, "test_share": 0.35}
    parameters = {
        "source": f"site:{site.url}",
        "detector": "insightface",
        "challenge": {"steps": STEPS, "metric": METRIC},
        "settings": {"allow_private": True, "page_delay_s": 0.0, "part_urls": 270, "rules": rules},
    }
    artifacts = nights.night(parameters)
    return artifacts, {path for path in site.asked if path.startswith("/images/")}


def _check_decision(nights: Nights, artifacts: dict[str, Any]) -> None:
    """Promoted or kept as the figures say, and the figures are those of the faces that both releases test on."""
    decision = nights.decisions()[-1]
    assert (decision.model, decision.previous) == (SECOND, FIRST)
    figure = figure_of(decision, METRIC)
    faces = _test_faces(nights, 1) & _test_faces(nights, 2)
    for role, model in (("champion", FIRST), ("challenger", SECOND)):
        values = load_rows(nights.up.root / "models" / model / "evaluation")[METRIC]
        assert figure[role] == pytest.approx(np.mean([values[face] for face in faces]))
    assert figure["rows"] == len(faces) > 100
    assert figure["low"] < figure["difference"] < figure["high"]

    worse = [row for row in decision.figures["paired"] if row["high"] < 0 and row["metric"] != METRIC]
    is_better = figure["low"] > 0
    promoted = is_better and not worse
    assert decision.action == ("promote" if promoted else "keep"), decision.why
    assert nights.champion() == (SECOND if promoted else FIRST)
    decider = worse[0] if is_better and worse else figure
    words = f"{decider['metric']} {decider['challenger']:.3f} against {decider['champion']:.3f}"
    told = ("Promoted" if promoted else "Rejected", words)
    for text in (artifacts["night-summary"], nights.told[1]):
        assert all(word in text for word in told), text


def _test_faces(nights: Nights, release: int) -> set[str]:
    with warehouse.connect(nights.up.root, at=release) as con:
        return {row[0] for row in con.execute("SELECT row_id FROM corpus WHERE split = 'test'").fetchall()}


def _state(nights: Nights) -> tuple[list[Path], int, Any]:
    """What a night that does nothing leaves alone: raw and training shards, models, releases, decisions."""
    root = nights.up.root
    kept = [*root.glob("raw/*/*/images/*.tar"), *root.glob("shards/*/*"), *root.glob("models/*")]
    with warehouse.connect(root) as con:
        [(releases,)] = con.execute("SELECT count(*) FROM releases").fetchall()
    return sorted(kept), releases, nights.decisions()
