"""Makes the page that answers what DeepSeek R1's latency is, and what it depends on.

All figures are answers of a daemon that holds published kernels (``make run`` and ``make
reference``); the deployments beside them are read from the installed package of those.

    python docs/deepseek_r1.py [--address 127.0.0.1:50051] [--write-page]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks.common import page_heading
from evaluation.page import markdown
from reference.tables import deployments_file
from tokenpace.benchmark_files.deployments import PRESETS, merged
from tokenpace.benchmark_files.reading import read
from tokenpace.client import Client, predict_request
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenpace.benchmark_files.rows import BenchmarkRow
    from tokenpace.v1 import latency_pb2

    Answer = latency_pb2.PredictResponse

PAGE = Path(__file__).with_name("deepseek-r1.md")
PLOT = PAGE.with_suffix(".png")
TITLE = "What is the inference latency of DeepSeek R1, and what does it depend on?"
COMMAND = "python docs/deepseek_r1.py --write-page"
MODEL = "deepseek-r1"
BASE: dict[str, Any] = {
    "device": "h200-sxm",
    "engine": "vllm",
    "tensor": 8,
    "input_tokens": 1024,
    "output_tokens": 1024,
}
"""Eight H200, in the checkpoint's own FP8."""
BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (1_024, 8_192, 32_768, 131_072)
GROUPS = {
    "linear": "projections",
    "linear_per_tensor": "projections",
    "batched_linear": "projections",
    "mla": "latent attention",
    "attention": "attention",
    "static_attention": "attention",
    "paged_attention": "attention",
    "experts": "experts",
    "all_reduce": "communication",
    "all_to_all": "communication",
    "point_to_point": "communication",
    "layer_overhead": "norms and other small kernels",
    "embedding": "norms and other small kernels",
    "step_overhead": "the engine's step",
}
FOLKLORE_MS = (50.0, 100.0)
"""A token of a 7B, 13B or 70B model behind 512 tokens on an A100, as it is often told."""


@dataclass(frozen=True)
class Case:
    """A question with a name for the reader."""

    name: str
    asked: dict[str, Any]
    model: str = MODEL

    def request(self) -> latency_pb2.PredictRequest:
        """Returns the question as Predict takes it."""
        return predict_request(self.model, breakdown=True, **BASE | self.asked)


def answers(client: Client, cases: Sequence[Case]) -> list[Answer]:
    """Returns the answers in order.

    Raises:
        SystemExit: one was refused.
    """
    found = client.batch_predict([case.request() for case in cases]).results
    for case, result in zip(cases, found, strict=True):
        if result.HasField("error"):
            raise SystemExit(f"{case.name}: {result.error.message}")
    return [result.response for result in found]


def interval(estimate: types_pb2.Estimate, unit: str = "") -> str:
    """Returns a figure with its interval, to three digits."""
    value, lower, upper = (rounded(x) for x in (estimate.value, estimate.lower, estimate.upper))
    return f"{value}{unit} ({lower} to {upper})"


def rounded(value: float) -> str:
    """Returns three significant digits, without an exponent."""
    if value >= 99.95:
        digits = 3 - len(str(int(value)))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}"


def groups(answer: Answer, phase: types_pb2.Phase = types_pb2.PHASE_DECODE) -> dict[str, float]:
    """Returns a phase's milliseconds by group."""
    found: dict[str, float] = {}
    for cost in answer.breakdown:
        if cost.phase == phase:
            name = GROUPS.get(cost.kind, cost.kind)
            found[name] = found.get(name, 0.0) + cost.latency_ms
    return found


def communication(answer: Answer) -> str:
    """Returns what of a decode step is communication."""
    parts = groups(answer)
    ms = parts.get("communication", 0.0)
    return f"{rounded(ms)} ms ({ms / sum(parts.values()):.0%})"


def provenance(answer: Answer) -> str:
    """Returns where an answer's figures come from, in words."""
    name = types_pb2.Provenance.Name(answer.provenance).removeprefix("PROVENANCE_")
    return name.lower().replace("_", " ")


def fit_of(answer: Answer) -> str:
    """Returns the memory that the fullest GPU needs, of what it has."""
    memory = answer.memory
    text = f"{memory.total_bytes / 2**30:.0f} of {memory.capacity_bytes / 2**30:.0f} GiB"
    return text if memory.fits else f"**does not fit**: {text}"


def configurations(client: Client, cases: Sequence[Case], first: str) -> list[str]:
    """Returns a table with a line for each way to run the model."""
    head = (
        first,
        "GPUs",
        "ms a token, alone",
        "ms a token, batch 64",
        "tokens/s a GPU, batch 64",
        "communication, batch 64",
        "memory",
    )
    rows: list[list[str]] = []
    alone = answers(client, [Case(c.name, c.asked | {"batch_size": 1}) for c in cases])
    full = answers(client, [Case(c.name, c.asked | {"batch_size": 64}) for c in cases])
    for case, one, many in zip(cases, alone, full, strict=True):
        rows.append(
            [
                case.name,
                str(one.resolved.gpu_count),
                interval(one.tpot_ms),
                interval(many.tpot_ms),
                rounded(many.tokens_per_second_per_gpu.value),
                communication(many),
                fit_of(many),
            ]
        )
    return markdown(head, rows)


def gpus(client: Client) -> list[str]:
    """Returns the table of GPUs and precisions."""
    cases = [
        Case("8 H200, FP8", {}),
        Case("8 H100, FP8", {"device": "h100-sxm"}),
        Case("16 H100, FP8, tp 16", {"device": "h100-sxm", "tensor": 16}),
        Case("16 H100, FP8, tp 8 x pp 2", {"device": "h100-sxm", "pipeline": 2}),
        Case("16 A100, int8 weights, tp 16", a100(16, "int8-weight-only")),
        Case("8 A100, int4 weights, tp 8", a100(8, "int4")),
        Case("32 A100, bf16, tp 16 x pp 2", a100(16, "bf16") | {"pipeline": 2}),
    ]
    return configurations(client, cases, "GPU and precision")


def a100(tensor: int, precision: str) -> dict[str, Any]:
    """Returns what differs on A100, which has no FP8."""
    return {"device": "a100-sxm", "tensor": tensor, "precision": precision}


def precisions(client: Client) -> list[str]:
    """Returns the table of formats on one kind of GPU."""
    cases = [
        Case("FP8 in blocks, cache in bf16", {}),
        Case("FP8 in blocks, cache in FP8", {"kv_cache_precision": "fp8"}),
        Case("bf16, 16 GPUs", {"precision": "bf16", "tensor": 16}),
        Case("FP8 in blocks, 16 GPUs", {"tensor": 16}),
        Case("int4 weights", {"precision": "int4"}),
    ]
    return configurations(client, cases, "format on H200")


def parallelism(client: Client) -> list[str]:
    """Returns the table of ways to spread the model over 16 GPUs."""
    cases = [
        Case("tp 16", {"tensor": 16}),
        Case("tp 16, ep 16", {"tensor": 16, "expert": 16}),
        Case("tp 8 x pp 2", {"tensor": 8, "pipeline": 2}),
        Case("tp 8 x dp 2, ep 16", {"tensor": 8, "data": 2, "expert": 16}),
        Case("tp 2 x dp 8, ep 16", {"tensor": 2, "data": 8, "expert": 16}),
        Case("dp 16, ep 16", {"tensor": 1, "data": 16, "expert": 16}),
        Case(
            "dp 16, ep 16, the fullest expert rank 1.5 times the mean",
            {"tensor": 1, "data": 16, "expert": 16, "expert_imbalance": 1.5},
        ),
    ]
    return configurations(client, cases, "spread over 16 H200")


def batch_and_context(client: Client) -> tuple[list[str], dict[int, list[Answer]]]:
    """Returns the table of batches and contexts, and the answers by context."""
    found: dict[int, list[Answer]] = {}
    head = ("tokens of prompt", "TTFT, alone", *(f"batch {b}" for b in BATCHES))
    rows: list[list[str]] = []
    for context in CONTEXTS:
        cases = [
            Case(f"{context} x {batch}", {"input_tokens": context, "batch_size": batch})
            for batch in BATCHES
        ]
        found[context] = answers(client, cases)
        cells = [
            interval(answer.tpot_ms) if answer.memory.fits else "does not fit"
            for answer in found[context]
        ]
        rows.append([f"{context:,}", interval(found[context][0].ttft_ms, " ms"), *cells])
    return markdown(head, rows), found


def parts(client: Client) -> list[str]:
    """Returns the table of what a decode step is made of."""
    loads = [("alone", 1, 1024), ("batch 64", 64, 1024), ("batch 64, 32,768 tokens", 64, 32_768)]
    found = answers(
        client,
        [Case(name, {"batch_size": b, "input_tokens": n}) for name, b, n in loads],
    )
    shares = [groups(answer) for answer in found]
    names = sorted(set().union(*shares), key=lambda name: -shares[1].get(name, 0.0))
    head = ("part of a decode step", *(name for name, _, _ in loads))
    rows: list[list[str]] = []
    for name in names:
        cells = [
            f"{rounded(s.get(name, 0.0))} ms ({s.get(name, 0) / sum(s.values()):.0%})"
            for s in shares
        ]
        rows.append([name, *cells])
    return markdown(head, rows)


def measured_rows() -> list[BenchmarkRow]:
    """Returns published deployments of the model on H200, the oldest dump of each."""
    found = [
        row
        for row in merged(read(deployments_file()).rows)
        if row.device == "h200-sxm" and PRESETS.get(row.model) == MODEL
    ]
    return sorted(
        found,
        key=lambda r: (
            r.engine,
            r.engine_version,
            r.input_tokens or 0,
            r.output_tokens or 0,
            r.concurrency or 0,
        ),
    )


def asked_of(it: BenchmarkRow) -> dict[str, Any]:
    """Returns the question that a published deployment answers."""
    return {
        "device": it.device,
        "engine": it.engine,
        "tensor": it.tensor or 1,
        "data": it.data or 1,
        "expert": it.expert or 1,
        "input_tokens": it.input_tokens,
        "output_tokens": it.output_tokens,
        "concurrency": it.concurrency,
        "kv_cache_precision": it.kv_cache_precision or None,
    }


def beside_measured(client: Client) -> list[str]:
    """Returns the table of published deployments, and the error over all of them."""
    measured = measured_rows()
    found = answers(client, [Case(it.source, asked_of(it)) for it in measured])
    head = (
        "engine",
        "GPUs",
        "prompt + output",
        "in flight",
        "TTFT, ms",
        "predicted",
        "TPOT, ms",
        "predicted",
    )
    rows: list[list[str]] = []
    errors: dict[str, list[float]] = {"TTFT": [], "TPOT": []}
    inside = 0
    for it, answer in zip(measured, found, strict=True):
        assert it.ttft_ms and it.tpot_ms  # noqa: S101 - all of these rows have both
        errors["TTFT"].append(abs(answer.ttft_ms.value / it.ttft_ms - 1))
        errors["TPOT"].append(abs(answer.tpot_ms.value / it.tpot_ms - 1))
        inside += answer.tpot_ms.lower <= it.tpot_ms <= answer.tpot_ms.upper
        spread = f"tp {it.tensor}" if (it.data or 1) == 1 else f"dp {it.data}"
        if (it.expert or 1) > 1:
            spread += f", ep {it.expert}"
        rows.append(
            [
                f"{it.engine} {it.engine_version}".strip(),
                spread,
                f"{it.input_tokens:,} + {it.output_tokens:,}",
                str(it.concurrency),
                rounded(it.ttft_ms),
                interval(answer.ttft_ms),
                rounded(it.tpot_ms),
                interval(answer.tpot_ms),
            ]
        )
    told = ", ".join(f"{name} {100 * median(values):.0f}%" for name, values in errors.items())
    return [
        f"Median error over the {len(measured)} rows: {told};"
        f" {inside / len(measured):.0%} of the TPOT lie inside the 90% interval.",
        "",
        *markdown(head, rows),
    ]


def small_models(client: Client) -> tuple[list[str], list[Answer]]:
    """Returns the table of dense models at 512 tokens on A100, and the answers."""
    cases = [
        Case(
            f"{name}, {engine}, {gpus} A100",
            {
                "device": "a100-sxm",
                "engine": engine,
                "tensor": gpus,
                "input_tokens": 512,
                "output_tokens": 128,
                "precision": "bf16",
            },
            model,
        )
        for name, model, gpus in (
            ("7B", "llama-2-7b", 1),
            ("13B", "llama-2-13b", 1),
            ("70B", "llama-2-70b", 2),
            ("70B", "llama-2-70b", 8),
        )
        for engine in ("transformers", "vllm")
    ]
    found = answers(client, cases)
    head = ("model and engine", "ms a token", "TTFT, ms", "source")
    rows: list[list[str]] = []
    for case, answer in zip(cases, found, strict=True):
        rows.append(
            [
                case.name,
                interval(answer.tpot_ms),
                interval(answer.ttft_ms),
                provenance(answer),
            ]
        )
    return markdown(head, rows), found


def plot(found: dict[int, list[Answer]], path: Path) -> None:
    """Writes milliseconds a token and tokens a second against the batch."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    canvas, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for context, its in found.items():
        fits = [(b, a) for b, a in zip(BATCHES, its, strict=True) if a.memory.fits]
        batches = [b for b, _ in fits]
        values = [a.tpot_ms.value for _, a in fits]
        (line,) = left.plot(batches, values, marker="o", label=f"{context:,} tokens")
        left.fill_between(
            batches,
            [a.tpot_ms.lower for _, a in fits],
            [a.tpot_ms.upper for _, a in fits],
            color=line.get_color(),
            alpha=0.12,
        )
        right.plot(
            batches,
            [a.tokens_per_second_per_gpu.value for _, a in fits],
            marker="o",
            color=line.get_color(),
        )
    for axis, text in ((left, "milliseconds a token"), (right, "generated tokens/s a GPU")):
        axis.set(xscale="log", yscale="log", xlabel="sequences decoded together", ylabel=text)
        axis.set_xticks(BATCHES, [str(b) for b in BATCHES])
        axis.grid(alpha=0.3)
    left.legend(frameon=False, title="prompt")
    canvas.suptitle("DeepSeek R1 on eight H200 in FP8, with 90% intervals")
    canvas.savefig(path, dpi=100)
    plt.close(canvas)


def verdict(found: Iterable[Answer]) -> str:
    """Returns what the answers say of the folklore."""
    values = [answer.tpot_ms.value for answer in found]
    inside = sum(FOLKLORE_MS[0] <= value <= FOLKLORE_MS[1] for value in values)
    return (
        f"Of these {len(values)} ways {inside} lie between {FOLKLORE_MS[0]:.0f} and"
        f" {FOLKLORE_MS[1]:.0f} ms a token; they go from {rounded(min(values))} to"
        f" {rounded(max(values))}."
    )


def page(client: Client) -> str:
    """Returns the page, and writes its plot."""
    grid, found = batch_and_context(client)
    plot(found, PLOT)
    alone, crowd = found[1024][0], found[1024][3]
    dense, dense_found = small_models(client)
    return "\n".join(
        [
            page_heading(TITLE, COMMAND),
            f"**On eight H200, in the FP8 of its checkpoint, about"
            f" {interval(alone.tpot_ms, ' ms')} a token for one sequence of 1,024 tokens alone, and"
            f" {interval(crowd.tpot_ms, ' ms')} for each of 64 decoded together; the first token of"
            f" a prompt of 1,024 tokens comes after {interval(alone.ttft_ms, ' ms')}.** Engine"
            " vLLM; in brackets the 90% interval. Of 671 billion parameters a token meets 37"
            " billion: alone it reads no more than a dense model of that size, together with"
            " others it soon reads all experts, and the batch pays for that once.",
            "",
            f"Where these figures come from: {provenance(alone)}. How good such answers are is"
            " measured on [a page of its own](../benchmarks/accuracy/accuracy.md).",
            "",
            "## Batch and context",
            "",
            "Milliseconds a token on eight H200 (tp 8), by prompt length and batch; 1,024 tokens"
            " are generated.",
            "",
            *grid,
            "",
            f"![milliseconds a token against the batch]({PLOT.name})",
            "",
            "## What a token is made of",
            "",
            *parts(client),
            "",
            "## GPU and precision",
            "",
            "1,024 tokens of prompt and of output. A100 has no FP8 multipliers: weights are packed"
            " or bf16 there.",
            "",
            *gpus(client),
            "",
            *precisions(client),
            "",
            "## Parallelism, and what communication costs",
            "",
            *parallelism(client),
            "",
            "## Beside published measurements",
            "",
            "Deployments on H200 (aiconfigurator-core, Apache-2.0, `silicon_sample.csv`), each"
            " measurement once, labels corrected as `tokenpace/benchmark_files/deployments.py`"
            " says. The engines' coefficients were fitted on these rows among others; the error"
            " with R1 left out is on [the page of deployments](../benchmarks/accuracy/accuracy.md)."
            " TensorRT-LLM's faster rows get faster still with longer outputs, which no engine"
            " does that decodes one token a step: they probably speculate, though no label says"
            " so.",
            "",
            *beside_measured(client),
            "",
            "## Beside 7B, 13B and 70B at 512 tokens on an A100",
            "",
            "Often told: 50 to 100 ms a token.",
            "",
            *dense,
            "",
            verdict(dense_found),
            "",
        ]
    )


def main() -> None:
    """Asks the daemon, and writes what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:50051", help="of the daemon")
    parser.add_argument("--write-page", action="store_true", help="write the page and its plot")
    arguments = parser.parse_args()
    with Client(arguments.address, timeout=120) as client:
        text = page(client)
    print(text)
    if arguments.write_page:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
