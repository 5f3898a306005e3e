"""From the columns of the tables to rows: one function a kind of table.

Where several kernels of an engine were timed for one shape, the fastest counts: engines
pick by such tables. Experts are taken with balanced assignments alone; imbalance is a
factor of the question. What cannot be right is left out, and counted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from reference import parquet
from reference.faults import OTHERS_CHOICES, crowded_layers, fault, is_part, layer_of
from reference.routing import met
from reference.rows import Row, thinned
from reference.tables import Table, newest_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Columns = dict[str, list[Any]]

PRECISIONS = {
    "bfloat16": "bf16",
    "half": "bf16",
    "float16": "fp16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_block": "fp8-block",
    "sq": "int8",
    "int8_wo": "int8-weight-only",
    "int4_wo": "int4",
    "nvfp4": "fp4",
    "w4a16_mxfp4": "fp4",
}
"""Theirs to ours; rows of other formats are left out."""
_DEEPSEEK = {"kv_rank": 512.0, "rope_dim": 64.0, "head_dim": 128.0, "value_dim": 128.0}
"""Latent attention was timed with DeepSeek V3's dimensions (arXiv 2412.19437, section 4.2)."""
_TWO_MATRICES = {
    (1024.0, 2688.0),
    (2048.0, 5120.0),
    (2688.0, 1856.0),
    (4096.0, 2688.0),
    (8192.0, 5120.0),
}
"""Sizes (hidden, inner) of experts without a gate, which not every table marks."""
_GLM_TOP_K = 2048.0
"""Sparse attention's parts were timed with GLM-5's dimensions, alike DeepSeek V3.2's (its
config.json: index_topk 2048, 32 heads of 128 in the indexer)."""
_MISSING = {"window_size": 0, "attn_dtype": "bfloat16", "kernel_source": "", "kv_cache_dtype": ""}
"""What a column that older tables lack stands for there."""
_COLLECTIVES = {"all_reduce": "all_reduce", "alltoall": "all_to_all"}
_LAUNCH_BOUND = 2.0


class Read(NamedTuple):
    """What a table holds.

    Attributes:
        table: that was read.
        rows: its measurements.
        left_out: how many cannot be right, by reason.
    """

    table: Table
    rows: list[Row]
    left_out: Counter[str]


def rows(
    device: str, engine: str, folder: Path, limit: int, *, launched: bool = False
) -> Iterator[Read]:
    """Yields each table that stands for an engine on a device.

    Args:
        device: our name of it.
        engine: "vllm", "sglang" or "trtllm"; tables and precisions it lacks are another's.
        folder: of all devices' tables.
        limit: most rows of one kind and precision; more are drawn at random, the same
            at each run.
        launched: takes linears that were timed as the host launched them, too.
    """
    for kind, name, read in _TABLES:
        held: set[str] = set()
        for table in tables_of(device, kind, name, engine, folder):
            every = list(read(_columns(table.path), table.engine))
            wanted = {row.precision for row in every} - held
            if not launched:
                wanted -= _launch_bound(every)
            found, left_out = _possible([r for r in every if r.precision in wanted], device)
            if found:
                held |= wanted
                yield Read(table, thinned(_fastest(found), limit), left_out)
    yield from _collectives(device, engine, folder)


def _launch_bound(found: Iterable[Row]) -> set[str]:
    """Returns the precisions of linears that were timed as the host launched them.

    No engine runs those so: its decode steps are captured in graphs. They show by their
    shortest latencies, which are a multiple of those in bf16, whose kernels take as long
    to start (in vLLM 0.24.0's table FP8 in blocks never takes less than 57 us, in SGLang's
    of the same kernels 4).
    """
    latencies: dict[str, list[float]] = defaultdict(list)
    for row in found:
        if row.kind == "linear":
            latencies[row.precision].append(row.latency_ms)
    shortest = {name: sorted(times)[len(times) // 20] for name, times in latencies.items()}
    plain = shortest.get("bf16", math.inf)
    return {name for name, least in shortest.items() if least > _LAUNCH_BOUND * plain}


def _collectives(device: str, engine: str, folder: Path) -> Iterator[Read]:
    """Yields the engine's own all-reduce, and NCCL's for what it has none of."""
    own = newest_of(device, "comm", "custom_allreduce_perf.parquet", engine, folder)
    if own is not None:
        yield Read(own, list(_all_reduce(_columns(own.path), engine)), Counter())
    library = newest_of(device, "comm", "nccl_perf.parquet", "nccl", folder)
    if library is not None:
        found = _nccl(_columns(library.path), "nccl")
        rest = [row for row in found if own is None or row.kind != "all_reduce"]
        yield Read(library, rest, Counter())


def _possible(found: list[Row], device: str) -> tuple[list[Row], Counter[str]]:
    kept: list[Row] = []
    left_out: Counter[str] = Counter()
    crowded = crowded_layers(found)
    for row in found:
        reason = fault(row, device)
        if not reason and is_part(row) and layer_of(row) in crowded:
            reason = OTHERS_CHOICES
        if reason:
            left_out[reason] += 1
        else:
            kept.append(row)
    return kept, left_out


def _columns(path: Path) -> Columns:
    table: Columns = parquet.reader().read_table(path).to_pydict()
    return table


def _fastest(found: Iterable[Row]) -> list[Row]:
    best: dict[tuple[object, ...], Row] = {}
    for row in found:
        key = (row.kind, row.precision, *row.shape.values())
        if key not in best or row.latency_ms < best[key].latency_ms:
            best[key] = row
    return list(best.values())


def _linear(columns: Columns, engine: str) -> Iterator[Row]:
    for dtype, m, n, k, latency in _zip(columns, "gemm_dtype", "m", "n", "k", "latency"):
        if dtype in PRECISIONS:
            shape = {"m": float(m), "n": float(n), "k": float(k)}
            yield Row("linear", PRECISIONS[dtype], engine, shape, latency, f"{n}x{k}")


def _attention(columns: Columns, engine: str) -> Iterator[Row]:
    names = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim")
    for dtype, cache, window, latency, *sizes in _zip(
        columns, "attn_dtype", "kv_cache_dtype", "window_size", "latency", *names
    ):
        if dtype != "bfloat16" or cache not in PRECISIONS:
            continue
        batch, query, past, heads, kv_heads, head_dim = (float(size) for size in sizes)
        shape = {
            "sequences": batch,
            "query_tokens": query,
            "kv_tokens": query + past,
            "query_heads": heads,
            # They write 0 where each query head has its own.
            "kv_heads": kv_heads or heads,
            "head_dim": head_dim,
        }
        if window:
            shape["window"] = float(window)
        group = f"{heads:.0f}/{shape['kv_heads']:.0f}"
        yield Row("attention", PRECISIONS[cache], engine, shape, latency, group)


def _mla(columns: Columns, engine: str) -> Iterator[Row]:
    names = ("batch_size", "isl", "step", "num_heads")
    for cache, latency, *sizes in _zip(columns, "kv_cache_dtype", "latency", *names):
        if cache not in PRECISIONS:
            continue
        batch, query, past, heads = (float(size) for size in sizes)
        shape = {
            "sequences": batch,
            "query_tokens": query,
            "kv_tokens": query + past,
            "query_heads": heads,
            **_DEEPSEEK,
        }
        yield Row("mla", PRECISIONS[cache], engine, shape, latency, f"{heads:.0f} heads")


def _mla_products(columns: Columns, engine: str) -> Iterator[Row]:
    for operation, dtype, tokens, heads, latency in _zip(
        columns, "op_name", "bmm_dtype", "num_tokens", "num_heads", "latency"
    ):
        if dtype not in PRECISIONS:
            continue
        rank, head = _DEEPSEEK["kv_rank"], _DEEPSEEK["head_dim"]
        n, k = (rank, head) if operation == "mla_gen_pre" else (head, rank)
        shape = {"m": float(tokens), "n": n, "k": k, "batch": float(heads)}
        precision = PRECISIONS[dtype]
        yield Row("batched_linear", precision, engine, shape, latency, f"{heads} heads")


def _recurrent(columns: Columns, engine: str) -> Iterator[Row]:
    names = ("batch_size", "seq_len", "num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")
    for source, width, latency, *sizes in _zip(
        columns, "kernel_source", "d_conv", "latency", *names
    ):
        batch, query, key_heads, key_dim, value_heads, value_dim = (float(size) for size in sizes)
        shape = {"sequences": batch, "query_tokens": query}
        if "conv1d" in source:
            kind = "convolution"
            channels = 2 * key_heads * key_dim + value_heads * value_dim
            shape |= {"channels": channels, "width": float(width)}
        else:
            kind = "linear_attention"
            shape |= {
                "key_heads": key_heads,
                "value_heads": value_heads,
                "key_dim": key_dim,
                "value_dim": value_dim,
            }
        group = f"{key_heads:.0f}/{value_heads:.0f}"
        yield Row(kind, "bf16", engine, shape, latency, group)


def _sparse_latent(columns: Columns, engine: str) -> Iterator[Row]:
    sizes = {"kv_rank": 512.0, "rope_dim": 64.0, "top_k": _GLM_TOP_K}
    for cache, heads, latency, shape in _sparse(columns):
        if cache in PRECISIONS:
            own = shape | {"query_heads": float(heads)} | sizes
            yield Row("sparse_mla", PRECISIONS[cache], engine, own, latency, _length(shape))


def _indexer(columns: Columns, engine: str) -> Iterator[Row]:
    for _, _, latency, shape in _sparse(columns):
        own = shape | {"heads": 32.0, "head_dim": 128.0}
        yield Row("indexer", "fp8", engine, own, latency, _length(shape))


def _top_k(columns: Columns, engine: str) -> Iterator[Row]:
    for _, _, latency, shape in _sparse(columns):
        own = shape | {"top_k": _GLM_TOP_K}
        yield Row("top_k", "fp32", engine, own, latency, _length(shape))


def _sparse(columns: Columns) -> Iterator[tuple[str, int, float, dict[str, float]]]:
    """Yields the cache's format, the query heads, the latency and the sizes of all three kinds."""
    names = ("batch_size", "isl", "step")
    for cache, heads, latency, *sizes in _zip(
        columns, "kv_cache_dtype", "num_heads", "latency", *names
    ):
        batch, query, past = (float(size) for size in sizes)
        # They write 0 where nothing was to be chosen, and so nothing ran.
        if latency > 0:
            shape = {"sequences": batch, "query_tokens": query, "kv_tokens": query + past}
            yield cache, heads, latency, shape


def _length(shape: dict[str, float]) -> str:
    return f"{shape['query_tokens']:.0f} x {shape['kv_tokens']:.0f}"


def _experts(columns: Columns, engine: str) -> Iterator[Row]:
    names = ("num_tokens", "hidden_size", "inter_size", "num_experts", "topk")
    for source, dtype, spread, tp, ep, latency, *sizes in _zip(
        columns,
        "kernel_source",
        "moe_dtype",
        "distribution",
        "moe_tp_size",
        "moe_ep_size",
        "latency",
        *names,
    ):
        # Experts without a gate are two matrices, not three.
        if dtype not in PRECISIONS or spread != "balanced" or "nongated" in source:
            continue
        tokens, hidden, inner, count, top_k = (float(size) for size in sizes)
        if count % ep or inner % tp or (hidden, inner) in _TWO_MATRICES:
            continue
        held = int(count) // ep
        rank = met(int(tokens), int(count), int(top_k), held, rounded=engine == "vllm")
        shape = {
            "tokens": tokens,
            "hidden_size": hidden,
            "intermediate_size": inner // tp,
            "local_experts": float(held),
            "experts": count,
            "top_k": top_k,
            "imbalance": rank.assignments / (tokens * top_k / ep),
            "touched": float(rank.touched),
        }
        group = f"{hidden:.0f}x{inner:.0f}x{count:.0f}"
        yield Row("experts", PRECISIONS[dtype], engine, shape, latency, group, source)


def _all_reduce(columns: Columns, engine: str) -> Iterator[Row]:
    for kernel, ranks, values, latency in _zip(
        columns, "kernel_source", "num_gpus", "message_size", "latency"
    ):
        # Engines capture these into graphs.
        if not kernel.endswith("eager"):
            yield _collective("all_reduce", engine, ranks, values, latency)


def _nccl(columns: Columns, engine: str) -> Iterator[Row]:
    for operation, dtype, ranks, values, latency in _zip(
        columns, "op_name", "nccl_dtype", "num_gpus", "message_size", "latency"
    ):
        if dtype == "half" and operation in _COLLECTIVES:
            yield _collective(_COLLECTIVES[operation], engine, ranks, values, latency)


def _collective(kind: str, engine: str, ranks: int, values: int, latency: float) -> Row:
    # They count values, of two bytes each.
    shape = {"message_bytes": 2.0 * values, "ranks": float(ranks)}
    return Row(kind, "bf16", engine, shape, latency, f"{ranks} ranks")


def _zip(columns: Columns, *names: str) -> Iterator[tuple[Any, ...]]:
    rows_ = len(columns["latency"])
    filled = (columns.get(name) or [_MISSING[name]] * rows_ for name in names)
    return zip(*filled, strict=True)


_TABLES: tuple[tuple[str, str, Callable[[Columns, str], Iterator[Row]]], ...] = (
    ("gemm", "gemm_perf.parquet", _linear),
    ("attention", "context_attention_perf.parquet", _attention),
    ("attention", "generation_attention_perf.parquet", _attention),
    ("mla", "context_mla_perf.parquet", _mla),
    ("mla", "generation_mla_perf.parquet", _mla),
    ("mla_bmm", "mla_bmm_perf.parquet", _mla_products),
    ("sparse_attention", "glm5_dsa_attn_module_perf.parquet", _sparse_latent),
    ("sparse_attention", "glm5_mqa_logits_module_perf.parquet", _indexer),
    ("sparse_attention", "glm5_topk_module_perf.parquet", _top_k),
    ("linear_attention", "gdn_perf.parquet", _recurrent),
    ("moe", "moe_perf.parquet", _experts),
)
