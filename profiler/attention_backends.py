"""Ways of plain torch to attend, each by one of its kernels.

- flash takes 16 bits, groups of heads, causal masks at either corner; windows by its own operator.
- cuDNN takes 16 bits and groups; it reads a causal mask at the lower right and windows from memory.
- memory-efficient takes all types and both causal masks, but no groups: keys are repeated.
- flex attention takes them all and skips hidden blocks, after seconds of compiling for each shape:
  it is a candidate where the others read a mask from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch._inductor import config as inductor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attends from queries, (sequences, query_heads, queries, head_dim), keys and values, (sequences,
kv_heads, keys, head_dim), to the queries' shape."""


class Sight(NamedTuple):
    """Which keys each query sees.

    Attributes:
        queries: of a sequence.
        keys: alike; where queries are causal their own are the last ones.
        is_causal: whether a query sees no key behind its own; else it sees all.
        window: keys that a causal query sees at most; None: all up to its own.
    """

    queries: int
    keys: int
    is_causal: bool = True
    window: int | None = None

    @property
    def needs_mask(self) -> bool:
        """Whether torch's function says it by a mask alone, not by ``is_causal``."""
        return self.is_causal and (self.window is not None or self.queries < self.keys)


class Backend(Protocol):
    """One way to attend."""

    @property
    def name(self) -> str:
        """For a person."""

    def plan(self, sight: Sight, query: torch.Tensor, keys: torch.Tensor) -> Attend | None:
        """Returns what attends to all tensors shaped as these; None where it is no candidate.

        What is returned waits for nothing once it has run: a CUDA graph can hold it.

        Raises:
            Exception: whatever its parts raise.
        """


class FusedBackend:
    """torch's function held to one of its kernels.

    Args:
        name: of the kernel.
        kernel: torch's own mark of it.
        takes_groups: whether query heads may share keys; else these are repeated.
    """

    def __init__(self, name: str, kernel: SDPBackend, *, takes_groups: bool = True) -> None:
        self.name = name
        self._kernel = kernel
        self._takes_groups = takes_groups

    def plan(self, sight: Sight, query: torch.Tensor, keys: torch.Tensor) -> Attend:
        """Returns it for that sight."""
        del query, keys
        return partial(self._attend, sight)

    def _attend(
        self, sight: Sight, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        groups = query.shape[1] // keys.shape[1]
        if groups > 1 and not self._takes_groups:
            keys, values = (each.repeat_interleave(groups, dim=1) for each in (keys, values))
        with sdpa_kernel(self._kernel):
            return by_torch(sight, query, keys, values)


class FlashWindow:
    """Flash attention's own operator, which knows windows; torch's function does not pass them."""

    name = "flash window"

    def plan(self, sight: Sight, query: torch.Tensor, keys: torch.Tensor) -> Attend | None:
        """Returns it for windows alone."""
        del query, keys
        return None if sight.window is None else partial(self._attend, sight, sight.window - 1)

    @staticmethod
    def _attend(
        sight: Sight, left: int, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        output: torch.Tensor = torch.ops.aten._flash_attention_forward(
            *(each.transpose(1, 2) for each in (query, keys, values)),
            None,
            None,
            sight.queries,
            sight.keys,
            0.0,
            True,
            False,
            window_size_left=left,
            window_size_right=0,
        )[0]
        return output.transpose(1, 2)


class FlexBackend:
    """Flex attention (arXiv 2412.05496), compiled for each shape.

    Its table of blocks is made once for a shape: an engine makes one a step for all layers.
    """

    name = "flex"

    def plan(self, sight: Sight, query: torch.Tensor, keys: torch.Tensor) -> Attend | None:
        """Returns it where no fused kernel knows the sight without a mask in memory."""
        if not sight.needs_mask or (sight.window is None and _has_flash(query)):
            return None
        # Processes that compile side by side would be no children of ours to end.
        inductor.compile_threads = 1
        blocks = create_block_mask(
            partial(_sees, sight.keys - sight.queries, sight.window or sight.keys),
            None,
            None,
            sight.queries,
            sight.keys,
            device=query.device,
        )
        compiled: Any = torch.compile(flex_attention, dynamic=False, fullgraph=True)
        run = partial(compiled, block_mask=blocks, enable_gqa=query.shape[1] != keys.shape[1])
        return partial(self._attend, run)

    @staticmethod
    def _attend(
        run: Attend, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        # Layers and kernels alone cut their queries out of different rows: one kernel serves both.
        return run(query.contiguous(), keys, values)


BACKENDS: tuple[Backend, ...] = (
    FusedBackend("flash", SDPBackend.FLASH_ATTENTION),
    FusedBackend("cudnn", SDPBackend.CUDNN_ATTENTION),
    FusedBackend("efficient", SDPBackend.EFFICIENT_ATTENTION, takes_groups=False),
    FlashWindow(),
    FlexBackend(),
)
"""Candidates on a GPU beside torch's own choice, those that take longest to prepare last."""


def band(queries: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """Returns which keys each of the last queries sees in a window, (queries, keys)."""
    rows = torch.arange(queries, device=device)[:, None]
    columns = torch.arange(keys, device=device)[None, :]
    return _sees(keys - queries, window, None, None, rows, columns)


def by_torch(
    sight: Sight, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attends by torch's own choice; shapes are those of :data:`Attend`."""
    mask = None
    if sight.window is not None:
        mask = band(sight.queries, sight.keys, sight.window, query.device)
    elif sight.needs_mask:
        mask = causal_lower_right(sight.queries, sight.keys)
    return F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=sight.is_causal and mask is None,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _sees(
    past: int, window: int, sequence: object, head: object, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Returns whether a query sees a key, with flex attention's arguments behind the first two."""
    del sequence, head
    seen: torch.Tensor = (key <= query + past) & (key > query + past - window)
    return seen


def _has_flash(query: torch.Tensor) -> bool:
    """Returns whether flash attention may take such queries on a GPU."""
    return query.dtype in {torch.float16, torch.bfloat16} and query.shape[-1] <= 256
