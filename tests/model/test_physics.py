"""Whatever was measured, of whatever model: a device's bounds, and memory that only grows."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.analytical import AnalyticalCostModel
from model.composite import CompositeCostModel
from model.errors import InvalidFieldError
from model.estimate import Phase, Provenance, StepEstimate
from model.hardware import data_sheet
from model.inference import predict
from model.operations import COLLECTIVES
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

MODELS = (
    "llama-3.1-8b",
    "llama-3.1-70b",
    "qwen3-32b",
    "mixtral-8x7b",
    "qwen3-235b-a22b",
    "gpt-oss-120b",
    "deepseek-r1",
    "deepseek-v3.2",
    "kimi-k2.5",
    "qwen3.5-397b-a17b",
)
DEVICES = ("a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "l40s")
NO_KERNELS = {
    "embedding",
    "layer_overhead",
    "step_overhead",
    "request_overhead",
    "point_to_point",
    *(kind.value for kind in COLLECTIVES),
}


@dataclass
class Optimist:
    """Holds every kernel; each takes a nanosecond."""

    provenance: Provenance = Provenance.REFERENCE_DATA
    lender: str = ""
    disturbed: float = 0.0

    def supports(self, precision, engine):
        return False

    def prices(self, precision):
        return True

    def holds(self, kind, precision):
        return kind.value not in NO_KERNELS

    def engines_of(self, kind, precision):
        return ()

    def estimate_phases(self, parts, confidence, engine=""):
        return [self._step(operations) for operations, _ in parts]

    @staticmethod
    def _step(operations):
        each = tuple(1e-6 * o.count for o in operations)
        total = sum(each)
        return StepEstimate(
            value_ms=total, lower_ms=0.9 * total, upper_ms=1.1 * total, operations_ms=each
        )


@st.composite
def questions(draw):
    """What can be asked of a preset, with a tensor size that fits it."""
    architecture = preset(draw(st.sampled_from(MODELS)))
    precision = draw(st.sampled_from([Precision.BF16, Precision.FP8, Precision.INT4]))
    batch = draw(st.integers(1, 512))
    parallelism = Parallelism(tensor=draw(st.sampled_from([1, 2, 4, 8])))
    try:
        parallelism.check(architecture)
    except InvalidFieldError:
        parallelism = Parallelism()
    return Question(
        architecture=architecture,
        workload=Workload(
            input_tokens=draw(st.integers(1, 60_000)),
            output_tokens=draw(st.integers(0, 2_000)),
            **{draw(st.sampled_from(["batch_size", "concurrency"])): batch},
        ),
        parallelism=parallelism,
        precision=precision,
        kv_precision=draw(st.sampled_from([Precision.BF16, Precision.FP8])),
        engine=draw(st.sampled_from(["vllm", "sglang", "trtllm"])),
    )


def answer_of(question, device, fitted=None):
    composite = CompositeCostModel(
        fitted,
        AnalyticalCostModel(data_sheet(device), question.engine),
        question.precision,
        question.kv_precision,
        question.engine,
    )
    return predict(question, composite, with_breakdown=True)


@settings(max_examples=150, deadline=None)
@given(questions(), st.sampled_from(DEVICES), st.booleans())
def test_nothing_beyond_the_caches_beats_the_devices_bounds(question, device, measured):
    """Even where measurements tell of kernels that take no time."""
    sheet = data_sheet(device)
    answer = answer_of(question, device, Optimist() if measured else None)
    for row in answer.breakdown:
        beyond = row.bytes / row.count > 2 * sheet.last_level_cache_bytes
        if row.kind in NO_KERNELS or not beyond:
            continue
        # Of its fastest format, as rows do not tell theirs.
        fastest = max(
            row.bytes / sheet.bandwidth_bytes_per_second, row.flops / max(sheet.peaks.values())
        )
        assert row.latency_ms >= 1e3 * fastest * (1 - 1e-9), row
    assert answer.ttft_ms.lower <= answer.ttft_ms.value <= answer.ttft_ms.upper


def test_a_bound_takes_the_place_of_what_cannot_be():
    question = Question(
        architecture=preset("llama-3.1-70b"),
        workload=Workload(input_tokens=512, output_tokens=128),
        parallelism=Parallelism(tensor=2),
        precision=Precision.BF16,
        kv_precision=Precision.BF16,
        engine="vllm",
    )
    answer = answer_of(question, "h100-sxm", Optimist())
    rows = {row.name: row for row in answer.breakdown if row.phase is Phase.DECODE}
    sheet = data_sheet("h100-sxm")
    down = rows["down_proj"]
    bound_ms = 1e3 * down.bytes / sheet.bandwidth_bytes_per_second
    assert down.latency_ms == pytest.approx(bound_ms)
    (notice,) = [n for n in answer.notices if n.code == "BOUND_BY_DEVICE"]
    assert "down_proj" in notice.text
    assert "o_proj" not in notice.text
    # Attention over 640 tokens fits in a cache: what was measured stands.
    assert rows["attention"].latency_ms == pytest.approx(1e-6 * down.count)


@settings(max_examples=100, deadline=None)
@given(questions(), st.integers(1, 4_096), st.integers(1, 64))
def test_memory_never_shrinks_with_context_or_batch(question, tokens, sequences):
    workload = question.workload
    sizes = {
        "input_tokens": workload.input_tokens,
        "output_tokens": workload.output_tokens,
        "batch_size": max(1, workload.batch_size),
    }

    def memory(**changes):
        asked = Question(
            **{
                name: getattr(question, name)
                for name in Question.__dataclass_fields__
                if name != "workload"
            },
            workload=Workload(**sizes | changes),
        )
        found = answer_of(asked, "h200-sxm").memory
        return found.total_bytes, found.kv_cache_bytes

    base = memory()
    for more in (
        memory(input_tokens=sizes["input_tokens"] + tokens),
        memory(output_tokens=sizes["output_tokens"] + tokens),
        memory(batch_size=sizes["batch_size"] + sequences),
    ):
        assert all(after >= before for after, before in zip(more, base, strict=True))
