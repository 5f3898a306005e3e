"""Latency from data sheets: bounds, units, intervals, growth."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.analytical import (
    AnalyticalCostModel,
    generic_cpu,
)
from model.blocks import Attention
from model.dimensions import architecture_of_dimensions
from model.engines import engine, engine_names
from model.estimate import Phase, Provenance
from model.execution import step_operations
from model.hardware import DataSheet, data_sheet, device_names
from model.operations import (
    LINEARS,
    PLAIN_ATTENTIONS,
    OperationKind,
    all_gather,
    all_reduce,
    all_to_all,
    attention,
    batched_linear,
    linear,
)
from model.precision import Precision
from model.presets import preset
from model.workload import Parallelism, Sequences

H100 = AnalyticalCostModel(data_sheet("h100-sxm"), "vllm")


def decode_ms(device, name, engine="vllm", batch=1, precision=Precision.BF16, tensor=1):
    rows = step_operations(
        preset(name),
        (Sequences(count=batch, query_tokens=1, kv_tokens=512),),
        Parallelism(tensor=tensor),
        precision,
        precision.activation,
        engine,
    )
    model = AnalyticalCostModel(data_sheet(device), engine)
    return model.estimate(rows, Phase.DECODE, 0.9).value_ms


def test_a_large_product_runs_at_a_share_of_the_peak():
    row = linear("x", 8192, 8192, 8192, Precision.BF16)
    assert H100.seconds(row) == pytest.approx(
        row.flops / (989.4e12 * engine("vllm").compute), rel=0.05
    )
    assert H100.bound(row) == "compute"


def test_a_thin_product_runs_at_a_share_of_the_bandwidth():
    row = linear("x", 1, 28672, 8192, Precision.BF16)
    assert H100.seconds(row) == pytest.approx(
        row.bytes / (3.35e12 * engine("vllm").bandwidth), rel=0.05
    )
    assert H100.bound(row) == "bandwidth"


def test_a_tiny_product_is_held_back_by_its_launch():
    assert H100.bound(linear("x", 1, 64, 64, Precision.BF16)) == "overhead"


def test_fp8_halves_the_time_where_the_device_has_it_and_not_where_it_lacks_it():
    def ratio(device):
        model = AnalyticalCostModel(data_sheet(device), "vllm")
        times = [
            model.seconds(linear("x", 8192, 8192, 8192, precision))
            for precision in (Precision.BF16, Precision.FP8)
        ]
        return times[1] / times[0]

    assert ratio("h100-sxm") == pytest.approx(0.5, rel=0.05)
    assert ratio("a100-sxm") == pytest.approx(1.0, rel=0.05)


def test_attention_multiplies_in_the_format_of_the_activations():
    heads = Attention(query_heads=32, kv_heads=32, head_dim=128)
    times = [
        H100.seconds(attention(1, 8192, 8192, heads, precision))
        for precision in (Precision.BF16, Precision.FP8)
    ]
    assert times[1] == pytest.approx(times[0], rel=0.02)


@pytest.mark.parametrize(
    ("device", "name", "engine", "published_ms"),
    [
        # github.com/pytorch-labs/gpt-fast README: tokens a second, turned round
        ("a100-sxm", "llama-2-7b", "gpt-fast", 1000 / 104.9),
        ("a100-sxm", "llama-3.1-8b", "gpt-fast", 1000 / 93.89),
    ],
)
def test_decode_comes_near_published_figures(device, name, engine, published_ms):
    assert decode_ms(device, name, engine) == pytest.approx(published_ms, rel=0.15)


def test_tensor_parallel_decode_comes_near_published_figures():
    # The same README: Llama-2-70B in bf16 on 8 A100, 62.5 tokens a second.
    assert decode_ms("a100-sxm", "llama-2-70b", "gpt-fast", tensor=8) == pytest.approx(
        1000 / 62.5, rel=0.15
    )


def test_eager_decode_is_held_back_by_the_host():
    eager, graph = (decode_ms("h100-sxm", "llama-3.1-8b", e) for e in ("transformers", "torch"))
    assert 15 < eager < 40
    assert graph < eager / 2


def test_no_device_beats_its_bandwidth():
    weights = 2 * preset("llama-3.1-8b").parameter_count() * 0.86  # less the embedding
    for device in device_names():
        sheet = data_sheet(device)
        if sheet.kind == "cuda":
            for engine in engine_names():
                bound = weights / sheet.bandwidth_bytes_per_second * 1e3
                assert decode_ms(device, "llama-3.1-8b", engine) > bound


def test_an_all_reduce_has_a_start_and_a_rate():
    small, large = (H100.seconds(all_reduce(n, 8, Precision.BF16)) for n in (1024, 1 << 28))
    assert 5e-6 < small < 50e-6
    message = (1 << 28) * 2
    assert large == pytest.approx(message * 2 * 7 / 8 / (450e9 * engine("vllm").link), rel=0.01)
    assert H100.bound(all_reduce(1024, 8, Precision.BF16)) == "communication"


def test_ranks_beyond_a_node_meet_over_a_network():
    for make, slower in ((all_reduce, 1.1), (all_to_all, 4)):
        inside, outside = (H100.seconds(make(1 << 26, n, Precision.BF16)) for n in (8, 16))
        assert outside > slower * inside


def test_the_interval_is_a_factor_of_two_at_90_percent_and_wider_with_confidence():
    assert H100.interval_factor(0.9) == pytest.approx(2.0)
    factors = [H100.interval_factor(c) for c in (0.5, 0.8, 0.9, 0.99, 0.999)]
    assert factors == sorted(factors)
    assert factors[0] > 1
    estimate = H100.estimate([linear("x", 8, 64, 64, Precision.BF16)], Phase.DECODE, 0.9)
    assert estimate.upper_ms / estimate.value_ms == pytest.approx(2.0)
    assert estimate.value_ms / estimate.lower_ms == pytest.approx(2.0)


def test_a_processor_has_a_wider_interval():
    cpu = AnalyticalCostModel(generic_cpu(data_sheet("cpu"), 2))
    assert cpu.interval_factor(0.9) > H100.interval_factor(0.9)


def test_more_threads_are_faster_up_to_the_memory_channels():
    sheets = [generic_cpu(data_sheet("cpu"), n) for n in (0, 1, 2, 64, 256)]
    assert sheets[0] == sheets[1]
    assert sheets[2].effective_peak(Precision.FP32) == 2 * sheets[1].effective_peak(Precision.FP32)
    assert sheets[3].bandwidth_bytes_per_second == sheets[4].bandwidth_bytes_per_second


def test_known_rates_of_a_processor_are_kept():
    sheet = DataSheet(
        name="cpu",
        display_name="",
        kind="cpu",
        bandwidth_bytes_per_second=1e9,
        peaks={Precision.FP32: 1e10},
    )
    assert generic_cpu(sheet, 8) == sheet


def test_an_unknown_gpu_is_answered_for_and_says_that_its_rates_are_assumed():
    unknown = AnalyticalCostModel(DataSheet(name="x", display_name="", kind="cuda", peaks={}))
    assert not unknown.knows_rates
    assert H100.knows_rates
    assert unknown.seconds(linear("x", 1, 8192, 8192, Precision.BF16)) > 0
    assert unknown.interval_factor(0.9) > H100.interval_factor(0.9)


def test_it_holds_no_measurements():
    assert H100.provenance is Provenance.ANALYTICAL
    assert not H100.supports(Precision.BF16, "vllm")


LATENT_EXPERTS = architecture_of_dimensions(
    hidden_size=256,
    layer_count=2,
    query_heads=4,
    head_dim=32,
    intermediate_size=512,
    vocab_size=1000,
    experts=8,
    experts_per_token=2,
    expert_intermediate_size=128,
    kv_rank=64,
    rope_dim=16,
)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_every_kind_has_a_price_in_every_engine_and_precision(kind):
    sheet = data_sheet("a100-pcie") if kind == "cuda" else data_sheet("cpu")
    for name, precision in itertools.product(engine_names(), Precision):
        rows = []
        for model, query in (
            (preset("gemma-3-1b"), 16),
            (LATENT_EXPERTS, 1),
            (LATENT_EXPERTS, 9),
            (preset("qwen3-next-80b-a3b"), 16),
            (preset("deepseek-v3.2"), 16),
        ):
            rows += step_operations(
                model,
                (Sequences(count=2, query_tokens=query, kv_tokens=700),),
                Parallelism(tensor=2, pipeline=2, data=2, expert=1),
                precision,
                precision.activation,
                name,
                first=True,
            )
        rows += [linear("x", 2, 64, 64, precision, kind=kind) for kind in LINEARS]
        heads = Attention(query_heads=4, kv_heads=2, head_dim=64)
        rows += [
            attention(2, 1, 700, heads, precision.activation, kind=kind)
            for kind in PLAIN_ATTENTIONS
        ]
        # No engine that expands latents in every pass has it.
        rows.append(batched_linear("y", 2, 64, 64, 4, precision))
        rows.append(all_gather(4096, 2, precision))
        assert {o.kind for o in rows} == set(OperationKind)
        estimate = AnalyticalCostModel(sheet, name).estimate(rows, Phase.PREFILL, 0.9)
        assert all(math.isfinite(t) and t > 0 for t in estimate.operations_ms)
        assert estimate.value_ms == pytest.approx(sum(estimate.operations_ms))


@given(
    st.sampled_from(["h100-sxm", "l4", "cpu"]),
    st.sampled_from(["transformers", "vllm"]),
    st.integers(1, 4096),
    st.integers(1, 4096),
    st.integers(0, 4096),
    st.integers(1, 100),
)
@settings(max_examples=80, deadline=None)
def test_more_tokens_and_sequences_never_cost_less(device, engine, count, query, past, more):
    model = AnalyticalCostModel(data_sheet(device), engine)

    def price(sequences, query_tokens, kv_tokens):
        rows = step_operations(
            preset("qwen2.5-1.5b"),
            (Sequences(count=sequences, query_tokens=query_tokens, kv_tokens=kv_tokens),),
            Parallelism(),
            Precision.BF16,
            Precision.BF16,
            engine,
        )
        return model.estimate(rows, Phase.PREFILL, 0.9).value_ms

    base = price(count, query, query + past)
    assert price(count + more, query, query + past) >= base
    assert price(count, query + more, query + more + past) >= base
    assert price(count, query, query + past + more) >= base


@given(st.floats(1e-9, 1e3), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_a_faster_device_is_never_slower(scale, m):
    def price(factor):
        sheet = DataSheet(
            name="x",
            display_name="",
            kind="cuda",
            bandwidth_bytes_per_second=1e12 * factor,
            peaks={Precision.BF16: 1e14 * factor},
        )
        return AnalyticalCostModel(sheet, "torch").seconds(linear("", m, 512, 512, Precision.BF16))

    assert price(scale * 2) <= price(scale)


def test_rings_between_nodes_use_the_ports_of_all_devices_and_exchanges_their_own():
    model = AnalyticalCostModel(data_sheet("h100-sxm"), "vllm")

    def bytes_per_second(make, ranks):
        few, many = (make(n, ranks, Precision.BF16) for n in (1 << 26, 1 << 27))
        return (many.bytes - few.bytes) / (model.seconds(many) - model.seconds(few))

    link = bytes_per_second(all_reduce, 8)
    assert bytes_per_second(all_to_all, 8) == pytest.approx(link)
    # Eight ports of 50 GB/s, and a link of 450 GB/s.
    assert bytes_per_second(all_reduce, 16) == pytest.approx(link * 400 / 450)
    # Of fifteen others eight are elsewhere.
    assert bytes_per_second(all_to_all, 16) == pytest.approx(link * 50 / 450 * 15 / 8)
