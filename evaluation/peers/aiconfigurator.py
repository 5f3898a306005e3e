"""aiconfigurator's own prediction of a deployment, where its core package is installed.

Asked as its aggregated estimate asks: the batch of one attention-data-parallel rank, a prompt
in one step, the newest tables of the engine. What its tables lack for a question is asked
again in the checkpoint's own formats and with attention in bf16; what it refuses all the same
stays unanswered. The labels are those that ``tokenpace.benchmark_files.deployments`` corrects.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from reference.tables import DEVICES, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluation.rows import Row
    from model.steps import Question

CHECKPOINTS = {
    "deepseek-r1": "deepseek-ai/DeepSeek-R1",
    "glm-5": "zai-org/GLM-5",
    "gpt-oss-120b": "openai/gpt-oss-120b",
    "kimi-k2.5": "moonshotai/Kimi-K2.5",
    "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B",
    "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B",
    "minimax-m2": "MiniMaxAI/MiniMax-M2.5",
    "qwen3-235b-a22b": "Qwen/Qwen3-235B-A22B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "qwen3.5-397b-a17b": "Qwen/Qwen3.5-397B-A17B",
}
"""Configurations that the package brings, by the name of our preset: none is downloaded."""
STATED = {"TPOT": (30.0, 13.0, 70.0), "TTFT": (51.0, 45.0, 89.0)}
"""Errors (MAPE / median / 90th percentile in %) that were stated of release 0.12 when this project
set its aims, on the 91 to 96% of the rows that it answered; how it was asked is not told."""
_MODES = {
    "bf16": "bfloat16",
    "fp8": "fp8",
    "fp8-block": "fp8_block",
    "fp4": "nvfp4_wo",
    "int4": "int4_wo",
}
_OWN, _PLAIN = "", "bfloat16"
_VERSION = "current"


class Formats(NamedTuple):
    """Names of formats as the package spells them; empty: the checkpoint's own."""

    weights: str
    cache: str
    attention: str


def formats_of(question: Question) -> list[Formats]:
    """Returns the formats to ask for, the question's own first."""
    weights = _OWN if question.stored_experts else _MODES.get(question.precision.value, _OWN)
    cache = "fp8" if question.kv_precision.value == "fp8" else _PLAIN
    return list(
        dict.fromkeys(
            Formats(*asked)
            for wanted in (weights, _OWN)
            for asked in ((wanted, cache, _OWN), (wanted, _PLAIN, _PLAIN))
        )
    )


def deployments_ms(
    rows: Sequence[Row], say: Callable[[str], None]
) -> tuple[Mapping[int, Mapping[str, float]], Mapping[str, int]]:
    """Returns TTFT and TPOT of each row that it answers, and why it does not the others.

    Args:
        rows: deployments.
        say: is told when all are asked.

    Returns:
        Milliseconds by the row's place, and how many rows each reason (the first words of the
        package's error for the question's own formats) left without an answer.
    """
    found: dict[int, Mapping[str, float]] = {}
    reasons: dict[str, int] = {}
    with _quiet():
        try:
            estimator = Estimator()
        except ImportError as error:
            return found, {f"its estimator cannot be loaded: {error}": len(rows)}
        for index, row in enumerate(rows):
            try:
                found[index] = estimator.predict(row)
            except UnansweredError as error:
                reason = f"{row.model} on {row.engine}: {error}"
                reasons[reason] = reasons.get(reason, 0) + 1
    say(f"asked aiconfigurator for {len(rows)} rows")
    return found, reasons


class UnansweredError(Exception):
    """The package refuses a question; the text says why."""


class Estimator:
    """The package's estimator, its tables loaded once.

    Raises:
        ImportError: the package is missing, or is another release.
    """

    def __init__(self) -> None:
        # By name: the package is for some platforms alone.
        self._sdk = {
            name: importlib.import_module(f"{PACKAGE}.sdk.{name}")
            for name in ("backends.factory", "config", "config_builders", "models", "perf_database")
        }
        self._tables: dict[tuple[str, str], object] = {}

    def predict(self, row: Row) -> dict[str, float]:
        """Returns milliseconds of "TTFT" and "TPOT".

        Raises:
            UnansweredError: no format's tables hold what the row needs.
        """
        if row.model not in CHECKPOINTS:
            raise UnansweredError("no configuration in the package")
        refusals: list[Exception] = []
        for formats in formats_of(row.question):
            try:
                return self._estimate(row, formats)
            # The package has no one base of its errors: any of them is a refusal.
            except Exception as error:
                refusals.append(error)
        raise UnansweredError(str(refusals[0]).partition(" at ")[0][:80]) from refusals[0]

    def _estimate(self, row: Row, formats: Formats) -> dict[str, float]:
        workload, parallelism = row.question.workload, row.question.parallelism
        config = self._sdk["config_builders"].build_model_config(
            parallelism.tensor,
            parallelism.pipeline,
            parallelism.data,
            parallelism.tensor * parallelism.data // parallelism.expert,
            parallelism.expert,
            gemm_quant_mode=formats.weights or None,
            moe_quant_mode=formats.weights or None,
            kvcache_quant_mode=formats.cache or None,
            fmha_quant_mode=formats.attention or None,
        )
        model = self._sdk["models"].get_model(CHECKPOINTS[row.model], config, row.engine)
        runtime = self._sdk["config"].RuntimeConfig(
            batch_size=-(-workload.concurrency // parallelism.data),
            isl=workload.input_tokens,
            osl=workload.output_tokens,
        )
        summary = (
            self._sdk["backends.factory"]
            .get_backend(row.engine)
            .run_agg(model, self._database(row), runtime, ctx_tokens=workload.input_tokens)
        )
        line = summary.get_summary_df().iloc[0]
        return {"TTFT": float(line["ttft"]), "TPOT": float(line["tpot"])}

    def _database(self, row: Row) -> object:
        key = DEVICES[row.device], row.engine
        if key not in self._tables:
            self._tables[key] = self._sdk["perf_database"].get_database_view(*key, _VERSION)
        return self._tables[key]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the package logs of each refused question off standard error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
