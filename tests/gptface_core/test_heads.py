from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptface_core import GPTFace, GPTFaceConfig, GPTFaceForAttributes, GPTFaceForExpression, InputError
from gptface_core.heads import GPTFaceClassifier

NAMES = ["smiling", "beard", "eyeglasses"]


def shape(**values: object) -> GPTFaceConfig:
    sizes = {"text_vocab_size": 11, "fsq_levels": [4, 4], "grid": 4, "max_text_tokens": 6, "layers": 2, "width": 32}
    return GPTFaceConfig(**{**sizes, "heads": 2, "projection_dim": 8, **values})


def images(rows: int = 6) -> Tensor:
    return torch.randint(16, (rows, 16), generator=torch.Generator().manual_seed(1)) + 5 + 11


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(3)
    GPTFace(shape()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [GPTFaceForAttributes, GPTFaceForExpression])
def test_a_checkpoint_of_pretraining_gives_the_trunk_and_the_log_says_what_is_new(
    kind: type[GPTFaceClassifier], pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="gptface_core.model"):
        model = kind.from_pretrained(pretrained, labels=NAMES)
    trunk = GPTFace.from_pretrained(pretrained).state_dict()
    loaded = model.gptface.state_dict()
    assert loaded.keys() == trunk.keys() and all(torch.equal(loaded[name], trunk[name]) for name in trunk)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gptface_core.model"]
    assert "classifier.bias, classifier.weight: new and untrained" in line and str(pretrained) in line
    assert model.config.id2label == dict(enumerate(NAMES)) and model(images()).logits.shape == (6, 3)


def test_a_classifier_is_saved_with_its_labels_and_loads_the_same(pretrained: Path, tmp_path: Path) -> None:
    model = GPTFaceForAttributes.from_pretrained(pretrained, labels=NAMES, pooling="cls", freeze_trunk=True)
    model.save_pretrained(tmp_path)
    again = GPTFaceForAttributes.from_pretrained(tmp_path)
    assert again.config.id2label == dict(enumerate(NAMES)) and again.config.pooling == "cls"
    assert again.config.problem_type == "multi_label_classification"
    assert not any(p.requires_grad for p in again.gptface.parameters()), "frozen as it was saved"
    with torch.no_grad():
        assert torch.equal(again(images()).logits, model(images()).logits)
    trunk = GPTFace.from_pretrained(tmp_path)
    assert torch.equal(trunk.table.weight, model.gptface.table.weight), "the trunk can be taken out again"


def test_labels_of_another_number_are_refused_for_a_trained_classifier(pretrained: Path, tmp_path: Path) -> None:
    GPTFaceForExpression.from_pretrained(pretrained, labels=NAMES).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be loaded") as error:
        GPTFaceForExpression.from_pretrained(tmp_path, labels=["happy", "sad"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("pooling", "width"), [("mean", 32), ("cls", 32), ("cells", 16 * 32)])
def test_pooling(pooling: str, width: int) -> None:
    model = GPTFaceForExpression(shape(pooling=pooling))
    assert model.features(images()).shape == (6, width)
    states = model.gptface.encode(image_ids=images())
    assert states.image is not None
    wanted = {"cls": states.cls, "mean": states.image.mean(1)}
    if pooling in wanted:
        assert torch.equal(model.features(images()), wanted[pooling])
    else:  # a 4 x 4 grid has one slot per cell
        assert model.features(images()).view(6, 32, 16).transpose(1, 2).allclose(states.image)


def test_an_unknown_pooling_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="no pooling 'max': choose mean, cls, cells"):
        GPTFaceForExpression(shape(pooling="max"))


def test_losses_leave_unknown_labels_out() -> None:
    attributes, expression = GPTFaceForAttributes(shape(num_labels=3)), GPTFaceForExpression(shape(num_labels=3))
    labels = torch.tensor([[1, 0, float("nan")], [float("nan"), 1, 1]])
    logits = attributes(images(2), labels=labels).logits.double()
    p = logits.sigmoid()
    known = [p[0, 0], 1 - p[0, 1], p[1, 1], p[1, 2]]
    assert attributes.loss(logits, labels).item() == pytest.approx(-sum(x.log().item() for x in known) / 4)
    output = expression(images(3), labels=torch.tensor([2, -100, 0]))
    log_p = output.logits.log_softmax(-1)
    assert output.loss.item() == pytest.approx(-(log_p[0, 2] + log_p[2, 0]).item() / 2, rel=1e-5)
    assert expression.loss(output.logits, torch.full((3,), -100)).item() == 0
    assert attributes.loss(logits, torch.full((2, 3), float("nan"))).item() == 0


def test_predictions_carry_the_labels_names() -> None:
    table = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    rows = GPTFaceForExpression(shape(**table)).predict(images(2))
    assert len(rows) == 2 and list(rows[0]) == NAMES and sum(rows[0].values()) == pytest.approx(1)
    several = GPTFaceForAttributes(shape(**table)).predict(images(2), torch.full((2, 3), 6))
    assert all(0 < value < 1 for value in several[0].values())


def test_fine_tuning_reaches_the_trunk_and_a_frozen_one_stays() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for frozen in (False, True):
        model = GPTFaceForExpression(shape(num_labels=3, freeze_trunk=frozen))
        before = {name: value.clone() for name, value in model.gptface.state_dict().items()}
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        first = model(images(), labels=labels).loss.item()
        for _ in range(40):
            loss = model(images(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.5 * first, "six pictures are learnt by heart"
        changed = {name for name, value in model.gptface.state_dict().items() if not torch.equal(value, before[name])}
        if frozen:
            assert not changed and all(p.grad is None for p in model.gptface.parameters())
        else:  # what a picture alone passes through; the rest belongs to captions and to pre-training
            assert {"table.weight", "coordinate_map.weight", "row_position", "segment", "offset_bias"} <= changed
            assert {name for name in before if name.startswith(("blocks.", "norm."))} <= changed
