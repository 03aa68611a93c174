from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from gptface_core import GPTFace, InputError
from gptface_core.bundle import load_bundle
from gptface_core.config import ImageTokenizerConfig, override
from gptface_core.image_tokenizer import ImageTokenizer, load_image_tokenizer
from gptface_core.training import train
from gptface_core.vq_tokenizer import VQTokenizer, open_vq

from .micro import micro_preset, write_corpus

CODES, DIM = 40, 4
NAMES = {
    "encoder.down.": "encoder.conv_blocks.",
    "decoder.up.": "decoder.conv_blocks.",
    ".block.": ".res.",
    ".mid.block_1.": ".mid.0.",
    ".mid.attn_1.": ".mid.1.",
    ".mid.block_2.": ".mid.2.",
}


def tiny_vq() -> Any:
    """JanusVQVAE with random weights: patches of 8 px. Its code vectors have different lengths, as trained ones do."""
    from transformers import JanusVQVAE, JanusVQVAEConfig

    torch.manual_seed(0)
    settings = {"embed_dim": DIM, "num_embeddings": CODES, "latent_channels": 8, "base_channels": 32}
    model = JanusVQVAE(JanusVQVAEConfig(**settings, channel_multiplier=[1, 1, 1, 2], num_res_blocks=1))
    with torch.no_grad():
        model.quantize.embedding.weight.mul_(torch.linspace(0.2, 3, CODES)[:, None])
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vq")
    tiny_vq().save_pretrained(path)
    return path


def settings(source: Path | str, image_px: int = 32, grid: int = 4) -> ImageTokenizerConfig:
    return ImageTokenizerConfig(image_px, grid, kind="vq", source=str(source))


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_codes_and_pictures_have_the_shapes_of_the_interface(folder: Path) -> None:
    tokenizer = open_vq(settings(folder))
    codes = tokenizer.encode(pictures())
    decoded = tokenizer.decode(codes)
    assert codes.shape == (2, 16) and codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < CODES
    assert decoded.shape == (2, 3, 32, 32) and decoded.min() >= 0 and decoded.max() <= 1
    assert tokenizer.codes == CODES and tokenizer.config.levels == ()
    about = tokenizer.describe()
    assert (about["kind"], about["codes"], about["image_px"], about["grid"]) == ("vq", CODES, 32, 4)


def test_a_code_is_the_nearest_by_angle_as_llamagen_trains_it(folder: Path) -> None:
    """Written out from LlamaGen's VectorQuantizer, one slot at a time, in float64."""
    tokenizer = open_vq(settings(folder))
    with torch.no_grad():
        latent = tokenizer.vq.quant_conv(tokenizer.vq.encoder(2 * pictures() - 1)).double()
        book = F.normalize(tokenizer.vq.quantize.embedding.weight.double(), dim=-1)
        slots = F.normalize(latent.permute(0, 2, 3, 1).reshape(-1, DIM), dim=-1)
        wanted = [int(((slot - book) ** 2).sum(1).argmin()) for slot in slots]
        theirs = tokenizer.vq.encode(2 * pictures() - 1).image_tokens.view(2, -1)
    codes = tokenizer.encode(pictures())
    assert codes.flatten().tolist() == wanted
    assert not torch.equal(codes, theirs), "transformers compares lengths too: with these weights the codes differ"


def test_decoding_is_that_of_transformers(folder: Path) -> None:
    tokenizer, codes = open_vq(settings(folder)), torch.arange(16)[None]
    theirs = tokenizer.vq
    theirs.quantize.quant_state_dims = [4, 4]
    with torch.no_grad():
        assert tokenizer.decode(codes).allclose(((theirs.decode(codes) + 1) / 2).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_under_llamagens_names_are_the_same_tokenizer(folder: Path, tmp_path: Path, suffix: str) -> None:
    weights = {"quantize.codebook_used": torch.zeros(8)}
    for name, tensor in tiny_vq().state_dict().items():
        for ours, published in NAMES.items():
            name = name.replace(ours, published)
        weights[name] = tensor.contiguous()
    path = tmp_path / f"vq_ds8{suffix}"
    if suffix == ".pt":
        torch.save({"model": weights}, path)
    else:
        save_file(weights, path)
    tokenizer = open_vq(settings(path))
    assert tokenizer.digest() == open_vq(settings(folder)).digest()


def test_of_a_whole_janus_model_the_part_that_draws_is_taken(folder: Path, tmp_path: Path) -> None:
    from transformers import JanusConfig, JanusForConditionalGeneration

    vq = tiny_vq()
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "llama", "vocab_size": 32, **small, "num_key_value_heads": 2}
    vision = {**small, "image_size": 16, "patch_size": 8, "projection_dim": 16, "mlp_ratio": 1.0}
    config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq.config.to_dict(), image_token_id=1)
    model = JanusForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(vq.state_dict())
    model.save_pretrained(tmp_path)
    assert open_vq(settings(tmp_path)).digest() == open_vq(settings(folder)).digest()


def test_a_saved_tokenizer_loads_without_its_source(folder: Path, tmp_path: Path) -> None:
    tokenizer = open_vq(settings(folder))
    tokenizer.save(tmp_path, metrics={"psnr_db": 1.0})
    again = load_image_tokenizer(tmp_path)
    assert isinstance(again, VQTokenizer) and again.digest() == tokenizer.digest()
    assert torch.equal(again.encode(pictures()), tokenizer.encode(pictures()))
    with pytest.raises(InputError, match="kind 'vq', not fsq"):
        ImageTokenizer.load(tmp_path)


def test_sources_that_cannot_be_had_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"no weights")
    (tmp_path / "noise.safetensors").write_bytes(b"no weights")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    GPTFace(GPTFace.config_class(width=16, layers=1, heads=2)).save_pretrained(tmp_path / "gptface")
    for name in ("nowhere", "noise.pt", "noise.safetensors", "other.pt", "gptface"):
        with pytest.raises(InputError, match=r"tokenizer\.source .*name a folder") as error:
            open_vq(settings(tmp_path / name))
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(InputError, match=r"patches of 8 px, image_px 32 with grid 2 of 16: choose grid 4"):
        open_vq(settings(folder, grid=2))


@pytest.mark.parametrize("values", [{"kind": "vq"}, {"kind": "dct"}])
def test_published_codes_need_a_source_and_kinds_are_known(values: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.kind"):
        replace(ImageTokenizerConfig(), **values)


def test_a_model_trains_and_loads_with_published_codes(folder: Path, tmp_path: Path) -> None:
    shards, _ = write_corpus(tmp_path)
    preset = override(micro_preset(), {"tokenizer": {"kind": "vq", "source": str(folder)}})
    summary = train(shards, tmp_path / "model", preset)
    bundle = load_bundle(tmp_path / "model")
    assert summary.tokenizer["codes"] == CODES and bundle.model.config.codes == CODES
    assert bundle.model.coordinate_map is None and "coordinates" not in bundle.model.state_dict()
    assert bundle.model.image_matrix().shape == (CODES, 16)
    logits = bundle.model.image_logits(
        bundle.model.encode(image_ids=bundle.model.first_code + torch.zeros(1, 16).long()).image
    )
    assert logits.shape == (1, 16, CODES)
