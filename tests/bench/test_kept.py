"""What the end-to-end benchmark says about the difference between two kept sets."""

from __future__ import annotations

import pytest

from bench._kept import Verdict, compare


def kept(sha256: str) -> Verdict:
    return Verdict("kept", sha256)


def test_rules_of_one_side_explain_and_do_not_count_as_disagreement() -> None:
    ours = {"a": kept("1"), "b": Verdict("robots_txt", None), "c": Verdict("near_duplicate_image", "3")}
    found = compare(ours, {"a": kept("1"), "b": kept("2"), "c": kept("3")})
    assert found["kept"] == {"ours": 1, "theirs": 3, "both": 1}
    assert (found["judged_by_both"], found["same_kept"]) == (1, 1.0)
    assert [kind.split()[0] for kind in found["differences"]] == ["refused", "near-duplicates,"]


def test_detectors_that_differ_are_disagreement_in_either_direction() -> None:
    ours = {"a": kept("1"), "b": Verdict("no_face", "2"), "c": kept("3"), "d": Verdict("no_face", "4")}
    found = compare(ours, {"a": kept("1"), "b": kept("2"), "c": Verdict("face_px", "3"), "d": Verdict("no_face", "4")})
    assert (found["judged_by_both"], found["same_kept"]) == (4, 0.5)
    assert found["differences"] == {"detectors differ: no_face for ours": 1, "detectors differ: face_px for theirs": 1}


def test_the_other_copy_of_the_same_bytes_is_agreement() -> None:
    ours = {"a": kept("1"), "b": Verdict("duplicate_image", "1")}
    found = compare(ours, {"a": Verdict("duplicate_image", "1"), "b": kept("1")})
    assert found["same_kept"] == 1.0 and found["kept"]["both"] == 0


def test_a_copy_all_of_whose_like_gave_way_to_a_near_duplicate_is_one() -> None:
    ours = {"a": Verdict("near_duplicate_image", "1"), "b": Verdict("duplicate_image", "1"), "c": kept("2")}
    found = compare(ours, {"a": kept("1"), "b": Verdict("duplicate_image", "1"), "c": kept("2")})
    assert found["same_kept"] == 1.0 and list(found["differences"].values()) == [1]


def test_addresses_that_one_side_lost_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="1 addresses"):
        compare({"a": kept("1")}, {})
