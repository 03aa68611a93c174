from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptface_core import GPTFace
from gptface_core.config import ImageTokenizerConfig, MaskingConfig
from gptface_core.image_tokenizer import FSQ, ImageTokenizer
from gptface_core.masking import draw_masks
from gptface_core.model import MASK_I, PAD, SPECIALS, GPTFaceConfig
from gptface_core.optimise import adamw
from gptface_core.pretrain import joint_step, make_pairs, milm_losses
from gptface_core.sampling import Guidance, SamplingConfig, fill_image, fill_text
from gptface_core.tokens import TokenSet

from .micro import micro_preset


def small_model(**values: Any) -> GPTFace:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "text_vocab_size": 11,
        "fsq_levels": [4, 4],
        "grid": 4,
        "max_text_tokens": 6,
        "layers": 2,
        "width": 32,
        "heads": 2,
        "projection_dim": 8,
    }
    return GPTFace(GPTFaceConfig(**{**shape, **values}))


def pair(model: GPTFace, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(SPECIALS, model.first_code, (rows, 6), generator=generator)
    text[0, 4:] = PAD
    return text, torch.randint(16, (rows, 16), generator=generator) + model.first_code


def tokens(rows: int) -> TokenSet:
    rng = np.random.default_rng(0)
    text = rng.integers(SPECIALS, SPECIALS + 11, (rows, 6))
    codes = rng.integers(0, 16, (rows, 16))
    names = [f"row{i}" for i in range(rows)]
    return TokenSet(names, names, text, np.full(rows, 6), codes, np.arange(rows))


def test_shapes_and_logits_of_one_modality() -> None:
    model = small_model()
    text, image = pair(model)
    states = model(text, image)
    assert states.cls.shape == (3, 32) and states.text.shape == (3, 6, 32) and states.image.shape == (3, 16, 32)
    assert model.text_logits(states.text).shape == (3, 6, 11)
    assert model.image_logits(states.image).shape == (3, 16, 16)
    assert model.match(text, image).shape == (3, 2)
    assert model.text_features(text).norm(dim=1).allclose(torch.ones(3))


def test_padding_changes_nothing() -> None:
    model = small_model().eval()
    text, image = pair(model)
    with torch.no_grad():
        padded = model.encode(text[:1], image[:1])
        cut = model.encode(text[:1, :4], image[:1])
    assert padded.cls.allclose(cut.cls, atol=1e-5)
    assert padded.image is not None and cut.image is not None and padded.image.allclose(cut.image, atol=1e-5)


def test_soft_embeddings_of_the_ids_give_the_same_states() -> None:
    model = small_model().eval()
    text, image = pair(model)
    with torch.no_grad():
        by_id = model.encode(text, image)
        soft = model.encode(text, text_embeddings=model.embed_text(text), image_embeddings=model.embed_image(image))
    assert torch.equal(by_id.cls, soft.cls)


def test_too_long_text_is_refused() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="at most 6"):
        model.encode(torch.full((1, 7), SPECIALS))


def test_gradients_reach_every_parameter() -> None:
    model, data = small_model(), tokens(8)
    rows = np.arange(8)
    losses = joint_step(model, data, rows, rows, micro_preset(), np.random.default_rng(0))
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_codes_without_coordinates_have_embeddings_of_their_own() -> None:
    model, data = small_model(fsq_levels=None, image_codes=16), tokens(8)
    assert model.config.levels == () and model.config.codes == 16
    assert torch.equal(model.image_matrix(), model.table.weight[model.first_code :])
    rows = np.arange(8)
    losses = joint_step(model, data, rows, rows, micro_preset(), np.random.default_rng(0))
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_weights_start_as_the_law_of_initialisation_says() -> None:
    """Normal with 0.5 / sqrt(width), in every layer alike, the rest zeros and ones."""
    model = small_model(width=64, layers=4, text_vocab_size=500)
    std = 0.5 / 64**0.5
    drawn = {"table.weight": std, "match_hidden.weight": std, "project_image.weight": std, "coordinate_map.weight": 0.1}
    for block in range(4):
        drawn |= {f"blocks.{block}.{name}.weight": std for name in ("qkv", "out", "up", "down")}
    state = model.state_dict()
    for name, wanted in drawn.items():
        weights, count = state[name], state[name].numel()
        assert weights.std().item() == pytest.approx(wanted, rel=5 / (2 * count) ** 0.5), name
        assert abs(weights.mean().item()) < 5 * wanted / count**0.5, name
    for name, weights in state.items():
        if "norm" in name and name.endswith("weight"):
            assert (weights == 1).all(), name
        elif name.endswith("bias") and name != "offset_bias":
            assert (weights == 0).all(), name
    nearest, farthest = state["offset_bias"][:, 3, 3], state["offset_bias"][:, 0, 0]
    assert (nearest == 0).all() and farthest[0] == 0 and farthest[-1] == pytest.approx(-1.5 * 18**0.5)
    with torch.no_grad():  # a model that knows nothing is about as unsure as one can be
        text, image = pair(small_model())
        spread = small_model().image_logits(small_model().encode(text, image).image).softmax(-1)
    assert -(spread * spread.log()).sum(-1).mean() > 0.9 * np.log(16)


def test_one_batch_is_overfitted() -> None:
    model, data = small_model(), tokens(4)
    rows = np.arange(4)
    masks = draw_masks(data.lengths, 6, 4, MaskingConfig(image_share=0.0, text_share=0.0), np.random.default_rng(0))
    pairs = make_pairs(model, data, rows, rows, masks, 0)
    optimizer = adamw(model, 5e-3, (0.9, 0.98), 0.0)
    for _ in range(150):
        states = model.encode(pairs.text, pairs.image)
        assert states.text is not None and states.image is not None
        loss = sum(milm_losses(model, states.text, states.image, pairs), start=torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    model = small_model().eval()
    model.save_pretrained(tmp_path)
    again = GPTFace.from_pretrained(tmp_path)
    text, image = pair(model)
    with torch.no_grad():
        assert torch.equal(model.match(text, image), again.match(text, image))
    assert (tmp_path / "model.safetensors").is_file()


def test_fsq_codes_and_coordinates_are_inverse() -> None:
    fsq = FSQ((8, 5, 4))
    codes = torch.arange(160)
    coordinates = fsq.to_coordinates(codes)
    assert torch.equal(fsq.to_codes(coordinates), codes)
    reached = fsq.to_codes(fsq.quantise(torch.randn(20000, 3, generator=torch.Generator().manual_seed(0)) * 2))
    assert reached.min() == 0 and reached.max() == 159 and len(reached.unique()) == 160


def test_image_tokenizer_shapes_and_round_trip(tmp_path: Path) -> None:
    tokenizer = ImageTokenizer(ImageTokenizerConfig(32, 4, (4, 4), 16, 1)).eval()
    codes = tokenizer.encode(torch.rand(2, 3, 32, 32))
    assert codes.shape == (2, 16) and tokenizer.decode(codes).shape == (2, 3, 32, 32)
    tokenizer.save(tmp_path)
    assert ImageTokenizer.load(tmp_path).digest() == tokenizer.digest()


def _fill(model: GPTFace, guidance: Guidance | None, times: int = 1) -> torch.Tensor:
    """The pair's three images with six slots filled, each so many times."""
    text, image = (each.repeat(times, 1) for each in pair(model))
    unknown = torch.zeros(image.shape, dtype=torch.bool)
    unknown[:, 5:11] = True
    config = SamplingConfig(steps=4, guidance=guidance)
    return fill_image(model, text, image, unknown, config, torch.Generator().manual_seed(7))


def test_guidance_with_alpha_zero_is_bit_identical_to_none_and_touches_no_parameter() -> None:
    model = small_model().eval()
    assert torch.equal(_fill(model, None), _fill(model, Guidance(alpha=0.0)))
    assert all(p.grad is None for p in model.parameters())


def test_guidance_raises_the_belief_in_the_pair() -> None:
    model = small_model().eval()
    text, _ = pair(model)
    beliefs = []
    for alpha in (0.0, 2.0):
        filled = _fill(model, Guidance(alpha=alpha, gamma=1.0), times=12)
        beliefs.append(model.match(text.repeat(12, 1), filled).softmax(-1)[:, 1].mean().item())
    assert beliefs[1] > beliefs[0]


def test_filling_leaves_known_slots_and_fills_all_others() -> None:
    model = small_model().eval()
    text, image = pair(model)
    filled = _fill(model, Guidance())
    assert torch.equal(filled[:, :5], image[:, :5]) and torch.equal(filled[:, 11:], image[:, 11:])
    assert not (filled == MASK_I).any()
    unknown = torch.zeros_like(text, dtype=torch.bool)
    unknown[:, 1:3] = True
    words = fill_text(model, text, image, unknown, SamplingConfig(steps=2), torch.Generator().manual_seed(0))
    assert ((words[:, 1:3] >= SPECIALS) & (words[:, 1:3] < model.first_code)).all()
    assert torch.equal(words[:, 0], text[:, 0])


@pytest.mark.e2e
def test_import_needs_only_the_four_packages() -> None:
    blocked = (
        "prefect",
        "duckdb",
        "img2dataset",
        "insightface",
        "pyarrow",
        "open_clip",
        "sklearn",
        "cv2",
        "onnxruntime",
    )
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import gptface_core.faces\n"
        "assert 'transformers' not in sys.modules and 'torch' not in sys.modules\n"
        "import gptface_core.training, gptface_core.editing, gptface_core.evaluation\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
