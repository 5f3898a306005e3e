"""FlashInfer's attention over pages (arXiv 2501.01005), where it is installed."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from profiler.pages import PAGE_TOKENS

if TYPE_CHECKING:
    from model.blocks import Attention
    from profiler.paged_kernels import PagedAttend
    from profiler.pages import Pages

WORKSPACE_BYTES = 384 << 20
"""At first, for the parts of split keys: as SGLang has it. Many heads and sequences need more."""
_MOST_BYTES = 4 << 30
_LAYOUT = "NHD"
_HEAD_DIMS = (64, 128, 256)
"""Those that it compiles kernels for."""
_TENSOR_CORE_GROUP = 4
"""Query heads of a KV head from which on tensor cores decode faster."""


class FlashInferKernel:
    """Its wrappers of one step: planned once, run by each layer.

    Raises:
        Exception: whatever loading it raises.
    """

    name = "flashinfer"

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("flashinfer")
        self._workspace: torch.Tensor | None = None
        self._bytes = WORKSPACE_BYTES

    def takes(self, heads: Attention, dtype: torch.dtype) -> bool:
        """Returns whether it has a kernel for such heads."""
        return dtype in {torch.float16, torch.bfloat16} and heads.head_dim in _HEAD_DIMS

    def plan(self, pages: Pages, heads: Attention, dtype: torch.dtype) -> PagedAttend:
        """Returns the layer's work; what was planned lies in buffers that stay where they are.

        Raises:
            MemoryError: split keys leave more parts than it may keep.
        """
        table = (
            pages.starts(pages.table.shape[1]),
            pages.table.flatten(),
            pages.lengths(pages.last_page_tokens),
        )
        sizes = (heads.query_heads, heads.kv_heads, heads.head_dim, PAGE_TOKENS)
        while True:
            workspace = self._workspace_on(pages.table.device)
            try:
                run = self._planned(workspace, pages, table, sizes, dtype)
            except Exception as error:
                if "workspace" not in str(error):
                    raise
                if 2 * len(workspace) > _MOST_BYTES:
                    raise MemoryError(f"{self.name}: {error}") from error
                self._workspace = None
                self._bytes = 2 * len(workspace)
            else:
                break
        starts, order, ends = table
        append = self._library.append_paged_kv_cache
        where = (pages.owners, pages.positions)
        return partial(_append_and_run, append, run, where, (order, starts, ends))

    def _planned(
        self,
        workspace: torch.Tensor,
        pages: Pages,
        table: tuple[torch.Tensor, ...],
        sizes: tuple[int, ...],
        dtype: torch.dtype,
    ) -> Any:  # noqa: ANN401 - the library has no types
        """Returns what attends after a plan, made for graphs where engines run it from one.

        A plan for graphs splits the keys of every query, as those of later replays may be longer:
        prompts, which engines run without, would take gigabytes and longer.
        """
        types = {"q_data_type": dtype, "kv_data_type": dtype}
        if pages.query_tokens > 1:
            wrapper = self._library.BatchPrefillWithPagedKVCacheWrapper(workspace, _LAYOUT)
            queries = pages.starts(pages.query_tokens)
            wrapper.plan(queries, *table, *sizes, causal=True, **types)
            return wrapper.run
        query_heads, kv_heads, *_ = sizes
        starts, order, ends = (torch.empty_like(each) for each in table)
        wrapper = self._library.BatchDecodeWithPagedKVCacheWrapper(
            workspace,
            _LAYOUT,
            use_cuda_graph=True,
            use_tensor_cores=query_heads >= _TENSOR_CORE_GROUP * kv_heads,
            paged_kv_indptr_buffer=starts,
            paged_kv_indices_buffer=order,
            paged_kv_last_page_len_buffer=ends,
        )
        wrapper.plan(*table, *sizes, **types)
        return wrapper.run

    def _workspace_on(self, device: torch.device) -> torch.Tensor:
        """Returns the memory that all plans share: what they run comes one after the other."""
        if self._workspace is None or self._workspace.device != device:
            self._workspace = torch.zeros(self._bytes, dtype=torch.uint8, device=device)
        return self._workspace


def _append_and_run(
    append: Any,  # noqa: ANN401 - the library has no types
    run: Any,  # noqa: ANN401
    where: tuple[torch.Tensor, torch.Tensor],
    table: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    append(key, value, *where, (keys, values), *table, _LAYOUT)
    output: torch.Tensor = run(query, (keys, values))
    return output
