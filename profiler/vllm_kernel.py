"""vLLM's attention over pages: its build of FlashAttention, where vLLM is installed."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from model.blocks import Attention
    from profiler.paged_kernels import PagedAttend
    from profiler.pages import Pages

_VERSION_MODULES = (
    "vllm.v1.attention.backends.fa_utils",
    "vllm.attention.utils.fa_utils",
    "vllm.vllm_flash_attn.fa_utils",
)
"""Where releases from 0.8 on tell which FlashAttention they run on a GPU, the newest first."""
_WIDEST_HEAD = 256


class VllmKernel:
    """What vLLM's FlashAttention backend calls in each layer.

    Raises:
        Exception: whatever loading it raises.
    """

    name = "vllm"

    def __init__(self) -> None:
        self._attend: Any = importlib.import_module("vllm.vllm_flash_attn").flash_attn_varlen_func
        self._write: Any = importlib.import_module("vllm._custom_ops").reshape_and_cache_flash
        self._version = _flash_attention_version()

    def takes(self, heads: Attention, dtype: torch.dtype) -> bool:
        """Returns whether it has a kernel for such heads."""
        halves = dtype in {torch.float16, torch.bfloat16}
        return halves and heads.head_dim % 8 == 0 and heads.head_dim <= _WIDEST_HEAD

    def plan(self, pages: Pages, heads: Attention, dtype: torch.dtype) -> PagedAttend:
        """Returns the layer's work; scales of the cache are those of one that is not packed.

        vLLM has FlashAttention 3 deal out its work once a step. Here each call does it, with a
        small kernel more: what is dealt out must fit the call to the last number, and where it
        does not the process may end (github.com/vllm-project/flash-attention/pull/162).
        """
        del heads, dtype
        attend = partial(
            self._attend,
            cu_seqlens_q=pages.starts(pages.query_tokens),
            max_seqlen_q=pages.query_tokens,
            seqused_k=pages.lengths(pages.kv_tokens),
            max_seqlen_k=pages.kv_tokens,
            block_table=pages.table,
            causal=True,
            fa_version=self._version,
        )
        scale = torch.ones((), device=pages.table.device)
        return partial(_write_and_attend, self._write, attend, pages.slots, scale)


def _flash_attention_version() -> int:
    """Returns which FlashAttention vLLM runs on this GPU.

    Raises:
        ImportError: no release that is known tells.
        RuntimeError: it runs none here.
    """
    for name in _VERSION_MODULES:
        try:
            module: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        version = module.get_flash_attn_version()
        if version is None:
            raise RuntimeError("its FlashAttention does not run on this GPU")
        return int(version)
    raise ImportError("none of its modules tells the version of FlashAttention")


def _write_and_attend(
    write: Any,  # noqa: ANN401 - vLLM's kernels have no types
    attend: Any,  # noqa: ANN401
    slots: torch.Tensor,
    scale: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    write(key, value, keys, values, slots, "auto", scale, scale)
    output: torch.Tensor = attend(q=query, k=keys, v=values)
    return output
