"""Labels of aiconfigurator's ``silicon_sample.csv``, corrected where they are known to be wrong.

In the two dumps of April 2026 the parallel sizes of rows with expert parallelism are wrong:
the tensor (or attention data) parallel column is the product of the ranks and the
expert-parallel size, in vLLM's rows the expert column is that product and the attention
data column repeats the ranks. The same measurements stand in the dump of March under other
labels, and many rows' ids name the true sizes. Where no attention data parallel size is
told, the ranks of the experts tell it: Qwen3-235B's weights do not fit the single card that
its tensor-parallel size alone would leave.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files.rows import BenchmarkRow, long_queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COLUMNS = frozenset({"silicon_ttft_ms", "silicon_tpot_ms", "model_path", "system", "isl", "osl"})
"""By which such a file is known; the others may be missing."""
_WRONG_DUMPS = ("source_file=2026-04", "db-dump/2026-04")
PRESETS = {
    "deepseek-ai/DeepSeek-R1": "deepseek-r1",
    "deepseek-ai/DeepSeek-V3": "deepseek-r1",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2",
    "moonshotai/Kimi-K2.5": "kimi-k2.5",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-r1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-r1",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3.5-397B-A17B": "qwen3.5-397b-a17b",
    "zhipuai/GLM-5": "glm-5",
}
"""One architecture is one model: R1 is V3, re-quantised checkpoints are their base."""
_OWN = {
    ("deepseek-ai/DeepSeek-R1", "fp8"),
    ("deepseek-ai/DeepSeek-V3", "fp8"),
    ("MiniMaxAI/MiniMax-M2.5", "fp8"),
    ("moonshotai/Kimi-K2.5", "int4"),
    ("openai/gpt-oss-120b", "fp4"),
}
"""Labels that stand for the checkpoint's own format, in which routed experts may be packed alone
(gpt-oss is labelled nvfp4, which no engine runs on Hopper)."""
_PRECISIONS = {"": "model", "fp8": "fp8", "fp4": "fp4", "int4": "int4", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Degrees:
    """Parallel sizes as they were."""

    tensor: int
    data: int
    expert: int


def degrees_of(line: Mapping[str, str]) -> Degrees:
    """Returns the parallel sizes, corrected where the label is known to be wrong."""
    tensor, data, expert = (
        max(1, int(line.get(name) or 1)) for name in ("tp_size", "attention_dp_size", "moe_ep_size")
    )
    source = line.get("silicon_data_source", "")
    april = any(dump in source for dump in _WRONG_DUMPS)
    if april and expert > 1 and line.get("backend") == "vllm":
        data, expert = 1, tensor
    elif april and expert > 1:
        tensor, data = max(1, tensor // expert), max(1, data // expert)
    elif not line.get("attention_dp_size"):
        data = max(1, max(1, int(line.get("moe_tp_size") or 1)) * expert // tensor)
    if (tensor * data) % expert:
        expert = 1  # the column means nothing in a dense model
    return Degrees(tensor, data, expert)


def concurrency_of(line: Mapping[str, str]) -> int:
    """Returns the requests in flight; the batch size where no source tells them."""
    told = re.search(r"silicon_concurrency=(\d+)", line.get("silicon_data_source", ""))
    return int(told[1] if told else line["batch_size"])


def merged(rows: Iterable[BenchmarkRow]) -> list[BenchmarkRow]:
    """Returns the rows, each measurement once: dumps repeat it, under other labels at times."""
    found: dict[tuple[object, ...], BenchmarkRow] = {}
    for it in rows:
        model = PRESETS.get(it.model, it.model)
        load = (model, it.device, it.engine, it.input_tokens, it.output_tokens, it.concurrency)
        # Some dumps keep two decimals of what others keep in full.
        figures = tuple(f"{value or 0:.2f}" for value in (it.ttft_ms, it.tpot_ms))
        found.setdefault((*load, *figures), it)
    return list(found.values())


def row(line: Mapping[str, str], source: str) -> BenchmarkRow:
    """Returns one deployment under one load.

    Raises:
        ArgumentError: a value is missing or no number.
    """
    try:
        degrees = degrees_of(line)
        ttft, tpot = (float(line[f"silicon_{name}_ms"]) for name in ("ttft", "tpot"))
        return BenchmarkRow(
            source=source,
            model=line["model_path"],
            device=line["system"].replace("_", "-"),
            engine=line.get("backend", ""),
            engine_version=line.get("backend_version", ""),
            precision=_precision(line),
            kv_cache_precision=_cache_precision(line),
            tensor=degrees.tensor,
            pipeline=int(line.get("pp_size") or 1),
            expert=degrees.expert,
            data=degrees.data,
            input_tokens=int(line["isl"]),
            output_tokens=int(line["osl"]),
            concurrency=concurrency_of(line),
            ttft_ms=ttft or None,
            tpot_ms=tpot or None,
            suspicions=tuple(long_queue(ttft)),
        )
    except (KeyError, ValueError) as error:
        raise ArgumentError(source, f"cannot be read: {error}") from error


def _precision(line: Mapping[str, str]) -> str:
    name = line.get("precision", "")
    if (line["model_path"], name) in _OWN:
        return "model"
    model, modes = line["model_path"], (line.get("gemm_quant_mode"), line.get("moe_quant_mode"))
    # Qwen's own FP8 checkpoints are in blocks, whatever the label.
    in_blocks = "fp8_block" in modes or (model.startswith("Qwen/") and model.endswith("-FP8"))
    if name == "fp8" and in_blocks:
        return "fp8-block"
    return _PRECISIONS.get(name, name)


def _cache_precision(line: Mapping[str, str]) -> str:
    """Returns the KV cache's precision where it is not that of the activations.

    TensorRT-LLM keeps the cache of models in FP8 in FP8, as their checkpoints ask for
    (``kv_cache_quant_algo`` of ``hf_quant_config.json``); nothing in the file says so, but
    what a longer context adds to a token's time does: half of what bf16 takes.
    """
    return "fp8" if line.get("backend") == "trtllm" and line.get("precision") == "fp8" else ""
