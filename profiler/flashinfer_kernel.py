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
"""For the parts of split keys, as SGLang has it; what its documents advise is too little for many
heads."""
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

    def takes(self, heads: Attention, dtype: torch.dtype) -> bool:
        """Returns whether it has a kernel for such heads."""
        return dtype in {torch.float16, torch.bfloat16} and heads.head_dim in _HEAD_DIMS

    def plan(self, pages: Pages, heads: Attention, dtype: torch.dtype) -> PagedAttend:
        """Returns the layer's work; what is planned lies in buffers that stay where they are."""
        starts = pages.starts(pages.table.shape[1])
        order, ends = pages.table.flatten(), pages.lengths(pages.last_page_tokens)
        sizes = (heads.query_heads, heads.kv_heads, heads.head_dim, PAGE_TOKENS)
        types = {"q_data_type": dtype, "kv_data_type": dtype}
        buffers = (torch.empty_like(starts), torch.empty_like(order), torch.empty_like(ends))
        workspace = self._workspace_on(pages.table.device)
        if pages.query_tokens == 1:
            group = heads.query_heads // heads.kv_heads
            names = ("paged_kv_indptr_buffer", "paged_kv_indices_buffer")
            wrapper = self._library.BatchDecodeWithPagedKVCacheWrapper(
                workspace,
                _LAYOUT,
                use_cuda_graph=True,
                use_tensor_cores=group >= _TENSOR_CORE_GROUP,
                **dict(zip((*names, "paged_kv_last_page_len_buffer"), buffers, strict=True)),
            )
            wrapper.plan(starts, order, ends, *sizes, **types)
        else:
            queries = pages.starts(pages.query_tokens)
            names = ("paged_kv_indptr_buf", "paged_kv_indices_buf")
            wrapper = self._library.BatchPrefillWithPagedKVCacheWrapper(
                workspace,
                _LAYOUT,
                use_cuda_graph=True,
                qo_indptr_buf=torch.empty_like(queries),
                **dict(zip((*names, "paged_kv_last_page_len_buf"), buffers, strict=True)),
            )
            wrapper.plan(queries, starts, order, ends, *sizes, causal=True, **types)
        append = self._library.append_paged_kv_cache
        where = (pages.owners, pages.positions)
        return partial(_append_and_run, append, wrapper.run, where, (order, starts, ends))

    def _workspace_on(self, device: torch.device) -> torch.Tensor:
        """Returns the memory that all plans share: what they run comes one after the other."""
        if self._workspace is None or self._workspace.device != device:
            self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
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
