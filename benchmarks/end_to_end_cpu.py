"""Predicted against measured latency of whole models on the CPU, none of which the campaign saw.

Starts the daemon with an empty data folder, lets it run a campaign, and asks it for
every case. Then the daemon ends, whole models are built from their Hugging Face
configurations with random weights, and real ``generate()`` runs are timed, one
repeat of every case in turn, so that a slow minute of the machine meets all alike.

    python benchmarks/end_to_end_cpu.py [--set main|others] [--budget 110] [--write-page]

Ends with code 1 where a figure is beyond its limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import ROOT, daemon, page_heading, profile

from tokenpace.client import Client

TPOT_LIMIT, TTFT_LIMIT = 0.08, 0.12
COVERED = 20 / 24
OUTPUT_TOKENS, REPEATS = 16, 5
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "main": {
        "SmolLM2-135M": {
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
        "Qwen2.5-0.5B": {
            "model_type": "qwen2",
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    },
    "others": {
        "SmolLM2-360M": {
            "model_type": "llama",
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
        "Qwen3-0.6B": {
            "model_type": "qwen3",
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        "TinyLlama-1.1B": {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "vocab_size": 32000,
            "tie_word_embeddings": False,
        },
        "GPT-2 medium": {
            "model_type": "gpt2",
            "n_embd": 1024,
            "n_layer": 24,
            "n_head": 16,
            "n_positions": 1024,
            "vocab_size": 50257,
        },
    },
}
GRIDS = {
    "main": [(batch, tokens) for batch in (1, 4) for tokens in (32, 128, 512)],
    "others": [(1, 64), (2, 32), (3, 16), (1, 256)],
}


@dataclass
class Case:
    """One model at one batch and prompt, with what was predicted and measured."""

    name: str
    batch: int
    prompt: int
    predicted: dict[str, tuple[float, float, float]]
    ttft_ms: list[float] = field(default_factory=list)
    tpot_ms: list[float] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Returns TTFT and TPOT."""
        return [
            Figure(self, "TTFT", statistics.median(self.ttft_ms), *self.predicted["ttft"]),
            Figure(self, "TPOT", statistics.median(self.tpot_ms), *self.predicted["tpot"]),
        ]


@dataclass
class Figure:
    """A measured median beside its prediction."""

    case: Case
    name: str
    measured: float
    predicted: float
    lower: float
    upper: float

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def covered(self) -> bool:
        """Whether the measured median lies in the interval."""
        return self.lower <= self.measured <= self.upper


def predict(which: str, budget: int) -> list[Case]:
    """Runs the campaign in a fresh daemon and asks it for every case."""
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        profile(Path(folder), budget)
        with daemon(Path(folder)) as running, Client(running.address) as client:
            for name, config in SHAPES[which].items():
                for batch, prompt in GRIDS[which]:
                    answer = client.predict(
                        config,
                        input_tokens=prompt,
                        output_tokens=OUTPUT_TOKENS,
                        batch_size=batch,
                    )
                    predicted = {
                        key: (e.value, e.lower, e.upper)
                        for key, e in (("ttft", answer.ttft_ms), ("tpot", answer.tpot_ms))
                    }
                    cases.append(Case(name, batch, prompt, predicted))
    return cases


def measure(which: str, cases: list[Case]) -> None:
    """Times real ``generate()`` runs of whole models."""
    import torch  # noqa: PLC0415 - nothing else may hold memory or threads during the campaign
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415
    from transformers.generation.stopping_criteria import (  # noqa: PLC0415
        StoppingCriteria,
        StoppingCriteriaList,
    )

    class Clock(StoppingCriteria):
        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, input_ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            self.times.append(time.perf_counter())
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    torch.manual_seed(0)
    models = {
        name: AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
        for name, config in SHAPES[which].items()
    }
    last_run = ""
    for repeat in range(REPEATS + 1):
        for case in cases:
            model = models[case.name]
            if case.name != last_run:
                # The first run after other models' finds its weights evicted or reclaimed.
                with torch.inference_mode():
                    model.generate(torch.ones((1, 32), dtype=torch.long), max_new_tokens=2)
                last_run = case.name
            ids = torch.randint(3, model.config.vocab_size, (case.batch, case.prompt))
            clock = Clock()
            begin = time.perf_counter()
            with torch.inference_mode():
                model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    min_new_tokens=OUTPUT_TOKENS,
                    max_new_tokens=OUTPUT_TOKENS,
                    pad_token_id=0,
                    stopping_criteria=StoppingCriteriaList([clock]),
                )
            if repeat:  # the first one warms up
                first, last = clock.times[0], clock.times[-1]
                case.ttft_ms.append((first - begin) * 1e3)
                case.tpot_ms.append((last - first) * 1e3 / (OUTPUT_TOKENS - 1))


def summary(figures: list[Figure]) -> tuple[list[str], bool]:
    """Returns a line for each promise, and whether all are kept."""
    lines, kept = [], True
    for name, limit in (("TPOT", TPOT_LIMIT), ("TTFT", TTFT_LIMIT)):
        errors = [abs(f.error) for f in figures if f.name == name]
        middle = statistics.median(errors)
        kept &= middle <= limit
        lines.append(
            f"{name}: median error {middle:.1%} (limit {limit:.0%}), largest {max(errors):.1%}"
        )
    covered = sum(f.covered for f in figures)
    kept &= covered >= COVERED * len(figures)
    lines.append(f"inside their 90% interval: {covered} of {len(figures)} (limit {COVERED:.0%})")
    return lines, kept


def table(figures: list[Figure]) -> str:
    """Returns all figures as a Markdown table."""
    rows = [
        "| model | batch | prompt | figure | measured ms | predicted ms | 90% interval | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for f in figures:
        mark = "" if f.covered else " (outside)"
        rows.append(
            f"| {f.case.name} | {f.case.batch} | {f.case.prompt} | {f.name} | {f.measured:.1f} |"
            f" {f.predicted:.1f} | {f.lower:.1f} to {f.upper:.1f}{mark} | {f.error:+.1%} |"
        )
    return "\n".join(rows)


def plot(figures: list[Figure], path: Path) -> None:
    """Draws predicted against measured, with intervals."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    chart, axes = plt.subplots(figsize=(6.4, 6.0), layout="constrained")
    low = 0.7 * min(f.measured for f in figures)
    high = 1.4 * max(f.measured for f in figures)
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
    for name, color, marker in (("TPOT", "#0072b2", "o"), ("TTFT", "#d55e00", "s")):
        chosen = [f for f in figures if f.name == name]
        axes.errorbar(
            [f.measured for f in chosen],
            [f.predicted for f in chosen],
            yerr=[
                [f.predicted - f.lower for f in chosen],
                [f.upper - f.predicted for f in chosen],
            ],
            fmt=marker,
            color=color,
            markersize=4,
            capsize=2,
            linewidth=0.8,
            label=f"{name} with its 90% interval",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(low, high),
        xlabel="measured median, ms",
        ylabel="predicted, ms",
        title="Whole models on the CPU, none seen by the campaign",
    )
    axes.legend(loc="upper left", frameon=False)
    chart.savefig(path, dpi=120)


def page(which: str, budget: int, figures: list[Figure], lines: list[str]) -> str:
    """Returns the dated page."""
    title = f"Whole models on the CPU: predicted against measured ({which})"
    command = f"python benchmarks/end_to_end_cpu.py --set {which} --budget {budget} --write-page"
    return "\n".join(
        [
            page_heading(title, command),
            f"In fp32. Campaign of {budget} s, predictions before any measurement of these models;",
            f"medians of {REPEATS} `generate()` runs of {OUTPUT_TOKENS} tokens, random weights.",
            "",
            *[f"- {line}" for line in lines],
            "",
            f"![predicted against measured](end_to_end_cpu_{which}.png)",
            "",
            table(figures),
            "",
        ]
    )


def main() -> int:
    """Runs the benchmark; returns 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=sorted(SHAPES), default="main")
    parser.add_argument("--budget", type=int, default=110, help="seconds of the campaign")
    parser.add_argument("--write-page", action="store_true", help="write benchmarks/*.md and .png")
    options = parser.parse_args()
    cases = predict(options.set, options.budget)
    measure(options.set, cases)
    figures = [figure for case in cases for figure in case.figures()]
    lines, kept = summary(figures)
    print(table(figures), *lines, sep="\n")
    if options.write_page:
        target = ROOT / "benchmarks" / f"end_to_end_cpu_{options.set}.md"
        target.write_text(page(options.set, options.budget, figures, lines))
        plot(figures, target.with_suffix(".png"))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
