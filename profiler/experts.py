"""The routed experts of one rank timed alone, as transformers' modules run them.

Their grouped products take every expert's tokens in one call. (On GPUs ``generate()``
gathers the chosen experts' weights in its decode steps instead; a layer measured in a
pass of its own does not.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from transformers import AutoConfig

from model.blocks import Experts, FeedForward
from model.operations import experts
from profiler.device import Device, dtype_of
from profiler.grouped import check_grouped
from profiler.operations import MAX_COPIES, copies_beyond_cache, measurement_of, time_graphed
from profiler.points import MATRIX_EFFORT, halved_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.measurement import Measurement
    from model.operations import Operation
    from model.precision import Precision
    from profiler.points import Measured
    from profiler.timing import Effort, Run

_IMPLEMENTATION = "grouped_mm"
"""What transformers picks for a model that names none."""


@dataclass(frozen=True, slots=True)
class ExpertsPoint:
    """The routed experts of one rank at several numbers of tokens: the weights are made once.

    Attributes:
        hidden_size: width of the residual stream.
        intermediate_size: inner width of one expert on the rank.
        local_experts: on the rank, of ``experts`` in all.
        experts: that tokens choose from.
        top_k: experts that a token is sent to.
        tokens: that are routed, those of all ranks that share the experts.
        imbalance: load of this rank over the mean, at most ``experts / local_experts``.
    """

    hidden_size: int
    intermediate_size: int
    local_experts: int
    experts: int
    top_k: int
    tokens: tuple[int, ...]
    imbalance: float = 1.0

    @property
    def group(self) -> str:
        """Points of one set of experts are held out together."""
        return (
            f"experts-{self.local_experts}of{self.experts}x{self.top_k}"
            f"-{self.hidden_size}x{self.intermediate_size}"
        )

    def operations(self, precision: Precision) -> list[Operation]:
        """Returns what a cost model prices it by."""
        block = Experts(
            expert=FeedForward(intermediate_size=self.intermediate_size),
            count=self.experts,
            top_k=self.top_k,
            local=self.local_experts,
        )
        return [
            experts(tokens, self.hidden_size, block, precision, imbalance=self.imbalance)
            for tokens in self.tokens
        ]

    def needed_bytes(self, precision: Precision, device: Device) -> float:
        """Returns an upper bound of the bytes that measuring it allocates."""
        # In flight: each choice's input, gate and up, product, output, and it in order.
        row = 3 * self.hidden_size + 3 * self.intermediate_size
        rows = max(self.tokens) * (self.top_k * row + self.hidden_size + 4 * self.top_k)
        item = dtype_of(precision).itemsize
        return item * (2 * expert_values(self) + rows) + device.cold_bytes

    def is_measured(self, precision: Precision, measured: Measured) -> bool:
        """Returns whether nothing of it is left to measure."""
        return all(self._holds(t, precision, measured) for t in self.tokens)

    @property
    def sizes(self) -> str:
        """What is made smaller, for a person."""
        return f"up to {max(self.tokens):,} tokens"

    def halved(self, precision: Precision, measured: Measured) -> Self | None:
        """Returns what is left to measure up to half as many tokens; None where nothing is."""
        left = [t for t in halved_rows(self.tokens) if not self._holds(t, precision, measured)]
        return replace(self, tokens=tuple(left)) if left else None

    def measure(self, precision: Precision, device: Device) -> Iterator[Measurement]:
        """Yields the measurements of a campaign."""
        return measure_experts(self, precision, device, MATRIX_EFFORT)

    def shape(self, tokens: int) -> dict[str, float]:
        """Returns the sizes at so many tokens as a measurement has them."""
        sizes: dict[str, float] = {
            "tokens": tokens,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "local_experts": self.local_experts,
            "experts": self.experts,
            "top_k": self.top_k,
        }
        if self.imbalance != 1.0:
            sizes["imbalance"] = self.imbalance
        return sizes

    def _holds(self, tokens: int, precision: Precision, measured: Measured) -> bool:
        return measured.holds("experts", precision, self.shape(tokens))


@torch.inference_mode()
def measure_experts(
    point: ExpertsPoint, precision: Precision, device: Device, effort: Effort
) -> Iterator[Measurement]:
    """Times the experts, gate to down projection, at each of the point's numbers of tokens.

    Tokens are assigned beforehand; each run has an assignment of its own, whose experts
    follow those of the run before, so that none is met again before all others were.

    Raises:
        InvalidFieldError: transformers holds no experts in the precision, or no kernel of
            torch's runs them without asking the device how many tokens each of them got.
    """
    check_grouped(precision, device)
    dtype = dtype_of(precision)
    modules = [
        _module(point, device, dtype)
        for _ in range(copies_beyond_cache(expert_values(point) * dtype.itemsize, device))
    ]
    draw = torch.Generator().manual_seed(0)
    for tokens in point.tokens:
        x = device.random(tokens, point.hidden_size, dtype=dtype)
        # In the type that transformers' routers give them in.
        weights = torch.full(
            (tokens, point.top_k), 1 / point.top_k, dtype=dtype, device=device.torch_device
        )
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
        yield measurement_of("experts", precision, point.shape(tokens), timing, point.group)


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
    # Takes a second to load, and few campaigns get so far.
    from transformers.models.qwen3_moe.modeling_qwen3_moe import (  # noqa: PLC0415
        Qwen3MoeExperts,
    )

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
