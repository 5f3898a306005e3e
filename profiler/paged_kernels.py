"""Kernels that attend to a cache of pages: plain torch's, and those of libraries beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

import torch

from model.operations import OperationKind
from profiler.flashinfer_kernel import FlashInferKernel
from profiler.interface import PLAIN_ENGINE
from profiler.plain_attention import attend_to
from profiler.vllm_kernel import VllmKernel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from model.blocks import Attention
    from profiler.device import Device
    from profiler.pages import Pages

PagedAttend = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]
"""Writes the new keys and values into their pages and attends to all up to them.

From queries, (tokens, query_heads, head_dim), new keys and values, (tokens, kv_heads, head_dim),
and the pools of keys and values to (tokens, query_heads, head_dim); tokens are those of all
sequences, one sequence after the other.
"""


class PagedKernel(Protocol):
    """Code that attends to pages; to make it may raise whatever an import may."""

    @property
    def name(self) -> str:
        """Of the engine or library whose code it is."""

    def takes(self, heads: Attention, dtype: torch.dtype) -> bool:
        """Returns whether it has a kernel for such heads."""

    def plan(self, pages: Pages, heads: Attention, dtype: torch.dtype) -> PagedAttend:
        """Returns what does a layer's work, after what an engine does once a step.

        What is returned waits for nothing and keeps its pointers: a CUDA graph can hold it, and
        many layers in turn.
        """


class GatherKernel:
    """Plain torch: the pages of a sequence are copied together, then it attends as to any cache.

    Attention by blocks whose mask walks the page table (flex attention) reads pages where they
    lie, but on a CPU a chunk or a prompt takes 2.5 times as long as copied together first, a
    decode does not compile, and each shape costs seconds of compiling (torch 2.13).
    """

    name = PLAIN_ENGINE

    def takes(self, heads: Attention, dtype: torch.dtype) -> bool:
        """Returns that it takes them all."""
        del heads, dtype
        return True

    def plan(self, pages: Pages, heads: Attention, dtype: torch.dtype) -> PagedAttend:
        """Returns the layer's work; only places are known before."""
        del heads, dtype
        return partial(_gather_and_attend, pages, pages.slots, pages.table.flatten())


class PagedKernels:
    """Kernels, the best first, each made when it is first asked for.

    Args:
        makers: of each kernel, by its name. The last one is never left out.
    """

    def __init__(self, makers: Mapping[str, Callable[[], PagedKernel]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, PagedKernel] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that are left."""
        return tuple(self._makers)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Of those that are left, but for the last."""
        return self.names[:-1]

    def named(self, name: str) -> PagedKernel:
        """Returns one of those that are left.

        Raises:
            Exception: whatever its library raises while it is loaded.
        """
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def leave_out_lost(self, avoided: Collection[str]) -> None:
        """Forgets those that took a device with them in earlier processes.

        Args:
            avoided: groups that :class:`DeviceLostError` told of, those of points among them.
        """
        for name in self.libraries:
            if lost_group(name) in avoided:
                self.leave_out(name)

    def leave_out(self, name: str) -> None:
        """Forgets one that failed: it would fail again, some after minutes of compiling."""
        self._makers.pop(name)
        self._made.pop(name, None)


def lost_group(name: str) -> str:
    """Returns what a kernel is called, where points have their group, once it lost a device."""
    return f"{OperationKind.PAGED_ATTENTION} by {name}"


def installed_kernels(device: Device) -> PagedKernels:
    """Returns the kernels for a device, those of this process whatever was left out of them.

    vLLM's own come first: they are what is asked about most, and take all heads. Nothing is
    loaded yet.
    """
    return _installed(device.name)


@cache
def _installed(device_name: str) -> PagedKernels:
    libraries: dict[str, Callable[[], PagedKernel]] = {}
    if device_name.startswith("cuda"):
        libraries = {
            each.name: each
            for each in (VllmKernel, FlashInferKernel)
            if importlib.util.find_spec(each.name) is not None
        }
    return PagedKernels({**libraries, GatherKernel.name: GatherKernel})


def _gather_and_attend(
    pages: Pages,
    slots: torch.Tensor,
    order: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    joined = []
    for new, pool in ((key, keys), (value, values)):
        pool.view(-1, *new.shape[1:]).index_copy_(0, slots, new)
        own = pool.index_select(0, order).view(pages.sequences, -1, *new.shape[1:])
        joined.append(own[:, : pages.kv_tokens].transpose(1, 2))
    grouped = query.view(pages.sequences, pages.query_tokens, *query.shape[1:])
    return attend_to(grouped, joined[0], joined[1]).view(query.shape)
