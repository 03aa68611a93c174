from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from gptface_core import GPTFace, GPTFaceConfig
from gptface_core.config import Preset, load_preset
from gptface_core.image_tokenizer import ImageTokenizer
from gptface_core.presets import FOLDER, NAMES, write_presets
from gptface_core.text_tokenizer import TextTokenizer

DOCS = Path(__file__).resolve().parents[2] / "docs" / "model.md"
FULL, PRUNED = 49407, 1000  # rows of the text vocabulary; pruned ones depend on the corpus, so the table says 1,000


def model_of(preset: Preset, vocabulary: int) -> GPTFace:
    return GPTFace(GPTFaceConfig.of_preset(preset, vocabulary, fsq_levels=list(preset.tokenizer.levels)))


def parameters(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f}"


@pytest.mark.parametrize("name", NAMES)
def test_each_config_file_is_its_preset(name: str) -> None:
    assert load_preset(FOLDER / f"{name}.json") == load_preset(name), "run: python -m gptface_core.presets"


def test_config_files_are_written_as_they_lie_there(tmp_path: Path) -> None:
    write_presets(tmp_path)
    for name in NAMES:
        assert (tmp_path / f"{name}.json").read_text() == (FOLDER / f"{name}.json").read_text()
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)


def test_a_config_file_may_name_its_differences_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"preset": "tiny", "name": "mine", "model": {"layers": 5}}))
    assert load_preset(path).model.layers == 5 and load_preset(path).model.width == load_preset("tiny").model.width


def test_the_sizes_in_the_documentation_are_those_of_the_presets() -> None:
    """Counted on the meta device, where weights take no memory."""
    table = re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \+ ([\d.]+) \|$", DOCS.read_text(), re.M)
    rows = {name: (image, model) for name, image, model in table}
    assert set(rows) == set(NAMES)
    for name in NAMES:
        preset = load_preset(name)
        with torch.device("meta"):
            model = model_of(preset, FULL if preset.model.vocabulary == "full" else PRUNED)
            image = ImageTokenizer(preset.tokenizer)
        assert rows[name] == (parameters(image), parameters(model)), name


def test_the_full_vocabulary_gives_a_model_that_reads_any_word() -> None:
    text = TextTokenizer.full()
    assert text.size == FULL
    model = model_of(load_preset("demo"), text.size).eval()
    ids = torch.tensor([text.encode("a zebra wearing sunglasses")]) + 5
    with torch.no_grad():
        states = model(ids)
        assert states.text is not None and model.text_logits(states.text).shape == (1, ids.shape[1], FULL)
    assert text.decode((ids - 5)[0].tolist()) == "a zebra wearing sunglasses"
