"""tokenpace's own layout of measurements: one operation a line, one column a size.

docs/measurement-files.md documents it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reference.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference.sheets import Line, Sheet

PRECISIONS = (
    "fp32",
    "bf16",
    "fp16",
    "fp8",
    "fp8-block",
    "int8",
    "int8-weight-only",
    "int4",
    "fp4",
)
"""As the command spells them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one kind of operation.

    Attributes:
        needed: each a whole number.
        may: those that may be left empty.
        low: the least value of those that may be other than 1.
    """

    needed: tuple[str, ...]
    may: tuple[str, ...] = ()
    low: tuple[tuple[str, int], ...] = ()


_STEP = ("sequences", "query_tokens", "kv_tokens")
KINDS = {
    "linear": Sizes(("m", "n", "k")),
    "linear_transposed": Sizes(("m", "n", "k")),
    "linear_per_tensor": Sizes(("m", "n", "k")),
    "batched_linear": Sizes(("m", "n", "k", "batch")),
    "attention": Sizes((*_STEP, "query_heads", "kv_heads", "head_dim"), ("window",)),
    "static_attention": Sizes((*_STEP, "query_heads", "kv_heads", "head_dim"), ("window",)),
    "paged_attention": Sizes((*_STEP, "query_heads", "kv_heads", "head_dim"), ("window",)),
    "mla": Sizes(
        (*_STEP, "query_heads", "kv_rank", "rope_dim", "head_dim", "value_dim"),
        low=(("rope_dim", 0),),
    ),
    "sparse_mla": Sizes(
        (*_STEP, "query_heads", "kv_rank", "rope_dim", "top_k"), low=(("rope_dim", 0),)
    ),
    "indexer": Sizes((*_STEP, "heads", "head_dim")),
    "top_k": Sizes((*_STEP, "top_k")),
    "linear_attention": Sizes(
        ("sequences", "query_tokens", "key_heads", "value_heads", "key_dim", "value_dim")
    ),
    "convolution": Sizes(("sequences", "query_tokens", "channels", "width")),
    "experts": Sizes(
        ("tokens", "hidden_size", "intermediate_size", "local_experts", "experts", "top_k"),
        ("imbalance", "balanced"),
    ),
    "all_reduce": Sizes(("message_bytes", "ranks"), low=(("ranks", 2),)),
    "all_gather": Sizes(("message_bytes", "ranks"), low=(("ranks", 2),)),
    "all_to_all": Sizes(("message_bytes", "ranks"), low=(("ranks", 2),)),
    "point_to_point": Sizes(("message_bytes",)),
}
"""Kinds that can be imported, and their sizes as the API's Measurement names them."""
_ALL_SIZES = tuple(dict.fromkeys(name for it in KINDS.values() for name in (*it.needed, *it.may)))
COLUMNS = ("kind", "precision", "latency_ms", "group", "engine", *_ALL_SIZES)
"""Columns of such a file, in any order."""
_NEEDED = {"kind", "precision", "latency_ms"}
_KNOWN_BY = {"kind", "latency_ms"}
_LOAD = frozenset({"m", *_STEP, "tokens", "message_bytes", "imbalance", "balanced"})
"""Sizes that follow the load; the others are the model's, which rows held out together share."""
_LONGEST = 200
_CLOSE = 0.7


def recognises(sheet: Sheet) -> bool:
    """Returns whether a file is of this layout."""
    return bool(_KNOWN_BY.intersection(sheet.columns))


def rows(sheet: Sheet, engine: str, problems: list[str]) -> list[Row]:
    """Returns the measurements of a file.

    Args:
        sheet: the file.
        engine: of lines that name none; empty: each must.
        problems: what cannot be used is added.
    """
    if not _check(sheet, problems):
        return []
    return [row for line in sheet.lines for row in _row(line, engine)]


def _check(sheet: Sheet, problems: list[str]) -> bool:
    found = [
        f"{sheet.name}:1: {column} is missing; add the column" for column in sheet.lacking(_NEEDED)
    ]
    for column in sheet.columns:
        if column not in COLUMNS:
            close = difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=_CLOSE)
            remedy = f"did you mean {close[0]}?" if close else "remove it, or rename it"
            found.append(f"{sheet.name}:1: {column} is no column of measurements; {remedy}")
    problems += found
    return not found


def _row(line: Line, engine: str) -> Iterator[Row]:
    before = len(line.problems)
    kind, precision = line.text("kind"), line.text("precision")
    if kind not in KINDS:
        line.reject("kind", f"is {kind[:40]!r}; it is one of {', '.join(KINDS)}")
        return
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        line.reject("precision", f"is {precision[:40]!r}; it is one of {known}")
    ran = line.text("engine") or engine
    if not ran:
        line.reject("engine", "is empty; fill it, or pass --engine for all lines")
    latency = line.milliseconds("latency_ms")
    shape = _shape(line, KINDS[kind])
    if len(line.text("group")) > _LONGEST:
        line.reject("group", f"is longer than {_LONGEST} characters; shorten it")
    if len(line.problems) == before and latency is not None:
        group = line.text("group") or _group(shape)
        yield Row(kind, precision, ran, shape, latency, group)


def _shape(line: Line, sizes: Sizes) -> dict[str, float]:
    low = dict(sizes.low)
    shape: dict[str, float] = {}
    for name in _ALL_SIZES:
        if name in sizes.needed:
            value = line.whole(name, low.get(name, 1))
        elif not line.text(name):
            continue
        elif name not in sizes.may:
            line.reject(name, f"is no size of {line.text('kind')}; leave the cell empty")
            continue
        elif name == "imbalance":
            value = line.at_least(name, 1.0)
        elif name == "balanced":
            value = 1.0 if line.flag(name) else None
        else:
            value = line.whole(name)
        if value is not None:
            shape[name] = value
    _check_order(line, shape)
    return shape


def _check_order(line: Line, shape: dict[str, float]) -> None:
    for less, more in (
        ("query_tokens", "kv_tokens"),
        ("local_experts", "experts"),
        ("top_k", "experts"),
    ):
        if less in shape and more in shape and shape[less] > shape[more]:
            line.reject(
                less, f"is {shape[less]:.0f}, and cannot exceed {more}, which is {shape[more]:.0f}"
            )


def _group(shape: dict[str, float]) -> str:
    return " ".join(f"{name}={size:.0f}" for name, size in shape.items() if name not in _LOAD)
