"""The laws of parallel decoding and of guidance, on random weights and on a model made to believe in one code."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gptface_core import GPTFace, InputError
from gptface_core.canvas import Canvas
from gptface_core.guidance import AnyGuidance, ClassifierFree, Guidance, OneGradient, make_guidance, slot_logits
from gptface_core.model import MASK_I, MASK_T, PAD, SPECIALS, GPTFaceConfig
from gptface_core.sampling import SamplingConfig, fill, fill_image, fill_text, still_hidden

STRONG = Guidance(alpha=1.0, gamma=1.0, iterations=2)


@pytest.fixture(scope="module")
def model() -> GPTFace:
    torch.manual_seed(3)
    shape = {"text_vocab_size": 11, "fsq_levels": [4, 4], "grid": 4, "max_text_tokens": 6, "layers": 2}
    return GPTFace(GPTFaceConfig(**shape, width=32, heads=2, projection_dim=8)).eval()


def canvas(model: GPTFace, fills_image: bool, rows: int = 3) -> Canvas:
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(SPECIALS, model.first_code, (rows, 6), generator=generator)
    text[0, 4:] = PAD
    image = torch.randint(16, (rows, 16), generator=generator) + model.first_code
    return Canvas(model, text, image, fills_image)


def unknown_of(pair: Canvas) -> torch.Tensor:
    """Slots 1 to 3 of the text, 5 to 10 of the image."""
    unknown = torch.zeros(pair.start.shape, dtype=torch.bool)
    unknown[:, (slice(5, 11) if pair.fills_image else slice(1, 4))] = True
    return unknown


def drawn(pair: Canvas, guidance: AnyGuidance | None, seed: int = 0, **changes: object) -> torch.Tensor:
    config = replace(SamplingConfig(steps=4, guidance=guidance), **changes)
    return fill(pair, unknown_of(pair), config, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fills_image", [True, False])
@pytest.mark.parametrize("nothing", [Guidance(alpha=0.0), OneGradient(eta=0.0), ClassifierFree(scale=1.0)])
def test_no_strength_is_no_guidance_bit_for_bit(model: GPTFace, fills_image: bool, nothing: AnyGuidance) -> None:
    pair = canvas(model, fills_image)
    logits = [slot_logits(pair, pair.start, unknown_of(pair), g, 0.8) for g in (None, nothing)]
    assert torch.equal(*logits)
    assert torch.equal(drawn(pair, None, temperature=0.8), drawn(pair, nothing, temperature=0.8))


@pytest.mark.parametrize("fills_image", [True, False])
@pytest.mark.parametrize("guidance", [STRONG, OneGradient(3.0), ClassifierFree(3.0), None])
def test_only_unknown_slots_change_and_no_gradient_stays(
    model: GPTFace, fills_image: bool, guidance: AnyGuidance | None
) -> None:
    pair = canvas(model, fills_image)
    filled, unknown = drawn(pair, guidance), unknown_of(pair)
    assert torch.equal(filled[~unknown], pair.start[~unknown])
    low = model.first_code if fills_image else SPECIALS + 1  # the first text id is <unk>, which no caption may hold
    high = model.first_code + 16 if fills_image else model.first_code
    assert ((filled[unknown] >= low) & (filled[unknown] < high)).all()
    assert all(p.grad is None for p in model.parameters())


def test_text_filling_never_gives_the_unknown_word_even_where_it_is_the_likeliest(model: GPTFace) -> None:
    pair = canvas(model, fills_image=False)
    before = model.text_bias.data.clone()
    model.text_bias.data[0] = 50.0
    try:
        for temperature in (0.0, 1.0):
            filled = drawn(pair, None, temperature=temperature)[unknown_of(pair)]
            assert not (filled == SPECIALS).any() and not (filled == MASK_T).any()
    finally:
        model.text_bias.data = before


def _believer() -> GPTFace:
    """A model whose matching head likes code 3: s_1 is about the share of the picture's slots that hold it."""
    torch.manual_seed(0)
    shape = {"text_vocab_size": 5, "fsq_levels": [4, 4], "grid": 4, "max_text_tokens": 4, "layers": 1}
    model = GPTFace(GPTFaceConfig(**shape, width=32, heads=2, projection_dim=8)).eval()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        share = torch.rand(32, 1, generator=generator)
        codes = torch.randint(16, (32, 16), generator=generator)
        codes = torch.where(torch.rand(32, 16, generator=generator) < share, torch.full_like(codes, 3), codes)
        image, text = codes + model.first_code, torch.full((32, 2), SPECIALS + 1)
        matched = (torch.rand(32, generator=generator) < (codes == 3).float().mean(1)).long()
        loss = torch.nn.functional.cross_entropy(model.match(text, image), matched)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()
    return model


def test_the_mean_belief_rises_with_alpha_and_so_does_what_it_believes_in() -> None:
    model = _believer()
    image = torch.full((48, 16), MASK_I)
    pair = Canvas(model, torch.full((48, 2), SPECIALS + 1), image, fills_image=True)
    beliefs, shares = [], []
    for alpha in (0.0, 1.0, 3.0, 10.0):
        config = SamplingConfig(steps=4, guidance=Guidance(alpha=alpha, gamma=1.0), temperature=1.0)
        ids = fill(pair, torch.ones_like(image, dtype=torch.bool), config, torch.Generator().manual_seed(5))
        with torch.no_grad():
            beliefs.append(pair.log_match(ids).exp().mean().item())
        shares.append((ids == model.first_code + 3).float().mean().item())
    assert beliefs == sorted(beliefs) and beliefs[-1] > beliefs[0] + 0.1
    assert shares[-1] > shares[0] + 0.1


def test_the_one_gradient_variant_follows_its_formula(model: GPTFace) -> None:
    """l' = l - eta <dJ/de, E_v>: the derivative of -log s_1 along E_v, here by finite differences in float64."""
    double = GPTFace(model.config).double().eval()
    double.load_state_dict(model.state_dict())
    pair = canvas(double, fills_image=True, rows=1)
    unknown = torch.zeros(1, 16, dtype=torch.bool)
    unknown[0, 7] = True
    plain = slot_logits(pair, pair.start, unknown, None, 1.0)
    moved = slot_logits(pair, pair.start, unknown, OneGradient(2.0), 1.0) - plain
    with torch.no_grad():
        expected = plain.softmax(-1) @ pair.matrix()
        for code in (0, 9, 15):
            step = 1e-5 * pair.matrix()[code]
            beliefs = []
            for sign in (1, -1):
                embeddings = double.embed_image(pair.start).clone()
                embeddings[0, 7] = expected[0] + sign * step
                beliefs.append(-pair.log_match(pair.start, embeddings).item())
            slope = (beliefs[0] - beliefs[1]) / 2e-5
            assert moved[0, code].item() == pytest.approx(-2.0 * slope, rel=1e-3, abs=1e-7)


def test_classifier_free_guidance_is_an_extrapolation_from_the_hidden_caption(model: GPTFace) -> None:
    pair = canvas(model, fills_image=True)
    unknown = unknown_of(pair)
    words = pair.text_ids.masked_fill(pair.text_ids != PAD, MASK_T)
    with torch.no_grad():
        with_text, without = (
            slot_logits(Canvas(model, text, pair.image_ids, True), pair.start, unknown, None, 1.0)
            for text in (pair.text_ids, words)
        )
        guided = slot_logits(pair, pair.start, unknown, ClassifierFree(2.5), 1.0)
    assert guided.allclose(without + 2.5 * (with_text - without), atol=1e-5)


def test_classifier_free_guidance_is_refused_where_training_never_hid_the_caption(model: GPTFace) -> None:
    pair = canvas(model, fills_image=True)
    pair.model.config.resolved = {"masking": {"whole_caption": 0.0}}
    try:
        with pytest.raises(InputError, match="whole captions hidden"):
            drawn(pair, ClassifierFree())
    finally:
        pair.model.config.resolved = None


def test_best_of_takes_the_filling_that_matches_best(model: GPTFace) -> None:
    pair = canvas(model, fills_image=True)
    one, best = drawn(pair, None, seed=4), drawn(pair, None, seed=4, best_of=6)
    many = pair.repeated(6)
    tried = fill(many, unknown_of(many), SamplingConfig(steps=4), torch.Generator().manual_seed(4))
    with torch.no_grad():
        scores = many.log_match(tried).view(3, 6)
        assert torch.equal(pair.log_match(best), scores.max(1).values)
    assert best.shape == one.shape


def test_the_share_that_stays_hidden_is_of_what_was_unknown_at_the_start() -> None:
    counts, steps = torch.tensor([10, 256, 3, 0]), 8
    left = still_hidden(counts, steps)
    for t in range(1, steps):
        assert left[t - 1].tolist() == [math.floor(n * math.cos(math.pi * t / 16) + 1e-9) for n in (10, 256, 3, 0)]
    assert left[-1].tolist() == [0, 0, 0, 0]


def test_slots_are_revealed_by_that_law_and_revealed_ones_stay(model: GPTFace, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, seen = canvas(model, fills_image=True), []
    encode = GPTFace.encode

    def spy(self: GPTFace, text_ids: object = None, image_ids: object = None, **other: object) -> object:
        seen.append(image_ids)
        return encode(self, text_ids, image_ids, **other)  # type: ignore[arg-type]

    monkeypatch.setattr(GPTFace, "encode", spy)
    unknown = torch.zeros(3, 16, dtype=torch.bool)
    unknown[:, :10] = True
    filled = fill(pair, unknown, SamplingConfig(steps=5), torch.Generator().manual_seed(0))
    hidden = [(ids == MASK_I).sum(1).tolist() for ids in seen]
    assert hidden == [[n] * 3 for n in (10, 9, 8, 5, 3)]
    for ids in seen:
        known = ids != MASK_I
        assert torch.equal(ids[known], filled[known])


def test_a_pass_that_would_reveal_nothing_is_left_out(model: GPTFace, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, passes = canvas(model, fills_image=True), []
    encode = GPTFace.encode
    monkeypatch.setattr(GPTFace, "encode", lambda *a, **k: (passes.append(1), encode(*a, **k))[1])
    unknown = torch.zeros(3, 16, dtype=torch.bool)
    unknown[:, :2] = True
    fill(pair, unknown, SamplingConfig(steps=12), torch.Generator().manual_seed(0))
    assert len(passes) == 2
    fill(pair, torch.zeros_like(unknown), SamplingConfig(steps=12), torch.Generator().manual_seed(0))
    assert len(passes) == 2


def test_temperature_zero_without_noise_does_not_depend_on_the_seed(model: GPTFace) -> None:
    pair = canvas(model, fills_image=True)
    first, second = (drawn(pair, None, seed=seed, temperature=0.0, noise=0.0) for seed in (1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(drawn(pair, None, seed=1), drawn(pair, None, seed=2))


def test_top_k_limits_what_is_drawn(model: GPTFace) -> None:
    pair = canvas(model, fills_image=True)
    unknown = torch.zeros(3, 16, dtype=torch.bool)
    unknown[:, 4] = True
    with torch.no_grad():
        hidden = pair.start.masked_fill(unknown, MASK_I)
        likeliest = slot_logits(pair, hidden, unknown, None, 1.0).topk(2).indices + model.first_code
    for seed in range(20):
        config = SamplingConfig(steps=1, top_k=2)
        filled = fill_image(model, pair.text_ids, pair.image_ids, unknown, config, torch.Generator().manual_seed(seed))
        assert all(filled[row, 4] in likeliest[row] for row in range(3))


def test_rows_with_different_numbers_of_slots_fill_together(model: GPTFace) -> None:
    pair = canvas(model, fills_image=False)
    unknown = torch.zeros(3, 6, dtype=torch.bool)
    unknown[0, :1], unknown[1, :5] = True, True
    filled = fill_text(
        model, pair.text_ids, pair.image_ids, unknown, SamplingConfig(), torch.Generator().manual_seed(0)
    )
    assert not (filled == MASK_T).any()
    assert torch.equal(filled[~unknown], pair.text_ids[~unknown])


def test_guidance_by_name() -> None:
    assert make_guidance("matching") == Guidance()
    assert make_guidance("matching", 0.5) == Guidance(alpha=0.5)
    assert make_guidance("one-gradient", 2.0) == OneGradient(2.0)
    assert make_guidance("classifier-free", 3.0) == ClassifierFree(3.0)
    assert make_guidance("matching", 0.0) is None and make_guidance("none") is None
    with pytest.raises(InputError, match="no guidance method 'magic': choose matching"):
        make_guidance("magic")
    with pytest.raises(InputError, match="guidance -1"):
        make_guidance("matching", -1)


@pytest.mark.parametrize("fills_image", [True, False])
@pytest.mark.parametrize("changes", [{}, {"guidance": STRONG}, {"best_of": 3}], ids=["plain", "guided", "best_of"])
def test_what_is_drawn_for_a_pair_does_not_depend_on_its_company(
    model: GPTFace, fills_image: bool, changes: dict[str, object]
) -> None:
    pair = canvas(model, fills_image)
    unknown = unknown_of(pair)
    unknown[1] = False
    unknown[1, :2] = True  # fewer slots than steps: some steps reveal nothing here, but something in other rows
    config = replace(SamplingConfig(steps=4), **changes)
    together = fill(pair, unknown, config, [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    for row, seed in enumerate((5, 6, 7)):
        alone = Canvas(model, pair.text_ids[row : row + 1], pair.image_ids[row : row + 1], fills_image)
        found = fill(alone, unknown[row : row + 1], config, torch.Generator().manual_seed(seed))
        assert torch.equal(found[0], together[row])
    assert torch.equal(together[~unknown], pair.start[~unknown])
