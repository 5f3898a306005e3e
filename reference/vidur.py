"""The CSV profiles of Vidur (arXiv 2405.05465): mlp.csv, attention.csv and collectives.

https://github.com/microsoft/vidur writes them (vidur/profiling). Times are milliseconds,
weights and activations fp16, and a row is one tensor-parallel rank's:

- mlp.csv holds a layer's matrix products over ``num_tokens`` tokens, with ``n_embd`` the
  hidden and ``n_expanded_embd`` the inner width of the whole model; gate and up projection
  are one product.
- attention.csv holds a prefill of ``prefill_chunk_size`` tokens on top of ``kv_cache_size``
  cached ones, or a decode of one token for each of ``batch_size`` sequences.
- collectives hold ``size`` bytes exchanged by ``num_workers`` GPUs, ``devices_per_node`` of
  them in each machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference.rows import Row

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from reference.sheets import Line, Sheet

    Found = tuple[str, str, dict[str, float], str] | str
    """Kind, precision, sizes and group of an operation; or why it is left out."""
    Reader = Callable[[Line], dict[str, Found]]

LAYOUT = "Vidur's profiles"
PRECISION = "fp16"
COLLECTIVE_PRECISION = "bf16"
"""As all collectives are kept: two bytes a value, and their size is in bytes."""
_TIMES, _MEDIAN = "time_stats.", ".median"
_WORKERS = "num_tensor_parallel_workers"


def recognises(sheet: Sheet) -> bool:
    """Returns whether a file is of this layout."""
    return any(column.startswith(_TIMES) for column in sheet.columns)


def rows(sheet: Sheet, engine: str, problems: list[str], left_out: Counter[str]) -> list[Row]:
    """Returns the measurements of a file.

    Args:
        sheet: the file.
        engine: that they stand for.
        problems: what cannot be used is added.
        left_out: times that are not imported are counted, by reason.
    """
    found = next((it for it in _LAYOUTS if it[0] <= set(sheet.columns)), None)
    if found is None:
        nearest = min(_LAYOUTS, key=lambda it: len(sheet.lacking(it[0])))
        missing = ", ".join(sheet.lacking(nearest[0]))
        problems.append(
            f"{sheet.name}:1: {missing} is missing for a profile of Vidur; profile anew, or"
            " write the columns that docs/measurement-files.md names"
        )
        return []
    if not engine:
        problems.append(f"{sheet.name} names no engine; pass --engine, such as vllm")
        return []
    read = found[1]
    timed = [
        column.removeprefix(_TIMES).removesuffix(_MEDIAN)
        for column in sheet.columns
        if column.startswith(_TIMES) and column.endswith(_MEDIAN)
    ]
    return [row for line in sheet.lines for row in _line(line, timed, read, engine, left_out)]


def _line(
    line: Line, timed: list[str], read: Reader, engine: str, left_out: Counter[str]
) -> Iterator[Row]:
    operations = read(line)
    for name in timed:
        column = f"{_TIMES}{name}{_MEDIAN}"
        cell = line.text(column)
        if not cell:
            continue
        found = operations.get(name, f"of {name}")
        if isinstance(found, str):
            left_out[found] += 1
        elif _is_zero(cell):
            left_out[f"of {name}, too short for Vidur's microseconds"] += 1
        else:
            kind, precision, shape, group = found
            latency = line.milliseconds(column)
            if latency is not None:
                yield Row(kind, precision, engine, shape, latency, group)


def _is_zero(cell: str) -> bool:
    try:
        return float(cell) == 0.0
    except ValueError:
        return False


def _mlp(line: Line) -> dict[str, Found]:
    names = ("num_tokens", "n_head", "n_kv_head", "n_embd", "n_expanded_embd", _WORKERS)
    sizes = [line.whole(name) for name in names]
    gated = line.flag("use_gated_mlp")
    if gated is None or None in sizes:
        return {}
    tokens, heads, kv_heads, hidden, inner, workers = (size or 0.0 for size in sizes)
    if not _divides(line, workers, n_head=heads, n_kv_head=kv_heads, n_expanded_embd=inner):
        return {}
    if not _divides(line, heads, "n_head", n_embd=hidden):
        return {}
    head_dim = hidden // heads
    products = {
        "attn_pre_proj": ((heads + 2 * kv_heads) * head_dim // workers, hidden),
        "attn_post_proj": (hidden, hidden // workers),
        "mlp_up_proj": ((2 if gated else 1) * inner // workers, hidden),
        "mlp_down_proj": (hidden, inner // workers),
    }
    return {
        name: ("linear", PRECISION, {"m": tokens, "n": n, "k": k}, f"{n:.0f}x{k:.0f}")
        for name, (n, k) in products.items()
    }


def _attention(line: Line) -> dict[str, Found]:
    names = ("n_embd", "n_q_head", "n_kv_head", _WORKERS, "batch_size")
    sizes = [line.whole(name) for name in names]
    lengths = [line.whole(name, 0) for name in ("prefill_chunk_size", "kv_cache_size")]
    prefill = line.flag("is_prefill")
    if prefill is None or None in sizes or None in lengths:
        return {}
    hidden, heads, kv_heads, workers, sequences = (size or 0.0 for size in sizes)
    chunk, cached = (length or 0.0 for length in lengths)
    if not _divides(line, workers, n_q_head=heads, n_kv_head=kv_heads):
        return {}
    if not _divides(line, heads, "n_q_head", n_embd=hidden):
        return {}
    query = chunk if prefill else 1.0
    if not query:
        line.reject("prefill_chunk_size", "is 0 in a prefill; remove the line")
        return {}
    shape = {
        "sequences": sequences,
        "query_tokens": query,
        "kv_tokens": query + cached,
        "query_heads": heads // workers,
        "kv_heads": kv_heads // workers,
        "head_dim": hidden // heads,
    }
    group = f"{shape['query_heads']:.0f}/{shape['kv_heads']:.0f}"
    name = "attn_prefill" if prefill else "attn_decode"
    return {name: ("attention", PRECISION, shape, group)}


def _collective(line: Line) -> dict[str, Found]:
    name = line.text("collective")
    if name != "all_reduce":
        return {name: f"of {name}, which no kind of measurement stands for"}
    sizes = [line.whole(column) for column in ("num_workers", "size", "devices_per_node")]
    if None in sizes:
        return {}
    ranks, size, together = (size or 0.0 for size in sizes)
    if ranks < 2:
        return {name: f"of {name} of a single GPU"}
    if together != ranks:
        return {name: f"of {name} across machines"}
    shape = {"message_bytes": size, "ranks": ranks}
    return {name: ("all_reduce", COLLECTIVE_PRECISION, shape, f"{ranks:.0f} ranks")}


def _divides(line: Line, by: float, name: str = _WORKERS, **sizes: float) -> bool:
    """Returns whether a size divides others; those that it does not are problems."""
    wrong = {column: size for column, size in sizes.items() if size % by}
    for column, size in wrong.items():
        line.reject(column, f"is {size:.0f}, which {name}, {by:.0f}, does not divide")
    return not wrong


_LAYOUTS: tuple[tuple[set[str], Reader], ...] = (
    (
        {
            "num_tokens",
            "n_head",
            "n_kv_head",
            "n_embd",
            "n_expanded_embd",
            "use_gated_mlp",
            _WORKERS,
        },
        _mlp,
    ),
    (
        {
            "n_embd",
            "n_q_head",
            "n_kv_head",
            "batch_size",
            "prefill_chunk_size",
            "kv_cache_size",
            "is_prefill",
            _WORKERS,
        },
        _attention,
    ),
    ({"num_workers", "size", "collective", "devices_per_node"}, _collective),
)
