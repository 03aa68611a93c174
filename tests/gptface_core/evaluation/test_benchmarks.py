"""What each benchmark counts, on literals and on planted cases."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gptface_core.evaluation import captioning, editing, edits, itm_attributes, probe, retrieval, text_to_face, unmask
from gptface_core.evaluation.claims import read_claims
from gptface_core.evaluation.occluders import KINDS, occlude
from gptface_core.evaluation.unmask import Covered
from gptface_core.evaluation_options import EvaluationOptions
from gptface_core.model import MASK_I
from gptface_core.occluder import Occluder
from gptface_core.regions import CANONICAL
from gptface_core.sampling import SamplingConfig

from .conftest import Drawn


def test_half_of_the_slots_are_hidden_and_others_in_each_picture() -> None:
    codes = torch.full((40, 16), 99)
    hidden = itm_attributes.half_masked(codes, np.random.default_rng(0)) == MASK_I
    assert (hidden.sum(1) == 8).all()
    assert (hidden.float().mean(0) - 0.5).abs().max() < 0.35 and len({tuple(row.tolist()) for row in hidden}) > 30


def test_shuffled_queries_are_another_faces_and_no_more_of_them_than_asked() -> None:
    owners = retrieval.shuffled(20, 0.5, np.random.default_rng(0))
    assert sorted(owners) == list(range(20)) and (owners != np.arange(20)).sum() == 10
    assert (retrieval.shuffled(20, 0.0, np.random.default_rng(0)) == np.arange(20)).all()


def test_the_matching_head_ranks_what_similarity_found(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = drawn.context(tmp_path)
    model, captions = context.bundle.model, ["a person with red hair", "a serious person"]
    monkeypatch.setattr(retrieval, "_NEAREST", 20)
    ranking = retrieval.rank(context.bundle, context.test.codes, captions)
    for caption, found in zip(captions, ranking, strict=True):
        words = context.bundle.text_ids([caption]).expand(80, -1)
        with torch.no_grad():
            near = model.text_features(words[:1]) @ model.image_features(context.test.codes).T
            odds = model.match(words, context.test.codes).diff(dim=1)[:, 0]
        assert set(found) == set(near[0].topk(20).indices.tolist())
        assert found.tolist() == sorted(found, key=lambda row: -odds[row]), "the head's order among them"


def edits_of(answers: dict[str, np.ndarray], identity: float = np.nan) -> edits.Edits:
    zeros, none = np.zeros(4), np.zeros((0, 8, 8, 3), np.uint8)
    return edits.Edits(answers, zeros, zeros, zeros, np.full(4, identity), none)


def test_faces_that_lack_the_attribute_are_edited_and_a_found_attribute_is_a_success(
    drawn: Drawn, tmp_path: Path
) -> None:
    context = drawn.context(tmp_path)
    task = editing.TASKS[2]
    faces = editing.chosen_faces(context, task, "test")
    assert faces.rows and all(label["beard"] is True for label in faces.labels)
    assert faces.rows == editing.chosen_faces(context, task, "test").rows
    beard, others = np.array([False] * 3 + [True]), np.array([True] * 4)
    result, plain = (edits_of({"beard": said, "smiling": others}) for said in (beard, ~beard))
    before, first = {"beard": np.array([True] * 4), "smiling": others}, faces.rows_of(slice(4))
    guided, unguided = editing._successes(context, task, first, before, {"guided": result, "unguided": plain})
    assert (guided.metric, guided.value, unguided.metric, unguided.value) == (
        *("success_beard", 0.75),
        *("success_beard_unguided", 0.25),
    )
    assert guided.baseline == 0 and guided.details["against_unguided"]["first_alone"] == 3
    assert guided.details["by"]["smiling"]["True"].get("value") is None, "too few for a percentage"


def test_captions_do_not_depend_on_their_company(drawn: Drawn, tmp_path: Path) -> None:
    context = drawn.context(tmp_path)
    codes, lengths, config = context.test.codes[:3], np.array([4, 9, 6]), SamplingConfig(steps=3)
    together = captioning.write(context.bundle, codes, lengths, config, [0, 1, 2])
    assert captioning.write(context.bundle, codes[:1], lengths[:1], config, [0]) == together[:1]
    for text, length in zip(together, lengths, strict=True):
        assert 1 <= len(context.bundle.text.encode(text)) <= length


def test_captions_are_counted_by_the_attributes_that_they_name_truly(drawn: Drawn, tmp_path: Path) -> None:
    label = {"eyeglasses": True, "beard": False, "hair_colour": "red", "smiling": True}
    guided = ["a smiling person with red hair, eyeglasses and no beard", "a smiling person with black hair"]
    unguided = ["an old person", "a serious person with red hair"]
    written = {"guided": guided, "unguided": unguided, "ranked": guided[:1]}
    figures = {f.metric: f for f in captioning._figures(drawn.context(tmp_path), written, [label, label])}
    assert figures["named_truly_guided"].value == pytest.approx((1 + 1 / 4) / 2)
    assert figures["named_truly_unguided"].value == pytest.approx(1 / 8)
    assert figures["true_of_named_guided"].value == pytest.approx(3 / 4)
    assert figures["true_of_named_unguided"].value == pytest.approx(1 / 2) and figures["named_truly_ranked"].value == 1
    assert figures["guidance_gain"].value == pytest.approx(1 / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_occluder_covers_its_region_and_nothing_else(kind: str) -> None:
    crop = np.random.default_rng(0).integers(90, 200, (128, 128, 3)).astype(np.uint8)
    covered, region = occlude(crop, CANONICAL * 128, kind, np.random.default_rng(4))
    assert 0.02 < region.mean() < 0.4
    inner = np.asarray(region)
    assert covered[inner].std(axis=0).max() < 25 < crop[inner].std(axis=0).min(), "one colour, whatever was below"
    far = cv2.dilate(region.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    assert np.array_equal(covered[far], crop[far])
    eyes, mouth = region[round(0.47 * 128), 64], region[round(0.75 * 128), 64]
    assert kind == "patch" or (eyes, mouth) == ((False, True) if kind == "mask" else (True, False))


def test_overlap_is_counted_in_pixels_and_nothing_found_is_none() -> None:
    crop = np.zeros((8, 8, 3), np.uint8)
    true, found = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    true[:4, :4], found[:4, 2:6] = True, True
    assert Covered(crop, crop, "bar", true, Occluder(found, 1.0)).iou == pytest.approx(8 / 24)
    missed = Covered(crop, crop, "bar", true, None)
    assert missed.iou == 0 and np.array_equal(missed.to_fill(), true)
    assert unmask._shrunk(true, 4).sum() == 4


def test_generated_faces_are_judged_by_what_their_captions_name() -> None:
    claims = [read_claims("a smiling person with red hair"), read_claims("a person with no beard")]
    answers = {
        "smiling": np.array([True, False]),
        "hair_colour": np.array(["grey", "red"]),
        "beard": np.array([True, True]),
    }
    assert text_to_face._found(claims, answers).tolist() == [0.5, 0.0]
    assert text_to_face._by_attribute(claims, answers, "hair_colour") == 0
    assert text_to_face._by_attribute(claims, {"smiling": answers["smiling"]}, "smiling") == 1


def test_a_face_is_generated_from_its_own_caption_and_seed(drawn: Drawn, tmp_path: Path) -> None:
    bundle, config = drawn.context(tmp_path).bundle, SamplingConfig(steps=2)
    captions = ["a person with red hair", "a serious person with a full beard and eyeglasses"]
    made = text_to_face.generate_each(bundle, captions, config, [0, 1])
    assert np.array_equal(text_to_face.generate_each(bundle, captions[1:], config, [1])[0], made[1])
    assert not np.array_equal(made[0], made[1])


@pytest.mark.realdata
def test_identity_is_compared_where_a_recogniser_is_named(drawn: Drawn, tmp_path: Path, test_models: Path) -> None:
    options = EvaluationOptions(
        faces=20, classifier_steps=2, face_models=str(test_models / "insightface"), pack="test_sc"
    )
    context, task = drawn.context(tmp_path, options), editing.TASKS[0]
    faces, embed = editing.chosen_faces(context, task, "test").rows_of(slice(4)), editing._embed(context)
    noise = list(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8))
    same, other = (float(edits._cosine(faces, pictures, embed).mean()) for pictures in (faces.crops, noise))
    assert same == pytest.approx(1, abs=1e-4) and other < 0.6
    made = {"guided": edits_of({}, same), "unguided": edits_of({}, other)}
    kept, lost = editing._identities(context, task, faces, made, embed)
    assert kept.metric == "identity_cosine_smiling" and (kept.value, lost.value) == pytest.approx((same, other))
    assert kept.baseline is not None and kept.baseline < 1
    assert "editing identity" not in context.left_out


def test_shuffled_labels_leave_the_probe_at_chance(drawn: Drawn, tmp_path: Path) -> None:
    """The same network and faces: what it reads is theirs, not the protocol's."""
    found = {}
    for shuffled in (False, True):
        context = drawn.context(tmp_path)
        assert context.truth is not None
        if shuffled:
            order = np.random.default_rng(5).permutation(len(context.truth))
            labels = list(context.truth.values())
            context.truth = {row_id: labels[place] for row_id, place in zip(context.truth, order, strict=True)}
        (found[shuffled],) = probe.run(context)
    chance = found[True].baseline
    assert chance is not None and found[False].low is not None and found[True].low is not None
    assert found[False].low > chance + 0.05, "there is something to read"
    assert found[True].high is not None and found[True].low <= chance <= found[True].high
