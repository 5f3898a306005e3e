"""Linears with weights in 8 bits or 4, by torch's own kernels.

- int4 weights, bf16 activations: a scale and a zero for each 128 weights of a row, as GPTQ and
  AWQ keep them. torchao (0.18) runs the very operators on the same layout: on GPUs by its packing
  format ``tile_packed_to_4d``, which pads rows to multiples of 1,024 and so can be no faster, on
  the CPU by a prototype. Its other formats on GPUs are kernels of a package more (mslk). An adapter
  would time nothing else, by names that changed from release to release, so there is none.
- int8 weights, bf16 activations: a scale for each row of the weights.
- int8 and fp8, weights and activations alike: a scale for each row of the weights, and one for
  each token, found as it comes.
- fp8 with one scale for all weights and one for all activations, known before they come, as
  NVIDIA's checkpoints of dense models have it (``PER_TENSOR``): timed alone, in no module.
- fp8-block, weights and activations alike, as DeepSeek trained V3 (arXiv 2412.19437, section
  3.3.2): a scale for each 128 x 128 weights, and one for each 128 values of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch import nn
from transformers.pytorch_utils import Conv1D

from model.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

_INT4_LEVELS = 15
_INT4_ZERO = 8
"""Level that torch's product takes for zero."""
_GROUP = 128
"""Weights of a row with one scale, in int4."""
_INNER_TILES = 8
"""Of torch's int4 layout on a GPU, which pads nothing: 8 x 16 divides a group."""
_INT8_LEVELS = 127
_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = 448.0
_FEWEST_ROWS = 32
"""That torch's int8 product takes on a GPU."""
_ALIGNED = 16
"""Sizes that torch's products of 8 bits take on a GPU are multiples of it; beyond them that of int8
weights reads past the end of a row on the CPU."""
_LEAST = 1e-12
_BLOCK = 128
"""Values of a row, and rows of the weights, with one scale in fp8-block."""
_SCALES_ALIGNED = 4
"""cuBLAS takes scales of so many rows, or so many blocks of a row, at a time."""


class PackedLinear(NamedTuple):
    """How a format is multiplied.

    Attributes:
        pack: weights, (n, k) floats, to what is kept of them.
        prepare: activations, (m, k) bf16, to those that are multiplied.
        multiply: of what ``prepare`` and ``pack`` gave, to (m, n) bf16.
    """

    pack: Callable[[torch.Tensor], tuple[Any, ...]]
    prepare: Callable[[torch.Tensor], tuple[Any, ...]]
    multiply: Callable[..., torch.Tensor]


def _padded(values: torch.Tensor, columns: int, rows: int = 1) -> torch.Tensor:
    """Returns a matrix, zeros behind it up to multiples of so many columns and rows.

    One that needs none is returned itself: torch's own would copy it, which takes time.
    """
    missing = -values.shape[1] % columns, -len(values) % rows
    return F.pad(values, (0, missing[0], 0, missing[1])) if any(missing) else values


def _scaled(values: torch.Tensor, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns fp32 values up to ``largest`` and the scale of each row, (rows, 1)."""
    floats = values.float()
    scales = floats.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST) / largest
    return floats / scales, scales


def _in_int8(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns int8 values and the fp32 scale of each row: symmetric, to nearest."""
    scaled, scales = _scaled(values, _INT8_LEVELS)
    return scaled.round().to(torch.int8), scales


def _in_fp8(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns E4M3 values and the fp32 scale of each row."""
    scaled, scales = _scaled(values, _FP8_LARGEST)
    return scaled.to(_FP8), scales


def _columns(
    weight: torch.Tensor, narrow: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns weights as columns, (k, n), their scales, (1, n), and how many columns count.

    Where ``narrow`` finds one scale for all, it is that one. Zeros are behind the columns:
    vocabularies and ranks' shares have any size.
    """
    packed, scales = narrow(_padded(weight, _ALIGNED, _ALIGNED))
    return packed.t(), scales.t(), len(weight)


def _pack_weight_only(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    packed, scales = _in_int8(_padded(weight, _ALIGNED))
    return packed, scales[:, 0].to(torch.bfloat16)


def _prepare_weight_only(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (_padded(x, _ALIGNED),)


def _multiply_weight_only(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    return torch._weight_int8pack_mm(x, weight, scales)


def _pack_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns packed weights, scales and zeros, (groups, n, 2), and how many columns count."""
    padded = _padded(weight, _GROUP, _ALIGNED).float()
    groups = padded.view(len(padded), -1, _GROUP)
    low, high = groups.aminmax(dim=2, keepdim=True)
    scales = ((high - low) / _INT4_LEVELS).clamp(min=_LEAST)
    levels = ((groups - low) / scales).round().to(torch.int32).flatten(1)
    scaling = torch.cat([scales, low + _INT4_ZERO * scales], dim=2).transpose(0, 1)
    if weight.is_cuda:
        pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8)
        packed = torch._convert_weight_to_int4pack(pairs, _INNER_TILES)
    else:
        packed = torch._convert_weight_to_int4pack_for_cpu(levels, 1)
    return packed, scaling.to(torch.bfloat16).contiguous(), len(weight)


def _prepare_int4(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (_padded(x, _GROUP).contiguous(),)  # the last tokens of sequences are not


def _multiply_int4(
    x: torch.Tensor, weight: torch.Tensor, scaling: torch.Tensor, columns: int
) -> torch.Tensor:
    multiply = torch._weight_int4pack_mm if x.is_cuda else torch._weight_int4pack_mm_for_cpu
    return multiply(x, weight, _GROUP, scaling)[:, :columns]


def _rows(
    x: torch.Tensor, narrow: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns activations, zeros behind them as behind the weights, and their scales, (m, 1).

    Where ``narrow`` finds one scale for all, it is that one.
    """
    return narrow(_padded(x, _ALIGNED))


def _prepare_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    packed, scales = _rows(x, _in_int8)
    if x.is_cuda and len(x) < _FEWEST_ROWS:
        packed = F.pad(packed, (0, 0, 0, _FEWEST_ROWS - len(x)))
    return packed, scales


def _pack_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    return _columns(weight, _in_int8)


def _multiply_int8(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    columns: int,
) -> torch.Tensor:
    product = torch._int_mm(x, weight)[: len(x_scales)]
    return (product * x_scales * scales).to(torch.bfloat16)[:, :columns]


def _pack_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    return _columns(weight, _in_fp8)


def _prepare_fp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _rows(x, _in_fp8)


def _multiply_fp8(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    columns: int,
) -> torch.Tensor:
    # Sums stay in the multipliers' accumulators, narrower than 32 bits on Hopper, as they do in
    # TensorRT-LLM's call of cuBLASLt and in vLLM's kernels: to carry them over takes time.
    product = torch._scaled_mm(
        x, weight, scale_a=x_scales, scale_b=scales, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return product[:, :columns]


def _in_one_fp8(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns E4M3 values and the one fp32 scale of them all, of no dimensions."""
    floats = values.float()
    scale = floats.abs().amax().clamp(min=_LEAST) / _FP8_LARGEST
    return (floats / scale).to(_FP8), scale


def _pack_per_tensor(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    return _columns(weight, _in_one_fp8)


def _prepare_per_tensor(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _rows(x, _in_one_fp8)


def _in_fp8_blocks(values: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns E4M3 values and the fp32 scale of each block.

    Args:
        values: (m, k), both whole blocks.
        rows: of a block, which is 128 values wide.

    Returns:
        (m, k) and (m / rows, k / 128).
    """
    height, width = values.shape
    blocks = values.float().view(height // rows, rows, width // _BLOCK, _BLOCK)
    scales = blocks.abs().amax(dim=(1, 3), keepdim=True).clamp(min=_LEAST) / _FP8_LARGEST
    return (blocks / scales).view(height, width).to(_FP8), scales[:, 0, :, 0]


def _pack_fp8_block(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns weights as columns, (k, n), their scales, (k / 128, n / 128), and how many count.

    Blocks are whole: columns and values of zeros are behind them.
    """
    packed, scales = _in_fp8_blocks(_padded(weight, _BLOCK, _BLOCK), _BLOCK)
    return packed.t(), _padded(scales, _SCALES_ALIGNED).t(), len(weight)


def _prepare_fp8_block(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    packed, scales = _in_fp8_blocks(_padded(x, _BLOCK, _SCALES_ALIGNED), 1)
    return packed, scales.t().contiguous().t(), len(x)


def _multiply_fp8_block(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    rows: int,
    weight: torch.Tensor,
    scales: torch.Tensor,
    columns: int,
) -> torch.Tensor:
    product = F.scaled_mm(
        x,
        weight,
        x_scales,
        F.ScalingType.BlockWise1x128,
        scales,
        F.ScalingType.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return product[:rows, :columns]


PACKED = {
    Precision.INT8_WEIGHT_ONLY: PackedLinear(
        _pack_weight_only, _prepare_weight_only, _multiply_weight_only
    ),
    Precision.INT4: PackedLinear(_pack_int4, _prepare_int4, _multiply_int4),
    Precision.INT8: PackedLinear(_pack_int8, _prepare_int8, _multiply_int8),
    Precision.FP8: PackedLinear(_pack_fp8, _prepare_fp8, _multiply_fp8),
    Precision.FP8_BLOCK: PackedLinear(_pack_fp8_block, _prepare_fp8_block, _multiply_fp8_block),
}
"""Formats that linears are packed in."""

PER_TENSOR = PackedLinear(_pack_per_tensor, _prepare_per_tensor, _multiply_fp8)
"""fp8 with one scale for the weights and one for the activations."""


class PackedModule(nn.Module):
    """Takes the place of a linear in a bf16 model, GPT-2's transposed ones included."""

    def __init__(self, linear: nn.Linear | Conv1D, precision: Precision) -> None:
        super().__init__()
        self._format = PACKED[precision]
        weight = linear.weight.detach()
        columns = weight.t().contiguous() if isinstance(linear, Conv1D) else weight
        self._kept = self._format.pack(columns)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the projection of (..., k) as (..., n)."""
        rows = self._format.prepare(x.reshape(-1, x.shape[-1]))
        y = self._format.multiply(*rows, *self._kept).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def pack_linears(module: nn.Module, precision: Precision) -> None:
    """Replaces every linear within; a head gives up the weights it shared."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear | Conv1D):
            setattr(module, name, PackedModule(child, precision))
        else:
            pack_linears(child, precision)
