"""Composition: static and continuous batching, chunks, pipelines, intervals, notices."""

import math
import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.analytical import AnalyticalCostModel, generic_cpu
from model.composite import CompositeCostModel
from model.dimensions import architecture_of_dimensions
from model.engines import engine, engine_names, shares_kernels
from model.estimate import Phase, Provenance, StepEstimate
from model.hardware import data_sheet
from model.inference import predict
from model.operations import COLLECTIVES, OperationKind
from model.precision import Precision
from model.presets import preset
from model.steps import Question, StepPlanner, chunk_count
from model.workload import Parallelism, Workload


def ask(
    workload,
    model="llama-3.1-8b",
    device="h100-sxm",
    engine="vllm",
    precision=Precision.BF16,
    kv_precision=None,
    confidence=0.9,
    fitted=None,
    breakdown=False,
    **degrees,
):
    sheet = data_sheet(device)
    question = Question(
        architecture=preset(model) if isinstance(model, str) else model,
        workload=workload,
        parallelism=Parallelism(**degrees),
        precision=precision,
        kv_precision=kv_precision or precision.activation,
        engine=engine,
        confidence=confidence,
    )
    model = CompositeCostModel(
        fitted,
        AnalyticalCostModel(sheet if sheet.kind == "cuda" else generic_cpu(sheet, 2), engine),
        question.precision,
        question.kv_precision,
        engine,
    )
    return predict(question, model, with_breakdown=breakdown)


def work(**sizes):
    return Workload(**({"input_tokens": 512, "output_tokens": 128} | sizes))


def codes(answer):
    return {notice.code for notice in answer.notices}


@dataclass
class Fitted:
    """Holds bf16 and one engine; every run of an operation takes 1 ms."""

    engine: str = "transformers"
    outside: tuple[str, ...] = ()
    provenance: Provenance = Provenance.MEASURED_LOCALLY
    lender: str = ""
    disturbed: float = 0.0

    def leans(self, kind, precision):
        return kind is OperationKind.ATTENTION

    def engines_of(self, kind, precision):
        return ()

    def supports(self, precision, engine):
        return precision is Precision.BF16 and engine == self.engine

    def prices(self, precision):
        return precision is Precision.BF16

    def holds(self, kind, precision):
        never = {"experts", "mla", "batched_linear", *COLLECTIVES}
        return precision is Precision.BF16 and kind not in never

    def estimate_phases(self, parts, confidence, engine=""):
        return [self.estimate(*part, confidence, engine) for part in parts]

    def estimate(self, operations, phase, confidence, engine=""):
        assert not [o for o in operations if not self.holds(o.kind, Precision.BF16)]
        times = tuple(float(o.count) for o in operations)
        total = sum(times)
        return StepEstimate(
            value_ms=total,
            lower_ms=0.9 * total,
            upper_ms=1.1 * total,
            operations_ms=times,
            outside=self.outside,
        )


class WithRanks(Fitted):
    """Holds what ranks exchange, too."""

    def holds(self, kind, precision):
        return kind in COLLECTIVES or super().holds(kind, precision)


class Uneven(Fitted):
    """Errs by some per cent, one way in prefills and the other in decode steps."""

    def __init__(self, error):
        super().__init__(engine="vllm")
        self._factors = {Phase.PREFILL: 1 + error, Phase.DECODE: 1 - error}
        self._true = AnalyticalCostModel(data_sheet("h100-sxm"), "vllm")

    def estimate(self, operations, phase, confidence, engine=""):
        step, factor = self._true.estimate(operations, phase, confidence), self._factors[phase]
        return step._replace(
            value_ms=step.value_ms * factor,
            lower_ms=step.lower_ms * factor,
            upper_ms=step.upper_ms * factor,
            operations_ms=tuple(ms * factor for ms in step.operations_ms),
        )


def test_prompts_of_idle_replicas_meet_no_experts():
    ttfts = [
        ask(work(batch_size=n), model="deepseek-r1", device="h200-sxm", data=8, expert=8).ttft_ms
        for n in (1, 4, 8)
    ]
    first, some, all_busy = (found.value for found in ttfts)
    assert first < some < all_busy
    assert all_busy > 1.3 * first


# --- static batching ----------------------------------------------------------


def test_a_request_takes_ttft_and_a_tpot_for_each_further_token():
    answer = ask(work())
    for part in range(3):
        assert answer.request_latency_ms[part] == pytest.approx(
            answer.ttft_ms[part] + 127 * answer.tpot_ms[part]
        )


def test_throughput_is_generated_tokens_over_wall_time_and_devices():
    answer = ask(work(batch_size=16), tensor=2, data=2)
    assert answer.tokens_per_second.value == pytest.approx(
        16 * 128 / (answer.request_latency_ms.value / 1e3)
    )
    assert answer.tokens_per_second_per_gpu.value == pytest.approx(
        answer.tokens_per_second.value / 4
    )


def test_prefill_alone_has_no_tpot_and_no_throughput():
    answer = ask(work(output_tokens=0))
    assert answer.tpot_ms is None
    assert answer.tokens_per_second is None
    assert answer.tokens_per_second_per_gpu is None
    assert answer.request_latency_ms == answer.ttft_ms


def test_a_single_token_has_throughput_and_no_tpot():
    answer = ask(work(output_tokens=1))
    assert answer.tpot_ms is None
    assert answer.tokens_per_second.value == pytest.approx(1e3 / answer.ttft_ms.value)


def test_tpot_is_the_decode_step_at_the_mean_context():
    short, long = ask(work(output_tokens=2048)), ask(work(input_tokens=1472, output_tokens=128))
    assert short.tpot_ms == long.tpot_ms  # 512 + 1024 = 1472 + 64


def test_the_fullest_replica_counts():
    assert ask(work(batch_size=9), data=4).tpot_ms == ask(work(batch_size=3)).tpot_ms


def test_a_cached_prefix_is_not_prefilled_again():
    whole, cached = (
        ask(work(input_tokens=4096)),
        ask(work(input_tokens=4096, cached_prefix_tokens=4000)),
    )
    request = 1e3 * engine("vllm").request_s
    assert cached.ttft_ms.value - request < (whole.ttft_ms.value - request) / 5
    assert cached.tpot_ms == whole.tpot_ms
    assert cached.memory.kv_cache_bytes == whole.memory.kv_cache_bytes


def test_chunks_cost_more_than_the_whole_and_about_as_much():
    whole = ask(work(input_tokens=8192))
    chunked = ask(work(input_tokens=8192, prefill_chunk_tokens=1024))
    assert whole.ttft_ms.value < chunked.ttft_ms.value < 1.5 * whole.ttft_ms.value


def test_a_chunk_as_long_as_the_prompt_changes_nothing():
    assert ask(work(prefill_chunk_tokens=512)).ttft_ms == ask(work()).ttft_ms


def test_chunks_count_every_token_and_every_visible_key_once():
    """Sampled chunks stand for their neighbours: FLOPs are those of the whole prompt."""

    def flops(chunk):
        answer = ask(work(input_tokens=10_000, prefill_chunk_tokens=chunk), breakdown=True)
        rows = [row for row in answer.breakdown if row.phase is Phase.PREFILL]
        return (
            sum(row.flops for row in rows if row.name == "attention"),
            sum(row.flops for row in rows if row.name == "down_proj"),
        )

    whole, chunked = flops(0), flops(100)
    assert chunked[0] == pytest.approx(whole[0], rel=0.01)
    assert chunked[1] == whole[1]


def test_a_step_takes_as_many_whole_prompts_as_its_tokens_allow():
    two_by_two = ask(work(batch_size=4, prefill_chunk_tokens=1024), breakdown=True)
    (row,) = [r for r in two_by_two.breakdown if r.name == "down_proj" and r.phase == "prefill"]
    assert row.count == 2 * 32


def test_chunk_count_rounds_up():
    assert chunk_count(work(input_tokens=100, prefill_chunk_tokens=30)) == 4
    assert chunk_count(work(input_tokens=100, cached_prefix_tokens=50)) == 1


@pytest.mark.parametrize("input_tokens", [16_777_216])
def test_millions_of_chunks_are_priced_at_once(input_tokens):
    answer = ask(work(input_tokens=input_tokens, prefill_chunk_tokens=1))
    assert math.isfinite(answer.ttft_ms.value)


# --- pipelines ----------------------------------------------------------------


def test_microbatches_keep_all_stages_busy():
    one = ask(work(batch_size=8), "llama-3.1-70b")
    four = ask(work(batch_size=32), "llama-3.1-70b", pipeline=4)
    # Each group of 8 passes four stages in about the time of one device.
    assert four.tpot_ms.value == pytest.approx(one.tpot_ms.value, rel=0.05)


def test_engines_without_microbatches_send_the_batch_through_stage_by_stage():
    one = ask(work(batch_size=8), engine="transformers")
    four = ask(work(batch_size=8), engine="transformers", pipeline=4)
    assert one.tpot_ms.value < four.tpot_ms.value < 1.05 * one.tpot_ms.value


def test_prefill_groups_overlap():
    alone, piped = (
        ask(work(input_tokens=4096, batch_size=8), "llama-3.1-70b", pipeline=p) for p in (1, 8)
    )
    # Eight groups over eight stages: (8 + 7) / 8 of one group's pass.
    assert piped.ttft_ms.value == pytest.approx(alone.ttft_ms.value * 15 / 64, rel=0.1)


# --- continuous batching ------------------------------------------------------


def test_one_request_in_flight_is_a_static_batch_of_one():
    static, alone = ask(work()), ask(work(concurrency=1))
    assert alone.ttft_ms == static.ttft_ms
    assert alone.tpot_ms == static.tpot_ms


def test_work_is_conserved_in_the_closed_loop():
    """A cycle of R requests is R prefills and the decode steps, and half a step of waiting."""
    running = 32
    answer = ask(work(concurrency=running), engine="torch")
    request = 1e3 * engine("torch").request_s
    prefill = ask(work(), engine="torch").ttft_ms.value - request
    decode = ask(work(batch_size=running), engine="torch").tpot_ms.value
    cycle = running * prefill + 127 * decode + request
    assert answer.request_latency_ms.value == pytest.approx(cycle + decode / 2)
    assert answer.tpot_ms.value == pytest.approx(decode + 31 / 128 * prefill)


def test_prefill_alone_waits_for_all_the_others():
    answer = ask(work(output_tokens=0, concurrency=10), engine="torch")
    request = 1e3 * engine("torch").request_s
    alone = ask(work(), engine="torch").ttft_ms.value - request
    assert answer.ttft_ms.value == pytest.approx(request + 10 * alone)


def test_requests_that_join_and_leave_fill_the_cache_by_their_mean_length():
    sizes = {"input_tokens": 1000, "output_tokens": 3000}
    static = ask(work(batch_size=8, **sizes)).memory.kv_cache_bytes
    continuous = ask(work(concurrency=8, **sizes)).memory.kv_cache_bytes
    assert static / 4000 == continuous / 2500


def test_a_load_widens_the_interval_of_ttft_more_with_more_confidence():
    def width(estimate):
        return estimate.upper / estimate.lower

    alone, loaded = (ask(work(concurrency=n)) for n in (1, 16))
    assert width(loaded.ttft_ms) == pytest.approx(1.6**2 * width(alone.ttft_ms))
    assert width(loaded.tpot_ms) == pytest.approx(width(alone.tpot_ms))
    surer = ask(work(concurrency=16), confidence=0.99)
    assert width(surer.ttft_ms) > width(loaded.ttft_ms)


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_no_more_prefill_hides_behind_decodes_than_they_last(name):
    for output_tokens in (2, 8, 1024):
        loop = ask(work(concurrency=64, output_tokens=output_tokens), engine=name)
        prefill = ask(work(), engine=name).ttft_ms.value - 1e3 * engine(name).request_s
        decode = ask(work(batch_size=64), engine=name).tpot_ms.value
        hidden = 63 / output_tokens * prefill - (loop.tpot_ms.value - decode)
        assert hidden <= 1.05 * decode


def test_chunks_shorten_the_gap_between_tokens_and_lengthen_ttft():
    whole = ask(work(input_tokens=8192, concurrency=16))
    chunked = ask(work(input_tokens=8192, concurrency=16, prefill_chunk_tokens=512))
    assert chunked.ttft_ms.value > whole.ttft_ms.value
    assert chunked.tpot_ms.value < 1.5 * whole.tpot_ms.value


def test_a_batch_cap_below_the_load_is_saturated_and_the_wait_is_in_ttft():
    within, beyond = ask(work(concurrency=8, batch_size=8)), ask(work(concurrency=64, batch_size=8))
    assert "SATURATED" not in codes(within)
    assert "SATURATED" in codes(beyond)
    assert beyond.tpot_ms == within.tpot_ms
    assert beyond.request_latency_ms.value == pytest.approx(8 * within.request_latency_ms.value)
    assert beyond.ttft_ms.value > 7 * within.request_latency_ms.value
    assert beyond.tokens_per_second.value == pytest.approx(within.tokens_per_second.value)


def test_a_load_that_memory_has_no_room_for_is_saturated_and_what_runs_fits():
    answer = ask(work(input_tokens=8192, concurrency=1024))
    assert "SATURATED" in codes(answer)
    assert "DOES_NOT_FIT" not in codes(answer)
    assert answer.memory.fits
    (text,) = (notice.text for notice in answer.notices if notice.code == "SATURATED")
    running = int(re.search(r"lets (\d+) run together", text)[1])
    most = ask(work(input_tokens=8192, concurrency=running))
    assert not codes(most) & {"SATURATED", "DOES_NOT_FIT"}
    assert most.memory == answer.memory
    assert most.tpot_ms == answer.tpot_ms
    assert answer.tokens_per_second.value == pytest.approx(most.tokens_per_second.value)
    assert "SATURATED" in codes(ask(work(input_tokens=8192, concurrency=running + 1)))


@pytest.mark.parametrize(
    ("model", "tokens", "why"),
    [
        ("llama-3.1-405b", 512, "too few for the weights"),
        ("llama-3.1-8b", 4_000_000, "too few for one sequence"),
    ],
)
def test_where_not_even_one_request_fits_that_alone_is_said(model, tokens, why):
    alone, many = (ask(work(input_tokens=tokens, concurrency=n), model) for n in (1, 64))
    for answer in (alone, many):
        assert answer.memory.fits is False
        assert "SATURATED" not in codes(answer)
        (text,) = (notice.text for notice in answer.notices if notice.code == "DOES_NOT_FIT")
        assert why in text
        assert "of one request at a time" in text
    assert many.memory == alone.memory
    # No comfortable number: the others wait.
    assert many.request_latency_ms.value == pytest.approx(64 * alone.request_latency_ms.value)


def test_an_engine_that_batches_statically_says_so():
    assert "CONTINUOUS_BATCHING_ASSUMED" in codes(ask(work(concurrency=4), engine="transformers"))
    assert "CONTINUOUS_BATCHING_ASSUMED" not in codes(ask(work(concurrency=4), engine="vllm"))


# --- notices, memory, provenance ----------------------------------------------


def test_a_model_that_does_not_fit_is_an_answer():
    answer = ask(work(), "llama-3.1-405b")
    assert answer.memory.fits is False
    assert "DOES_NOT_FIT" in codes(answer)
    assert "DOES_NOT_FIT" not in codes(ask(work()))


def test_an_unknown_capacity_is_no_complaint():
    answer = ask(work(), device="cpu", precision=Precision.FP32)
    assert answer.memory.fits is None
    assert "DOES_NOT_FIT" not in codes(answer)


def test_a_precision_that_the_device_lacks_is_marked():
    assert "PRECISION_SUBSTITUTED" in codes(ask(work(), device="a100-sxm", precision=Precision.FP8))
    assert "PRECISION_SUBSTITUTED" not in codes(ask(work(), precision=Precision.FP8))
    assert "PRECISION_SUBSTITUTED" not in codes(
        ask(work(), device="a100-sxm", precision=Precision.INT4)
    )


def test_tokens_beyond_learned_positions_are_marked():
    assert "BEYOND_LEARNED_POSITIONS" in codes(ask(work(input_tokens=1000), "gpt2"))
    assert "BEYOND_LEARNED_POSITIONS" not in codes(ask(work(input_tokens=800), "gpt2"))


def test_what_links_the_ranks_is_marked_where_it_is_assumed():
    cpu = ask(work(), "smollm2-135m", device="cpu", precision=Precision.FP32, tensor=3)
    assert "LINK_ASSUMED" in codes(cpu)
    assert "LINK_ASSUMED" not in codes(ask(work(), tensor=8))
    # Where messages between ranks were measured nothing is assumed of a link.
    on_cpu = {"device": "cpu", "engine": "transformers", "model": "smollm2-135m", "tensor": 3}
    assert "LINK_ASSUMED" in codes(ask(work(), fitted=Fitted(), **on_cpu))
    assert "LINK_ASSUMED" not in codes(ask(work(), fitted=WithRanks(), **on_cpu))
    assert "NETWORK_ASSUMED" in codes(ask(work(), tensor=16))
    assert "NETWORK_ASSUMED" not in codes(ask(work(), tensor=8))


def test_without_measurements_the_answer_is_analytical_and_wide():
    answer = ask(work())
    assert answer.provenance is Provenance.ANALYTICAL
    assert {"NO_MEASUREMENTS", "ENGINE_FITTED_ELSEWHERE"} <= codes(answer)
    for figure in (answer.ttft_ms, answer.tpot_ms, answer.tokens_per_second):
        assert figure.upper / figure.value == pytest.approx(2.0)
        assert figure.value / figure.lower == pytest.approx(2.0)


def test_a_fitted_cost_model_prices_all_that_it_holds():
    answer = ask(work(), engine="transformers", fitted=Fitted())
    assert answer.provenance is Provenance.MEASURED_LOCALLY
    assert codes(answer) == set()
    # 7 projections, attention and overhead in each of 32 layers, embedding, head and step overhead.
    assert answer.tpot_ms.value == 32 * 9 + 3
    assert answer.ttft_ms.value == 32 * 9 + 4  # and the request's
    assert answer.tpot_ms.upper == pytest.approx(1.1 * answer.tpot_ms.value)


def test_kernels_carry_over_to_an_engine_whose_overheads_are_unknown():
    answer = ask(work(), engine="vllm", fitted=Fitted(), breakdown=True)
    assert codes(answer) == {"ENGINE_FITTED_ELSEWHERE"}
    assert answer.provenance is Provenance.ANALYTICAL
    rows = {row.name: row.latency_ms for row in answer.breakdown if row.phase is Phase.DECODE}
    assert rows["qkv_proj"] == 32
    assert rows["layer_overhead"] < 32
    assert rows["step_overhead"] == pytest.approx(1e3 * engine("vllm").step_s, rel=0.1)


def test_published_kernels_stand_beside_the_engines_coefficients_for_them():
    """Steps were not measured: the interval is that of deployments, not of kernels."""
    fitted = Fitted(provenance=Provenance.REFERENCE_DATA)
    answer = ask(work(), engine="vllm", fitted=fitted, breakdown=True)
    assert answer.provenance is Provenance.REFERENCE_DATA
    rows = {row.name: row.latency_ms for row in answer.breakdown if row.phase is Phase.DECODE}
    beside = engine("vllm").with_measured_kernels()
    assert rows["step_overhead"] == pytest.approx(1e3 * beside.step_s, rel=0.1)
    assert beside.step_s < engine("vllm").step_s
    assert beside.with_measured_kernels() == beside
    for figure in (answer.ttft_ms, answer.tpot_ms):
        assert figure.upper == pytest.approx(beside.spread * figure.value)
        assert figure.lower == pytest.approx(figure.value / beside.spread)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_what_a_request_costs_the_host_holds_up_no_other_request(name, monkeypatch):
    quick = ask(work(concurrency=32), engine=name)
    slow = replace(engine(name), request_s=engine(name).request_s + 1.0)
    monkeypatch.setattr("model.analytical.engine_of", lambda _: slow)
    answer = ask(work(concurrency=32), engine=name)
    assert answer.ttft_ms.value == pytest.approx(quick.ttft_ms.value + 1e3)
    assert answer.tpot_ms.value == pytest.approx(quick.tpot_ms.value)


def test_a_precision_that_was_not_measured_is_priced_by_physics():
    answer = ask(work(), engine="transformers", precision=Precision.FP16, fitted=Fitted())
    assert {"PRECISION_NOT_MEASURED", "ENGINE_NOT_FITTED"} <= codes(answer)
    assert answer.provenance is Provenance.ANALYTICAL
    assert answer.tpot_ms == ask(work(), engine="transformers", precision=Precision.FP16).tpot_ms


@pytest.mark.parametrize("tokens", [20, 1000])
def test_small_errors_of_steps_are_no_large_ones_under_load(tokens):
    asked = work(input_tokens=tokens, output_tokens=8, concurrency=256, prefill_chunk_tokens=8192)
    low, exact, high = (
        ask(asked, engine="vllm", fitted=Uneven(error)).tpot_ms.value for error in (-0.03, 0, 0.03)
    )
    # A difference of the steps alone, times the prompts that come in one's time, errs by half.
    assert max(low, high) < 1.25 * exact
    assert min(low, high) > 0.8 * exact


def test_an_answer_says_that_others_slowed_down_what_it_rests_on():
    quiet, busy = (
        {n.code: n.text for n in ask(work(), engine="transformers", fitted=it).notices}
        for it in (Fitted(disturbed=0.1), Fitted(disturbed=0.34))
    )
    assert "MEASURED_UNDER_LOAD" not in quiet
    assert "slowed down 34%" in busy["MEASURED_UNDER_LOAD"]


def test_an_answer_says_whose_measurements_its_kernels_lean_on():
    leaning = ask(work(), engine="transformers", fitted=Fitted(lender="h100-sxm"))
    text = {n.code: n.text for n in leaning.notices}["KERNELS_LEAN_ON_OTHERS"]
    assert "few points like attention were measured" in text
    assert "on h100-sxm" in text
    assert "KERNELS_LEAN_ON_OTHERS" not in codes(
        ask(work(), engine="transformers", fitted=Fitted())
    )


def test_an_answer_says_whose_kernels_stand_in_for_an_engines():
    class Mixed(Fitted):
        def engines_of(self, kind, precision):
            return ("sglang", "trtllm") if kind is OperationKind.LINEAR else ("vllm",)

    answer = ask(work(), engine="vllm", fitted=Mixed())
    text = {n.code: n.text for n in answer.notices}["KERNELS_OF_OTHER_ENGINES"]
    assert "linear in bf16 (sglang and trtllm);" in text
    assert "attention" not in text
    assert "KERNELS_OF_OTHER_ENGINES" not in codes(ask(work(), engine="vllm", fitted=Fitted()))


@pytest.mark.parametrize(
    ("asked", "measured", "shared"),
    [
        ("vllm", "vllm", True),
        ("vllm", "sglang", False),
        ("vllm", "nccl", True),
        ("sglang", "flashinfer", True),
        ("torch", "transformers", True),
        ("vllm", "torch", False),
    ],
)
def test_engines_share_kernels_of_a_library_and_of_torch(asked, measured, shared):
    assert shares_kernels(asked, measured) is shared


def test_a_kv_cache_in_another_format_is_priced_by_physics_alone():
    answer = ask(
        work(),
        engine="transformers",
        kv_precision=Precision.FP8,
        fitted=Fitted(),
        breakdown=True,
    )
    rows = {row.name: row.latency_ms for row in answer.breakdown if row.phase is Phase.DECODE}
    assert rows["attention"] < 32
    assert rows["q_proj"] == 32
    assert answer.provenance is Provenance.ANALYTICAL


def test_collectives_are_never_asked_of_a_fitted_cost_model():
    answer = ask(work(), engine="transformers", fitted=Fitted(), tensor=2, pipeline=2)
    assert "COMMUNICATION_NOT_MEASURED" in codes(answer)
    assert answer.provenance is Provenance.ANALYTICAL
    assert answer.tpot_ms.value > 32 * 9 + 3


def test_an_answer_says_which_rows_its_engine_was_fitted_on():
    (notice,) = [n for n in ask(work()).notices if n.code == "ENGINE_FITTED_ELSEWHERE"]
    assert "vLLM 0.11 to 0.18" in notice.text
    assert "ENGINE_NOT_FITTED" in codes(ask(work(), engine="torch"))
    assert "ENGINE_NOT_FITTED" in codes(ask(work(), device="cpu", engine="vllm"))


def test_kernels_of_kinds_never_measured_are_priced_by_physics_and_named():
    mixture = architecture_of_dimensions(
        hidden_size=1024,
        layer_count=2,
        query_heads=8,
        intermediate_size=2048,
        vocab_size=1000,
        experts=8,
        experts_per_token=2,
        expert_intermediate_size=512,
    )
    answer = ask(work(), mixture, engine="transformers", fitted=Fitted())
    (notice,) = answer.notices
    assert notice.code == "OPERATION_NOT_MEASURED"
    assert notice.text.startswith("experts:")
    assert answer.provenance is Provenance.ANALYTICAL


def test_an_engine_that_expands_latents_in_every_pass_is_named():
    assert "LATENTS_EXPANDED" in codes(ask(work(), preset("deepseek-r1"), engine="transformers"))
    assert "LATENTS_EXPANDED" not in codes(ask(work(), preset("deepseek-r1"), engine="vllm"))
    assert "LATENTS_EXPANDED" not in codes(ask(work(), engine="transformers"))


def test_operations_outside_the_measured_domain_are_named():
    answer = ask(work(), engine="transformers", fitted=Fitted(outside=("attention", "head")))
    (notice,) = [n for n in answer.notices if n.code == "OUTSIDE_MEASURED_DOMAIN"]
    assert "attention, head" in notice.text
    assert "profile longer" in notice.text


@pytest.mark.parametrize("provenance", [Provenance.REFERENCE_DATA, Provenance.TRANSFERRED])
def test_what_nobody_here_can_measure_has_another_remedy_than_profiling(provenance):
    answer = ask(work(), fitted=Fitted("vllm", outside=("head",), provenance=provenance))
    (notice,) = [n for n in answer.notices if n.code == "OUTSIDE_MEASURED_DOMAIN"]
    assert "profile" not in notice.text
    assert "import measurements that cover them, or calibrate" in notice.text


def test_the_breakdown_adds_up_to_the_phases():
    for degrees in ({}, {"pipeline": 4, "tensor": 2}):
        answer = ask(work(batch_size=6), breakdown=True, **degrees)
        for phase, figure in ((Phase.PREFILL, answer.ttft_ms), (Phase.DECODE, answer.tpot_ms)):
            rows = [row for row in answer.breakdown if row.phase is phase]
            assert sum(row.latency_ms for row in rows) == pytest.approx(figure.value)
            assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert {"bandwidth", "overhead", "communication"} <= {row.bound for row in answer.breakdown}


def test_no_breakdown_unless_asked_for():
    assert ask(work()).breakdown == ()


# --- laws ---------------------------------------------------------------------

WORKLOADS = st.builds(
    Workload,
    input_tokens=st.integers(1, 20_000),
    output_tokens=st.integers(0, 5_000),
    batch_size=st.integers(0, 300),
    concurrency=st.integers(0, 300),
)
DEGREES = st.fixed_dictionaries(
    {
        "tensor": st.sampled_from([1, 2, 8, 32]),
        "pipeline": st.sampled_from([1, 2, 5]),
        "data": st.integers(1, 3),
    }
)


@given(WORKLOADS, DEGREES, st.sampled_from(engine_names()), st.floats(0.5, 0.999))
@settings(max_examples=120, deadline=None)
def test_every_answer_is_finite_positive_and_inside_its_interval(
    workload, degrees, engine, confidence
):
    answer = ask(workload, engine=engine, confidence=confidence, **degrees)
    figures = [answer.ttft_ms, answer.request_latency_ms]
    figures += [x for x in (answer.tpot_ms, answer.tokens_per_second) if x is not None]
    for figure in figures:
        assert 0 < figure.lower <= figure.value <= figure.upper < math.inf
    assert (answer.tpot_ms is None) == (workload.output_tokens < 2)
    assert answer.request_latency_ms.value >= answer.ttft_ms.value


@given(WORKLOADS, DEGREES, st.integers(1, 100), st.sampled_from(["vllm", "transformers"]))
@settings(max_examples=150, deadline=None)
def test_more_tokens_and_sequences_are_never_faster(workload, degrees, more, engine):
    def latency(**changes):
        sizes = {
            "input_tokens": workload.input_tokens,
            "output_tokens": workload.output_tokens,
            "batch_size": workload.batch_size if not workload.concurrency else 0,
            "concurrency": workload.concurrency,
        }
        sizes = {name: size + changes.get(name, 0) for name, size in sizes.items()}
        return ask(Workload(**sizes), engine=engine, **degrees)

    base = latency()
    load = "concurrency" if workload.concurrency else "batch_size"
    for name in ("input_tokens", load):
        grown = latency(**{name: more})
        if codes(grown) & {"SATURATED", "DOES_NOT_FIT"} and workload.concurrency:
            # Fewer that run together may split more evenly over the pipeline's stages.
            continue
        assert grown.request_latency_ms.value >= base.request_latency_ms.value * (1 - 1e-9)
        if base.tpot_ms is not None and not workload.concurrency:
            assert grown.tpot_ms.value >= base.tpot_ms.value * (1 - 1e-9)


@given(st.integers(1, 5_000), st.integers(1, 3_000), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_chunks_cover_the_prompt_exactly(input_tokens, chunk, sequences):
    question = Question(
        architecture=preset("smollm2-135m"),
        workload=Workload(input_tokens=input_tokens, prefill_chunk_tokens=chunk),
        parallelism=Parallelism(),
        precision=Precision.BF16,
        kv_precision=Precision.BF16,
        engine="vllm",
    )
    work = StepPlanner(question).prefill(sequences)
    tokens = sum(o.shape[0] * o.count for o in work.operations if o.kind is OperationKind.EMBEDDING)
    assert tokens == input_tokens * sequences
