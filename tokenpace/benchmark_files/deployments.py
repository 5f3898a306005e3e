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
    from collections.abc import Mapping

COLUMNS = frozenset({"silicon_ttft_ms", "silicon_tpot_ms", "model_path", "system", "isl", "osl"})
"""By which such a file is known; the others may be missing."""
_WRONG_DUMPS = ("source_file=2026-04", "db-dump/2026-04")
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
    if name == "fp8" and line.get("gemm_quant_mode") == "fp8_block":
        return "fp8-block"
    return _PRECISIONS.get(name, name)
