from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gptface_core
from gptface_core import GPTFace, GPTFaceForAttributes, GPTFaceProcessor, InputError
from gptface_core.bundle import load_bundle
from gptface_core.model import MASK_T, PAD, SPECIALS

from .conftest import Micro


@pytest.fixture(scope="module")
def processor(micro: Micro) -> GPTFaceProcessor:
    return GPTFaceProcessor.from_pretrained(micro.model_dir)


def crop(seed: int = 0, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def test_a_picture_and_a_caption_become_what_the_model_reads(micro: Micro, processor: GPTFaceProcessor) -> None:
    batch = processor(crop(), "A red  face")
    assert batch["image_ids"].shape == (1, 16) and batch["text_ids"].shape == (1, 3)
    model = GPTFace.from_pretrained(micro.model_dir).eval()
    with torch.no_grad():
        assert model(**batch).cls.shape == (1, 16) and model.match(**batch).shape == (1, 2)
    assert batch["image_ids"].min() >= model.first_code and batch["text_ids"].max() < model.first_code


def test_pil_arrays_lists_and_batches_give_the_same_ids(processor: GPTFaceProcessor) -> None:
    array = np.stack([crop(0), crop(1)])
    ids = processor(array)["image_ids"]
    assert torch.equal(processor([Image.fromarray(picture) for picture in array])["image_ids"], ids)
    assert torch.equal(processor(Image.fromarray(array[1]))["image_ids"], ids[1:])
    assert "text_ids" not in processor(array)


def test_ids_go_back_to_pictures_and_words(processor: GPTFaceProcessor) -> None:
    batch = processor([crop(0), crop(1)], ["a red face number 3", "blue"])
    assert batch["text_ids"][1, 1:].tolist() == [PAD] * 4
    assert processor.decode_text(batch["text_ids"]) == ["a red face number 3", "blue"]
    hidden = batch["text_ids"].clone()
    hidden[0, 1] = MASK_T
    assert processor.decode_text(hidden)[0] == "a face number 3"
    pictures = processor.decode_images(batch["image_ids"])
    assert pictures.shape == (2, 32, 32, 3) and pictures.dtype == np.uint8


def test_captions_are_cut_to_the_context(processor: GPTFaceProcessor) -> None:
    assert processor(text="a red face " * 20)["text_ids"].shape == (1, 12)
    assert processor(text=["", "zebra"])["text_ids"].tolist() == [[PAD], [SPECIALS]]


def test_saved_alone_it_loads_the_same(processor: GPTFaceProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    again = GPTFaceProcessor.from_pretrained(tmp_path)
    for name, ids in processor(crop(), "a blue face").items():
        assert torch.equal(again(crop(), "a blue face")[name], ids)
    assert again.max_text_tokens == processor.max_text_tokens == 12


@pytest.mark.parametrize("bad", [np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_crops_that_are_no_crops_are_one_clear_line(processor: GPTFaceProcessor, bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="an aligned square of uint8 RGB is needed"):
        processor(bad)
    with pytest.raises(InputError, match="nothing to process"):
        processor()


def test_folders_that_hold_no_processor_are_one_clear_line(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no processor"):
        GPTFaceProcessor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        GPTFaceProcessor.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((micro.model_dir / "config.json").read_bytes())
    with pytest.raises(InputError, match="holds no image tokenizer"):
        GPTFaceProcessor.from_pretrained(tmp_path)


def test_auto_classes_load_a_trained_folder(micro: Micro, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, AutoProcessor

    gptface_core.register()
    gptface_core.register()
    model = AutoModel.from_pretrained(micro.model_dir)
    assert type(model) is GPTFace and AutoConfig.from_pretrained(micro.model_dir).grid == 4
    ours = GPTFace.from_pretrained(micro.model_dir)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), ours.parameters(), strict=True))
    assert type(AutoProcessor.from_pretrained(micro.model_dir)) is GPTFaceProcessor
    config = json.loads((micro.model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(InputError, match="model format 99"):
        AutoModel.from_pretrained(tmp_path)


def test_damaged_and_incomplete_weights_are_one_clear_line(micro: Micro, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = micro.model_dir
    for name in ("config.json", "image_tokenizer.json", "image_tokenizer.safetensors", "text_tokenizer.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    weights = (source / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="cannot be loaded") as error:
        load_bundle(tmp_path)
    assert "\n" not in str(error.value)
    tensors = load_file(source / "model.safetensors")
    del tensors["blocks.0.qkv.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for load in (GPTFace.from_pretrained, GPTFaceForAttributes.from_pretrained):
        with pytest.raises(InputError, match=r"lacks 1 weights .*blocks\.0\.qkv\.weight"):
            load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "image_tokenizer.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(InputError, match=r"image_tokenizer\.safetensors cannot be read"):
        load_bundle(tmp_path)
    with pytest.raises(InputError, match="holds no GPTFace model"):
        load_bundle(tmp_path / "nowhere")


BLOCKED = (
    *("prefect", "duckdb", "img2dataset", "insightface", "open_clip", "cv2", "onnxruntime", "pyarrow", "PIL"),
    *("sklearn", "skimage", "accelerate", "scrapy", "torchvision", "timm", "tensorboard", "webdataset"),
)
SCRIPT = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))  # an import then fails, and transformers finds none of them
import torch
import gptface_core
from gptface_core import GPTFace, GPTFaceConfig, GPTFaceForAttributes, GPTFaceProcessor
from gptface_core.config import ImageTokenizerConfig
from gptface_core.image_tokenizer import ImageTokenizer
from gptface_core.text_tokenizer import TextTokenizer
import gptface_core.bundle, gptface_core.editing, gptface_core.evaluation, gptface_core.training, gptface_core.sampling

gptface_core.register()
tokenizer = ImageTokenizer(ImageTokenizerConfig(32, 4, (4, 4), 16, 1)).eval()
processor = GPTFaceProcessor(tokenizer, TextTokenizer(range(10)), 6)
pictures = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8).numpy()
ids = processor(pictures)["image_ids"]
config = GPTFaceConfig(text_vocab_size=11, fsq_levels=[4, 4], grid=4, max_text_tokens=6, layers=1, width=16, heads=2)
model = GPTFace(config)
loss = model.match(torch.full((2, 3), 7), ids).sum() + model.image_logits(model(image_ids=ids).image).sum()
loss.backward()
assert processor.decode_images(ids).shape == (2, 32, 32, 3)
model.save_pretrained(sys.argv[1])
again = GPTFace.from_pretrained(sys.argv[1])
assert torch.equal(again.table.weight, model.table.weight)
assert GPTFaceForAttributes.from_pretrained(sys.argv[1], labels=["a", "b"])(ids).logits.shape == (2, 2)
print("worked")
"""


@pytest.mark.e2e
def test_a_model_runs_with_torch_numpy_transformers_and_safetensors_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("worked"), done.stderr


def test_the_documentations_python_runs(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = (Path(__file__).resolve().parents[2] / "docs" / "model.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", documentation, re.S)
    assert len([line for line in first.splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    Image.fromarray(crop(size=256)).save("face.png")
    names: dict[str, object] = {"torch": torch}
    exec(first.replace("gptface-data/models/demo-r00001-s0", str(micro.model_dir)), names)
    exec(second, names)
    assert Path("smiling.png").is_file()
