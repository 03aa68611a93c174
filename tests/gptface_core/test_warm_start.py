"""Going on from a trained model: what is kept, what is new, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gptface_core import InputError
from gptface_core.bundle import load_bundle
from gptface_core.config import Preset, override
from gptface_core.model import SPECIALS, GPTFace
from gptface_core.text_tokenizer import TextTokenizer
from gptface_core.training import Progress, train
from gptface_core.warm_start import adopt, open_parent

from .conftest import Micro
from .micro import micro_preset


def short() -> Preset:
    return override(micro_preset(), {"training": {"steps": 2, "learning_rate": 1e-4}})


@pytest.fixture(scope="module")
def child(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("warm") / "child"
    train(micro.shards, out, short(), seed=6, init_from=micro.model_dir)
    return out


@pytest.mark.e2e
def test_a_child_trains_the_main_stage_alone_from_the_parents_weights(micro: Micro, child: Path) -> None:
    stages = {json.loads(line)["stage"] for line in (child / "history.jsonl").read_text().splitlines()}
    assert stages == {"main"}
    for name in ("image_tokenizer.safetensors", "text_tokenizer.json"):
        assert (child / name).read_bytes() == (micro.model_dir / name).read_bytes(), name
    old, new = (load_file(folder / "model.safetensors") for folder in (micro.model_dir, child))
    moved = max(float((new[name] - old[name]).abs().max()) for name in old)
    assert 0 < moved < 0.01, "two steps at a low rate go only a little way from the parent"


@pytest.mark.e2e
def test_summary_and_provenance_name_the_parent(micro: Micro, child: Path) -> None:
    assert json.loads((child / "training.json").read_text())["parent"] == micro.model_dir.name
    provenance = json.loads((child / "config.json").read_text())["provenance"]
    assert provenance["parent"] == {
        "model": micro.model_dir.name,
        "weights": open_parent(micro.model_dir, short(), child).digest,
        "new_words": 0,
    }


@pytest.mark.e2e
def test_going_on_again_finds_the_finished_child_and_another_parent_begins_anew(
    micro: Micro, child: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    train(micro.shards, child, short(), seed=6, on_progress=seen.append, init_from=micro.model_dir)
    assert seen == []
    out = tmp_path / "grandchild"
    train(micro.shards, out, short(), seed=6, on_progress=seen.append, init_from=micro.model_dir)
    first = len(seen)
    train(micro.shards, out, short(), seed=6, on_progress=seen.append, init_from=child)
    assert first > 0 and len(seen) == 2 * first


@pytest.mark.e2e
def test_a_killed_child_ends_with_the_same_weights(micro: Micro, child: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 1:
            raise KilledError

    again = tmp_path / "child"
    with pytest.raises(KilledError):
        train(micro.shards, again, short(), seed=6, on_progress=kill, init_from=micro.model_dir)
    train(micro.shards, again, short(), seed=6, init_from=micro.model_dir)
    assert (again / "model.safetensors").read_bytes() == (child / "model.safetensors").read_bytes()


@pytest.mark.e2e
def test_new_words_come_after_the_old_and_change_nothing_that_was_known(micro: Micro, tmp_path: Path) -> None:
    """The same caption and picture give the same hidden states, although the codes moved up in the table."""
    parent = open_parent(micro.model_dir, micro_preset(), tmp_path)
    old = load_bundle(micro.model_dir)
    grown = old.text.extended(TextTokenizer.from_corpus(["a zebra with a red face"]))
    assert grown.clip_ids[: len(old.text.clip_ids)] == old.text.clip_ids
    added = grown.size - old.text.size
    assert added >= 1 and grown.unknown_words("zebra") == []
    config = old.model.config.to_dict() | {"text_vocab_size": grown.size}
    new = GPTFace(type(old.model.config)(**config))
    adopt(new, parent)
    new.eval()
    assert new.first_code == old.model.first_code + added
    text = old.text_ids(["a red face", "a blue face number 3"])
    codes = torch.arange(32).reshape(2, 16) % 16
    with torch.no_grad():
        before = old.model.encode(text, codes + old.model.first_code)
        after = new.encode(text, codes + new.first_code)
        assert before.image is not None and after.image is not None and after.text is not None
        torch.testing.assert_close(after.cls, before.cls)
        torch.testing.assert_close(new.image_logits(after.image), old.model.image_logits(before.image))
        law = new.text_logits(after.text)[..., : parent.words]
        assert before.text is not None
        torch.testing.assert_close(law, old.model.text_logits(before.text))
    assert new.table.weight[SPECIALS + parent.words : new.first_code].abs().sum() > 0


@pytest.mark.e2e
def test_a_parent_that_does_not_fit_is_one_line(micro: Micro, tmp_path: Path) -> None:
    preset = micro_preset()
    wider = replace(preset, name="wider", model=replace(preset.model, width=32, layers=2))
    with pytest.raises(InputError, match=r"cannot go on from .*: its model\.layers is 1, that of preset 'wider' is 2"):
        train(micro.shards, tmp_path / "m", wider, init_from=micro.model_dir)
    other = replace(preset, tokenizer=replace(preset.tokenizer, levels=(5, 5)))
    with pytest.raises(InputError, match=r"its tokenizer\.levels is \[4, 4\].*\[5, 5\]; choose the preset"):
        train(micro.shards, tmp_path / "m", other, init_from=micro.model_dir)
    with pytest.raises(InputError, match="holds no GPTFace model"):
        train(micro.shards, tmp_path / "m", preset, init_from=tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot go on from itself"):
        train(micro.shards, micro.model_dir, preset, init_from=micro.model_dir)
    assert not (tmp_path / "m").exists()
