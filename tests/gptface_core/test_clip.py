"""CLIP by open_clip: weights that must be there and fit, and similarities that tell true captions from untrue ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gptface_core.clip import ClipScorer, clip_device, find_clip
from gptface_core.errors import InputError
from tests.gptface_core.tiny_clip import CONFIG, captions_of, drawn

HELD_OUT = range(5_000, 5_200)
MIN_BETTER = 0.8


@pytest.fixture(scope="module")
def scorer(tiny_clip: str) -> ClipScorer:
    return ClipScorer(find_clip(tiny_clip))


@pytest.mark.e2e
def test_true_captions_of_new_faces_score_higher_than_contradictions(scorer: ClipScorer) -> None:
    faces = [drawn(index) for index in HELD_OUT]
    texts = [captions_of(attributes, index) for index, (attributes, _) in zip(HELD_OUT, faces, strict=True)]
    seen = scorer.see([picture for _, picture in faces])
    true, untrue = (scorer.read(side) for side in zip(*texts, strict=True))
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-5)
    better = (seen * true).sum(axis=1) > (seen * untrue).sum(axis=1)
    assert better.mean() >= MIN_BETTER


@pytest.mark.e2e
def test_batches_change_nothing(scorer: ClipScorer) -> None:
    pictures = [drawn(index)[1] for index in range(20)]  # more than a batch
    one_by_one = np.concatenate([scorer.see([picture]) for picture in pictures])
    np.testing.assert_allclose(scorer.see(pictures), one_by_one, atol=1e-5)
    assert scorer.see([]).shape == (0, 0)


@pytest.mark.e2e
def test_a_model_is_its_weights_and_configuration_wherever_they_lie(tiny_clip: str, tmp_path: Path) -> None:
    config, weights = map(Path, tiny_clip.split(":"))
    found = find_clip(tiny_clip)
    moved = shutil.copy(weights, tmp_path / "moved.safetensors")
    assert find_clip(f"{config}:{moved}").describe() == found.describe()
    assert str(tmp_path) not in found.describe() and found.describe().startswith("open_clip:tiny:")
    other = tmp_path / "tiny.json"
    other.write_text(json.dumps(CONFIG | {"quick_gelu": True}))
    assert find_clip(f"{other}:{weights}").describe() != found.describe()
    other.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    prepared = find_clip(f"{other}:{weights}")
    assert prepared.describe() != found.describe()
    grey = [np.full((64, 64, 3), 60, dtype=np.uint8)]
    assert not np.allclose(ClipScorer(prepared).see(grey), ClipScorer(found).see(grey), atol=1e-3)


@pytest.mark.e2e
def test_weights_that_do_not_fit_are_refused(tiny_clip: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config, weights = map(Path, tiny_clip.split(":"))
    tensors = load_file(weights)
    del tensors["visual.proj"]
    save_file(tensors, tmp_path / "lacks_one.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(weights.read_bytes()[:5_000])
    (tmp_path / "no_tensors.pt").write_bytes(b"nothing of the kind")
    torch.save({"code": _Danger()}, tmp_path / "pickle.pt")
    for name in ("lacks_one.safetensors", "broken.safetensors", "no_tensors.pt", "pickle.pt"):
        with pytest.raises(
            InputError, match=rf"{name} cannot be loaded as a tiny of open_clip .*give the architecture"
        ):
            ClipScorer(find_clip(f"{config}:{tmp_path / name}"))
    assert not _Danger.ran
    wider = tmp_path / "wider.json"
    wider.write_text(json.dumps(CONFIG | {"embed_dim": 64}))
    with pytest.raises(InputError, match="cannot be loaded as a wider"):
        ClipScorer(find_clip(f"{wider}:{weights}"))


class _Danger:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (_Danger, "ran", True)


@pytest.mark.e2e
def test_what_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip.pretrained

    asked = []

    def offline(**where: object) -> str:
        asked.append(where)
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", offline)
    with pytest.raises(InputError) as raised:
        find_clip("ViT-B-32:laion2b_s34b_b79k", tmp_path)
    assert asked, "the tag's address was never asked"
    assert "weights are not at hand and cannot be downloaded" in str(raised.value)
    assert "\n" not in str(raised.value)
    for spec, says in (
        ("ViT-B-32", "give MODEL:PRETRAINED"),
        (":x", "give MODEL:PRETRAINED"),
        ("ViT-B-32:nothing", r"'nothing' is neither a file nor a tag of ViT-B-32 \(its tags: openai, .*laion2b"),
        ("ViT-Z:openai", "no architecture 'ViT-Z'"),
        (f"{tmp_path}/none.json:x", "none.json cannot be read"),
    ):
        with pytest.raises(InputError, match=says):
            find_clip(spec, tmp_path)
    (tmp_path / "other.json").write_text('{"embed_dim": 3, "vision_cfg": 1, "text_cfg": {}}')
    with pytest.raises(InputError, match="is no architecture of open_clip: it needs embed_dim, vision_cfg, text_cfg"):
        find_clip(f"{tmp_path}/other.json:x")


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(InputError, match=f"clip device '{name}': .*choose cpu"):
            clip_device(name)
    assert clip_device("cpu").type == "cpu"


@pytest.mark.e2e
def test_a_tag_brings_its_own_activation_and_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip.pretrained

    file = tmp_path / "some.safetensors"
    file.write_bytes(b"weights")
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", lambda **_: str(file))
    told = {tag: json.loads(find_clip(f"ViT-B-32:{tag}").config) for tag in ("openai", "laion2b_s34b_b79k")}
    assert [config["model_cfg"]["quick_gelu"] for config in told.values()] == [True, False]
    assert all(config["preprocess_cfg"]["resize_mode"] == "shortest" for config in told.values())
    assert dataclasses.replace(find_clip("ViT-B-32:openai"), path="") != find_clip("ViT-B-32:laion2b_s34b_b79k")
