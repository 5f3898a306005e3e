"""Linears with int8 weights and bf16 activations, by torch's own kernel for the CPU."""

from __future__ import annotations

import torch
from torch import nn

_LEVELS = 127


def int8_linear(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Returns ``x @ (weight * scales[:, None]).T``.

    Args:
        x: (m, k), bf16.
        weight: (n, k), int8.
        scales: (n,), bf16.
    """
    return torch._weight_int8pack_mm(x, weight, scales)


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns int8 weights and a bf16 scale a row: round to nearest, symmetric.

    Args:
        weight: (n, k), floats.
    """
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-12) / _LEVELS
    return (weight.float() / scales[:, None]).round().to(torch.int8), scales.to(torch.bfloat16)


class Int8Linear(nn.Module):
    """Takes the place of an ``nn.Linear`` in a bf16 model."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scales = quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the projection of (..., k) as (..., n)."""
        weight, scales = self.get_buffer("weight"), self.get_buffer("scales")
        y = int8_linear(x.reshape(-1, x.shape[-1]), weight, scales)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def quantize_linears(module: nn.Module) -> None:
    """Replaces every ``nn.Linear`` within; a head gives up the weights it shared."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantize_linears(child)
