"""Attention with a learned bias on a CPU, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gptface_core.attention import attend


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_attention_with_a_learned_bias_is_pytorchs_bit_for_bit(width: int) -> None:
    """Models trained before are trained again to the same weights."""
    generator = torch.Generator().manual_seed(width)
    inputs = [torch.randn(3, 2, 30, width, generator=generator, requires_grad=True) for _ in range(3)]
    table = torch.randn(2, 30, 30, generator=generator, requires_grad=True)
    padding = torch.zeros(3, 1, 1, 30)
    padding[0, ..., 20:] = torch.finfo(torch.float32).min

    def run(attention: object) -> list[Tensor]:
        result = attention(*inputs, padding + table)  # type: ignore[operator]
        return [result, *torch.autograd.grad(result.square().sum(), [*inputs, table])]

    for mine, theirs in zip(run(attend), run(F.scaled_dot_product_attention), strict=True):
        assert torch.equal(mine, theirs)


def test_attention_in_bf16_is_near_fp32() -> None:
    q, k, v = torch.randn(3, 2, 2, 10, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    bias = torch.zeros(2, 2, 10, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        low = attend(q, k, v, bias)
    assert torch.allclose(low.float(), attend(q, k, v, bias), atol=0.05)
