"""What is wrong with a published row, where it can be told from the row or those beside it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reference.rows import Row

    Layer = tuple[str, str, str, float]

TOO_FAST = "faster than memory allows"
IN_GROUPS = "experts routed in groups that tie"
TOO_FAST_KERNEL = "of a kernel timed faster than memory allows"
OTHERS_CHOICES = "of ranks that ran other ranks' choices of experts, too"

_DEEPSEEK_EXPERTS = "7168x2048x256"
"""DeepSeek V3's experts are chosen within the best 4 of 8 groups (arXiv 2412.19437, section 2.1.2).

Choices dealt out at equal distances (``reference.routing``) lie one in each group, so all
groups tie: vLLM and SGLang took the first 4 alone, and the first experts for the half of the
choices that was lost. Half of the experts stay untouched and some get every token, which no
router does. TensorRT-LLM's rows met them all.
"""


_TOO_FAST_KERNEL = "moe_torch_flow_min_latency"
"""TensorRT-LLM's for few tokens, on B200: a tenth of its large rows is too fast, by up to 3.3."""


_RAN_ALL = 0.8
"""Of the time that all choices of a rank's tokens take. Ranks that ran their own alone took at
most 0.77 of it (vLLM's small experts on L40S), those that ran all at least 0.83."""
_MOST_RANKS = 4.0
"""Of layers with fewer choices: shares of more ranks are too small to tell by."""


class Memory(NamedTuple):
    """Of a device, by its data sheet (those of ``model/data/devices.json``)."""

    bytes_per_second: float
    cache_bytes: float


MEMORIES = {
    "a100-sxm": Memory(2.039e12, 40 << 20),
    "h100-sxm": Memory(3.35e12, 50 << 20),
    "h200-sxm": Memory(4.8e12, 50 << 20),
    "b200-sxm": Memory(8e12, 126 << 20),
    "l40s": Memory(0.864e12, 96 << 20),
}
_WEIGHT_BYTES = {"bf16": 2.0, "fp16": 2.0, "int4": 0.5, "fp4": 0.5}
_OTHER_WEIGHT_BYTES = 1.0
_READ_IN_WHOLE = 2.0
"""What exceeds the last-level cache so many times is read from memory."""


def fault(row: Row, device: str) -> str:
    """Returns why a row cannot be right, empty where nothing speaks against it.

    Args:
        row: as measured.
        device: one of ``MEMORIES``.
    """
    if row.kind == "experts" and row.group == _DEEPSEEK_EXPERTS and row.engine != "trtllm":
        return IN_GROUPS
    if row.kernel == _TOO_FAST_KERNEL:
        return TOO_FAST_KERNEL
    memory, read = MEMORIES[device], read_bytes(row)
    from_memory = read > _READ_IN_WHOLE * memory.cache_bytes
    if from_memory and 1e-3 * row.latency_ms * memory.bytes_per_second < read:
        return TOO_FAST
    return ""


def crowded_layers(found: Iterable[Row]) -> set[Layer]:
    """Returns the layers of experts whose ranks ran other ranks' choices, too.

    SGLang's Triton kernel knows no expert that is not there, so the collector gave a token's
    choices of other ranks' experts to the rank's first (github.com/ai-dynamo/aiconfigurator,
    commit 095f58a, collector/sglang/collect_moe.py, ``topk_ids.clamp(min=0)``): all of 0.5.10's
    tables, in 0.5.14's the models that are not timed in SGLang's own layer. It shows where
    there are the most tokens: a rank of 8 takes as long as the whole layer.

    Args:
        found: rows of one table.
    """
    layers: dict[Layer, dict[tuple[float, float], dict[float, float]]] = defaultdict(dict)
    for row in found:
        if row.kind == "experts":
            size = row.shape
            share = size["intermediate_size"], size["experts"] / size["local_experts"]
            layers[layer_of(row)].setdefault(share, {})[size["tokens"]] = row.latency_ms
    return {layer for layer, shares in layers.items() if _least_share(shares, layer[-1]) > _RAN_ALL}


def layer_of(row: Row) -> Layer:
    """Returns what rows of one layer of experts share, whatever its ranks hold."""
    return row.precision, row.kernel, row.group, row.shape["top_k"]


def is_part(row: Row) -> bool:
    """Returns whether experts were spread over ranks."""
    return row.kind == "experts" and row.shape["local_experts"] < row.shape["experts"]


def _least_share(shares: dict[tuple[float, float], dict[float, float]], top_k: float) -> float:
    """Returns the least time of a rank over that of all choices of the tokens it has.

    0 where it cannot be told: a token with a single choice has none of other ranks.

    Args:
        shares: latencies by tokens, by width of the experts and number of ranks.
        top_k: choices of a token.
    """
    # Whole experts: what a kernel does beside its products counts for the least.
    widest = max(width for width, _ in shares)
    whole = shares.get((widest, 1.0), {})
    least = []
    for (width, ranks), latencies in shares.items():
        same = whole.keys() & latencies.keys()
        if width == widest and same and 1 < ranks <= max(top_k, _MOST_RANKS):
            most = max(same)
            least.append(latencies[most] / whole[most] / min(1.0, top_k / ranks))
    return min(least, default=0.0) if top_k > 1 else 0.0


def read_bytes(row: Row) -> float:
    """Returns the bytes that a run reads at least once: weights, or keys and values.

    Scales of packed formats are not counted; 0 for kinds that nothing is said of.
    """
    each = _WEIGHT_BYTES.get(row.precision, _OTHER_WEIGHT_BYTES)
    size = row.shape
    if row.kind in {"linear", "linear_per_tensor", "batched_linear"}:
        return size.get("batch", 1.0) * size["n"] * size["k"] * each
    if row.kind == "experts":
        return 3 * size["touched"] * size["hidden_size"] * size["intermediate_size"] * each
    if row.kind in {"attention", "static_attention", "paged_attention"}:
        seen = size.get("window", size["kv_tokens"]) + size["query_tokens"] - 1
        keys = size["sequences"] * min(size["kv_tokens"], seen) * size["kv_heads"]
        return 2 * keys * size["head_dim"] * each
    return 0.0
