"""The options that more than one command has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokenpace.arguments import spellings
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from tokenpace.questions import Question

LARGEST_PAGE = 1000
"""Devices and presets are few: one page of this size holds them all."""
PRECISIONS = ", ".join(spellings(types_pb2.Precision, "PRECISION_"))

Model = Annotated[
    str, typer.Option(help="A preset, the path of a config.json, or a parameter count (7e9).")
]
Device = Annotated[str, typer.Option(help="Device to answer for; local when left out.")]
Engine = Annotated[str, typer.Option(help="Engine whose overheads count, such as transformers.")]
InputTokens = Annotated[int, typer.Option(help="Prompt length of each sequence (ISL).")]
OutputTokens = Annotated[int, typer.Option(help="Generated tokens (OSL); 0: the prefill alone.")]
BatchSize = Annotated[
    int, typer.Option(help="Sequences decoded together (static batching).", show_default="1")
]
Concurrency = Annotated[
    int, typer.Option(help="Requests in flight (continuous batching).", show_default=False)
]
CachedPrefix = Annotated[
    int, typer.Option(help="Prompt tokens that are cached already.", show_default=False)
]
PrefillChunk = Annotated[
    int, typer.Option(help="Prompt tokens in one step at the most.", show_default=False)
]
ExpertImbalance = Annotated[
    float,
    typer.Option(help="Load of the fullest expert-parallel rank over the mean.", show_default="1"),
]
Tp = Annotated[int, typer.Option("--tp", help="Tensor-parallel size.")]
Pp = Annotated[int, typer.Option("--pp", help="Pipeline-parallel size.")]
Dp = Annotated[int, typer.Option("--dp", help="Data-parallel size.")]
Ep = Annotated[int, typer.Option("--ep", help="Expert-parallel size.")]
PrecisionName = Annotated[
    str | None, typer.Option("--precision", help=f"Of weights and activations: {PRECISIONS}.")
]
KvPrecision = Annotated[
    str | None, typer.Option("--kv-cache-precision", help="Of the KV cache; else the activations'.")
]
Confidence = Annotated[
    float, typer.Option(help="Probability that the interval holds, 0.5 to 0.999.")
]
PageSize = Annotated[
    int, typer.Option(help="Entries in one answer, up to 1000.", show_default="50")
]
Page = Annotated[str, typer.Option("--page-token", help="Token of the page to show.")]


def question(
    *,
    input_tokens: int,
    output_tokens: int,
    batch_size: int,
    concurrency: int,
    cached_prefix_tokens: int,
    prefill_chunk_tokens: int,
    expert_imbalance: float,
    tp: int,
    pp: int,
    dp: int,
    ep: int,
    device: str,
    engine: str,
    precision: str | None,
    kv_cache_precision: str | None,
    confidence: float,
) -> Question:
    """Returns the client's keyword arguments for these options."""
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "batch_size": batch_size,
        "concurrency": concurrency,
        "cached_prefix_tokens": cached_prefix_tokens,
        "prefill_chunk_tokens": prefill_chunk_tokens,
        "expert_imbalance": expert_imbalance,
        "tensor": tp,
        "pipeline": pp,
        "data": dp,
        "expert": ep,
        "device": device,
        "engine": engine,
        "precision": precision,
        "kv_cache_precision": kv_cache_precision,
        "confidence": confidence,
    }
