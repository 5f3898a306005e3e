"""The routed experts of one rank timed alone, as transformers' modules run them.

Their grouped products take every expert's tokens in one call. (On GPUs ``generate()``
gathers the chosen experts' weights in its decode steps instead; a layer measured in a
pass of its own does not.)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler.device import Device, dtype_of
from profiler.operations import MAX_COPIES, copies_beyond_cache, measurement_of, time_graphed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.measurement import Measurement
    from profiler.points import ExpertsPoint
    from profiler.timing import Effort, Run

_IMPLEMENTATION = "grouped_mm"
"""What transformers picks for a model that names none."""


@torch.inference_mode()
def measure_experts(
    point: ExpertsPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times the experts, gate to down projection, at each of the point's numbers of tokens.

    Tokens are assigned beforehand; each run has an assignment of its own, whose experts
    follow those of the run before, so that none is met again before all others were.

    Raises:
        InvalidFieldError: transformers holds no experts in the precision.
    """
    if precision is Precision.INT8_WEIGHT_ONLY:
        raise InvalidFieldError(
            "precision", f"experts are not held in {precision}; use fp32 or bf16"
        )
    dtype = dtype_of(precision)
    modules = [
        _module(point, device, dtype)
        for _ in range(copies_beyond_cache(expert_values(point) * dtype.itemsize, device))
    ]
    draw = torch.Generator().manual_seed(0)
    for tokens in point.tokens:
        x = device.random(tokens, point.hidden_size, dtype=dtype)
        weights = torch.full((tokens, point.top_k), 1 / point.top_k, device=device.torch_device)
        runs: list[Run] = []
        for module in modules:
            order = torch.randperm(point.local_experts, generator=draw)
            met = 0
            while met < point.local_experts and len(runs) < MAX_COPIES:
                chosen = draw_assignment(point, tokens, draw)
                chosen, touched = _in_turn(chosen, order.roll(-met))
                met += max(1, touched)
                runs.append(partial(module, x, chosen.to(device.torch_device), weights))
        timing = time_graphed(device, runs, effort)
        shape: dict[str, float] = {
            "tokens": tokens,
            "hidden_size": point.hidden_size,
            "intermediate_size": point.intermediate_size,
            "local_experts": point.local_experts,
            "experts": point.experts,
            "top_k": point.top_k,
        }
        if point.imbalance != 1.0:
            shape["imbalance"] = point.imbalance
        yield measurement_of("experts", precision, shape, timing, point.group)


def expert_values(point: ExpertsPoint) -> int:
    """Returns the weights of all experts on the rank."""
    return 3 * point.local_experts * point.hidden_size * point.intermediate_size


def draw_assignment(point: ExpertsPoint, tokens: int, draw: torch.Generator) -> torch.Tensor:
    """Returns the experts that each token is sent to, (tokens, top_k).

    Tokens choose distinct experts, each of the rank's as likely as any other. Of the
    choices of all tokens the rank gets ``imbalance`` times its even share; those of other
    ranks have the index ``local_experts``.
    """
    local = point.local_experts
    picks = min(point.top_k, local)
    even = tokens * point.top_k * local / point.experts
    # What is no whole number comes right over many draws.
    drawn = int(even * point.imbalance + torch.rand(1, generator=draw).item())
    fewest = max(0, point.top_k - (point.experts - local))
    load = max(tokens * fewest, min(tokens * picks, drawn))
    share, left = divmod(load, tokens)
    loads = torch.full((tokens,), share)
    loads[torch.randperm(tokens, generator=draw)[:left]] += 1
    mine = torch.rand(tokens, local, generator=draw).topk(picks).indices
    elsewhere = torch.arange(picks)[None, :] >= loads[:, None]
    chosen = torch.full((tokens, point.top_k), local)
    chosen[:, :picks] = mine.masked_fill(elsewhere, local)
    return chosen


def _in_turn(chosen: torch.Tensor, order: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Returns the assignment to the first experts of an order, and how many it touches."""
    local = len(order)
    touched = torch.unique(chosen[chosen < local])
    names = torch.arange(local + 1)
    names[touched] = order[: len(touched)]
    return names[chosen], len(touched)


def _module(point: ExpertsPoint, device: Device, dtype: torch.dtype) -> nn.Module:
    configuration = AutoConfig.for_model(
        "qwen3_moe",
        hidden_size=point.hidden_size,
        moe_intermediate_size=point.intermediate_size,
        num_experts=point.local_experts,
        num_experts_per_tok=point.top_k,
        experts_implementation=_IMPLEMENTATION,
    )
    with torch.device("meta"):
        module: nn.Module = Qwen3MoeExperts(configuration)  # type: ignore[no-untyped-call]
    for name, parameter in list(module.named_parameters()):
        weights = device.random(*parameter.shape, dtype=dtype)
        setattr(module, name, nn.Parameter(weights, requires_grad=False))
    # Choices of other ranks' experts are then skipped.
    module._is_expert_parallel = point.local_experts < point.experts  # type: ignore[assignment]
    return module
