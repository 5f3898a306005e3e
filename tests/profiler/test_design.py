"""The design: the same for equal seeds, within its space, and only what models can be."""

import itertools
import zlib
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.blocks import Experts, LatentAttention
from model.dimensions import architecture_of_dimensions, dimensions_of
from model.operations import OperationKind
from model.precision import Precision
from profiler.design import Design, Space, space_of
from profiler.device import Device
from profiler.latent import BatchedLinearPoint, LatentPoint
from profiler.modules import build_model, configuration_of

CPU = space_of(is_cuda=False, flops_per_second=1e11, cold_bytes=6e7, free_bytes=2e10)
GPU = space_of(is_cuda=True, flops_per_second=5e14, cold_bytes=1e8, free_bytes=8e10)
TINY = Space(
    hidden=(64, 256),
    ranks=(1, 2),
    vocab=(128, 512),
    kv_tokens=64,
    model_bytes=(1e5, 4e5),
    flops=1e8,
    bytes=1e6,
)
SPACES = {"cpu": CPU, "gpu": GPU, "tiny": TINY}

spaces = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
seeds = st.integers(0, 2**31 - 1)
kinds = pytest.mark.parametrize(
    "kind",
    ["linears", "attentions", "paged_attentions", "models", "experts", "latents", "mixtures"],
)


def points(space, seed, kind, count=40):
    return list(itertools.islice(getattr(Design(space, seed), kind)(), count))


@spaces
@kinds
def test_equal_seeds_pick_equal_points_and_others_do_not(space, kind):
    first = points(space, 3, kind, 80)
    assert points(space, 3, kind, 80) == first
    assert points(space, 4, kind, 80) != first
    assert len(set(first)) > 40


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_linears_lie_within_the_space(space, seed):
    for point in points(space, seed, "linears"):
        assert point.n >= 1
        assert point.k >= 1
        assert 4 * point.n * point.k <= max(space.bytes, 4 * 64 * point.k)
        assert list(point.rows) == sorted(set(point.rows))
        assert point.rows[0] >= 1
        # A few rows are measured whatever they cost.
        assert 2 * point.rows[-1] * point.n * point.k <= max(
            space.flops, 2 * 16 * point.n * point.k
        )


@spaces
def test_linears_per_tensor_are_the_same_matrices(space):
    plain, scaled = points(space, 3, "linears"), points(space, 3, "linears_per_tensor")
    assert [(p.n, p.k, p.rows) for p in scaled] == [(p.n, p.k, p.rows) for p in plain]
    assert {p.kind for p in scaled} == {OperationKind.LINEAR_PER_TENSOR}
    assert {p.kind for p in plain} == {OperationKind.LINEAR, OperationKind.LINEAR_TRANSPOSED}


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_attentions_lie_within_the_space(space, seed):
    for point in points(space, seed, "attentions"):
        assert 1 <= point.query_tokens <= point.kv_tokens <= max(space.kv_tokens, 16)
        assert point.query_heads % point.kv_heads == 0
        assert point.sequences >= 1
        width = point.query_heads * point.head_dim
        flops = 4 * point.sequences * point.query_tokens * point.kv_tokens * width
        shortest = 4 * point.sequences * max(16, point.kv_tokens) * width
        assert flops <= max(1.01 * space.patience * space.flops, shortest)
        held = 2 * 8 * point.sequences * point.kv_tokens * point.kv_heads * point.head_dim
        assert held <= space.held_bytes or point.sequences == 1


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_attentions_over_pages_lie_within_the_space(space, seed):
    for point in points(space, seed, "paged_attentions"):
        assert 1 <= point.query_tokens <= point.kv_tokens <= max(space.kv_tokens, 16)
        if point.query_tokens == 1 and point.kv_tokens > 16:
            tokens = point.sequences * point.kv_tokens
            assert 8 * tokens * point.kv_heads * point.head_dim <= space.bytes
            assert 4 * tokens * point.query_heads * point.head_dim <= space.flops


def test_pages_are_decoded_for_one_sequence_and_for_hundreds():
    found = [p for p in points(GPU, 0, "paged_attentions", 60) if p.query_tokens == 1]
    assert len(found) >= 25
    assert {p.sequences for p in found} >= {1, 4, 16, 64, 256}
    assert max(p.kv_tokens for p in found) > 30_000


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_models_lie_within_the_space(space, seed):
    for point in points(space, seed, "models"):
        architecture = point.architecture
        heads = architecture.layers[0].layer.attention
        low, high = space.hidden
        # Hidden sizes are whole heads.
        assert low - heads.head_dim <= architecture.hidden_size <= max(high, 2 * heads.head_dim)
        assert architecture.layer_count >= 2
        assert architecture.vocab_size >= 64
        assert len(point.forwards) >= 2
        assert point.generates
        for forward in point.forwards:
            assert 1 <= forward.query_tokens <= forward.kv_tokens
            assert within_flops(space, architecture, forward)
        for run in point.generates:
            assert run.sequences >= 1
            assert run.input_tokens >= 1
            assert run.output_tokens >= 2


def within_flops(space, architecture, forward):
    tokens = forward.sequences * forward.query_tokens
    flops = 2 * architecture.parameter_count() * tokens
    # Long prompts may take several times as much.
    return flops <= 8 * space.flops or forward.query_tokens == 1


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_experts_lie_within_the_space(space, seed):
    for point in points(space, seed, "experts"):
        assert 1 <= point.local_experts <= point.experts
        assert 1 <= point.top_k <= point.experts
        assert point.experts % point.local_experts == 0
        assert 1.0 <= point.imbalance <= point.experts / point.local_experts
        assert list(point.tokens) == sorted(set(point.tokens))
        weights = 3 * point.local_experts * point.hidden_size * point.intermediate_size
        least = 3 * 32 * point.local_experts * point.hidden_size
        assert 4 * weights <= max(space.bytes, 4 * least)
        share = point.local_experts / point.experts
        one = 6 * point.hidden_size * point.intermediate_size * point.top_k * share
        assert point.tokens[-1] * one <= max(space.flops, one)


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_latent_attentions_lie_within_the_space(space, seed):
    found = points(space, seed, "latents")
    products = [point for point in found if isinstance(point, BatchedLinearPoint)]
    assert len(products) == len(found) // 4
    for point in found:
        if point in products:
            continue
        assert 1 <= point.query_tokens <= point.kv_tokens <= max(space.kv_tokens, 16)
        seen = point.sequences * point.query_tokens * point.kv_tokens * point.query_heads
        widths = point.kv_rank + point.rope_dim, point.kv_rank
        if point.query_tokens > 1:
            widths = point.head_dim + point.rope_dim, point.value_dim
        shortest = seen * 16 / point.kv_tokens
        assert 2 * seen * sum(widths) <= 1.01 * max(space.flops, 2 * shortest * sum(widths))


def test_latent_attentions_decode_prefill_and_go_on():
    found = [p for p in points(CPU, 0, "latents", 80) if isinstance(p, LatentPoint)]
    queries = [(p.query_tokens, p.kv_tokens) for p in found]
    assert sum(query == 1 for query, _ in queries) >= 0.4 * len(found)
    assert sum(query == kv for query, kv in queries) >= 5
    assert sum(1 < query < kv for query, kv in queries) >= 5


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_mixtures_are_models_of_equal_layers_with_experts(space, seed):
    for index, point in enumerate(points(space, seed, "mixtures", 12)):
        (group,) = point.architecture.layers
        assert isinstance(group.layer.feed_forward, Experts)
        assert group.count >= 2
        assert isinstance(group.layer.attention, LatentAttention) is (index % 3 == 2)
        configuration_of(point.architecture)
        described = dict(dimensions_of(point.architecture))
        assert architecture_of_dimensions(**described) == point.architecture
        for forward in point.forwards:
            assert 1 <= forward.query_tokens <= forward.kv_tokens
            tokens = forward.sequences * forward.query_tokens
            flops = 2 * point.architecture.active_parameters() * tokens
            assert flops <= space.flops or forward.query_tokens == 1


@spaces
@settings(max_examples=8)
@given(seed=seeds)
def test_every_architecture_is_one_that_can_be_described(space, seed):
    design = Design(space, seed)
    rng = np.random.default_rng(seed)
    for whole in (False, True):
        for _ in range(10):
            architecture = design.architecture(rng.random(12), "drawn", whole=whole)
            described = dict(dimensions_of(architecture))
            assert architecture_of_dimensions(**described) == architecture


@spaces
def test_models_overflow_the_cache_and_are_no_larger_than_two_layers_make_them(space):
    found = [point.architecture for point in points(space, 0, "models", 60)]
    sizes = [4 * architecture.parameter_count() for architecture in found]
    assert np.median(sizes) >= 0.5 * space.model_bytes[0]
    for architecture, size in zip(found, sizes, strict=True):
        assert size <= 1.6 * space.model_bytes[1] or architecture.layer_count == 2


@spaces
@kinds
def test_points_of_a_kind_have_groups_of_their_own(space, kind):
    found = points(space, 0, kind, 60)
    groups = {point.group for point in found}
    assert len(groups) >= 0.2 * len(found)
    if kind in {"models", "mixtures"}:
        assert len(groups) == len(found)


def test_models_of_other_seeds_are_other_architectures():
    names = [{p.group for p in points(CPU, seed, "models", 30)} for seed in (0, 1)]
    assert not names[0] & names[1]


@spaces
def test_decode_whole_prompts_and_chunks_are_all_drawn(space):
    found = points(space, 0, "attentions", 40)
    decode = [p for p in found if p.query_tokens == 1]
    whole = [p for p in found if p.query_tokens == p.kv_tokens > 1]
    chunks = [p for p in found if 1 < p.query_tokens < p.kv_tokens]
    assert len(decode) >= 10
    assert len(whole) >= 5
    assert len(chunks) >= 5


@spaces
def test_few_rows_are_covered_one_by_one_and_many_are_not_left_out(space):
    rows = {m for point in points(space, 0, "linears", 60) for m in point.rows}
    assert rows >= {1, 2, 3, 4, 5, 6, 8}
    assert max(rows) >= 128


SIZES = {
    "linears": lambda p: (p.n, p.k, p.rows, str(p.kind)),
    "attentions": astuple,
    "static_attentions": astuple,
    "paged_attentions": astuple,
    "experts": astuple,
    "latents": astuple,
    **dict.fromkeys(
        ("models", "mixtures", "plain_models", "plain_mixtures"),
        lambda p: (
            p.architecture.hidden_size,
            p.architecture.layer_count,
            [astuple(run) for run in (*p.forwards, *p.generates)],
        ),
    ),
}
WALKED = {
    "linears": 305_224_795,
    "attentions": 1_994_478_799,
    "static_attentions": 1_518_472_989,
    "paged_attentions": 2_455_013_859,
    "experts": 34_307_583,
    "latents": 3_134_942_150,
    "models": 1_114_610_491,
    "mixtures": 740_413_922,
    "plain_models": 352_020_585,
    "plain_mixtures": 2_496_616_318,
}
"""Checksums of the first points of a CPU's design."""


@pytest.mark.parametrize("kind", SIZES)
def test_a_cpus_design_is_the_one_that_stored_campaigns_have_walked(kind):
    found = [SIZES[kind](point) for point in points(CPU, 0, kind, 60)]
    assert zlib.crc32(repr(found).encode()) == WALKED[kind]


def test_a_gpus_linears_have_the_rows_of_the_longest_prompts():
    rows = [m for point in points(GPU, 0, "linears", 60) for m in point.rows]
    assert max(rows) <= 16_384
    assert sum(m > 8_192 for m in rows) >= 3
    tokens = [t for point in points(GPU, 0, "experts", 60) for t in point.tokens]
    assert 4_096 < max(tokens) <= 8_192


@pytest.mark.parametrize("kind", ["attentions", "static_attentions"])
def test_a_gpus_attentions_reach_the_longest_contexts_and_full_batches(kind):
    found = points(GPU, 0, kind, 240)
    decode = [p for p in found if p.query_tokens == 1]
    whole = [p for p in found if p.query_tokens == p.kv_tokens > 1]
    chunks = [p for p in found if 1 < p.query_tokens < p.kv_tokens]
    assert max(p.kv_tokens for p in decode) > 120_000
    assert max(p.kv_tokens for p in chunks) > 90_000
    assert max(p.kv_tokens for p in whole) > 50_000
    assert {p.sequences for p in decode} >= {1, 16, 32, 64}
    assert max(p.kv_tokens for p in decode if p.sequences >= 32) > 4_096


@pytest.mark.parametrize("kind", ["models", "plain_models"])
def test_a_gpus_models_decode_full_batches_and_long_contexts(kind):
    found = points(GPU, 0, kind, 60)
    passes = [forward for point in found for forward in point.forwards]
    decode = [f for f in passes if f.query_tokens == 1]
    assert {f.sequences for f in decode[: 2 * 14]} >= {1, 4, 16, 32, 64}
    assert max(f.kv_tokens for f in decode) > 7_000
    assert max(f.sequences * f.kv_tokens for f in decode) > 64 * 2_048
    assert max(f.sequences * f.query_tokens for f in passes) > 2 * 2_048
    assert max(run.sequences for point in found for run in point.generates) == 64
    assert max(run.input_tokens for point in found for run in point.generates) > 1_000
    if kind == "plain_models":
        assert {f.decoding for f in passes} >= {0, 1, 16, 64}
        assert max(f.decoding_kv_tokens for f in passes) > 4_096


def test_a_gpus_mixtures_decode_full_batches():
    passes = [f for point in points(GPU, 0, "mixtures", 24) for f in point.forwards]
    assert {f.sequences for f in passes} >= {1, 4, 16, 64}
    assert max(f.kv_tokens for f in passes) > 4_096


@pytest.mark.parametrize("free", [2.2e10, 8e10, 1.4e11])
@pytest.mark.parametrize(
    "kind", ["linears", "attentions", "static_attentions", "models", "plain_models", "mixtures"]
)
def test_a_gpus_memory_holds_nearly_all_points(free, kind):
    space = space_of(is_cuda=True, flops_per_second=5e14, cold_bytes=1e8, free_bytes=free)
    card = Device("cuda:0", 50 << 20)
    needed = [p.needed_bytes(Precision.BF16, card) for p in points(space, 0, kind, 60)]
    assert np.mean([each > 0.8 * free for each in needed]) <= 0.05


@spaces
def test_models_run_single_sequences_and_batches_prompts_and_steps(space):
    found = points(space, 0, "models", 24)
    runs = [run for point in found for run in point.generates]
    assert {1} < {run.sequences for run in runs}
    passes = [forward for point in found for forward in point.forwards]
    assert {forward.query_tokens == 1 for forward in passes} == {True, False}
    assert any(1 < f.query_tokens < f.kv_tokens for f in passes)
    assert any(f.query_tokens == f.kv_tokens > 1 for f in passes)


def test_kinds_of_layers_vary():
    layers = [p.architecture.layers[0].layer.attention for p in points(CPU, 0, "models", 60)]
    assert {layer.qk_norm for layer in layers} == {True, False}
    assert {layer.qkv_bias for layer in layers} == {True, False}
    assert len({layer.query_heads // layer.kv_heads for layer in layers}) >= 3
    assert len({layer.head_dim for layer in layers}) >= 3


def test_ranks_shares_are_measured_too():
    one, cut = (
        [p.architecture for p in points(replace(CPU, ranks=ranks), 0, "models", 5)]
        for ranks in ((1,), (4,))
    )
    assert one == cut  # whole models are not cut
    one, cut = (points(replace(CPU, ranks=ranks), 0, "attentions", 40) for ranks in ((1,), (4,)))
    assert sum(p.query_heads for p in cut) < sum(p.query_heads for p in one)


@pytest.mark.parametrize("is_cuda", [False, True])
@given(st.floats(1e9, 1e15), st.floats(1e5, 1e9), st.floats(1e9, 1e12))
def test_a_space_fits_the_memory_that_is_free(is_cuda, rate, cold, free):
    space = space_of(is_cuda=is_cuda, flops_per_second=rate, cold_bytes=cold, free_bytes=free)
    assert space.model_bytes[0] <= space.model_bytes[1] < 0.5 * free
    assert space.bytes < 0.5 * free
    assert space.flops <= rate


def test_a_gpus_models_are_whole_and_ranks_shares_up_to_the_widest():
    """A rank's share has fewer heads than its residual stream is wide."""
    layers = []
    for point in points(GPU, 0, "models", 60):
        heads = point.architecture.layers[0].layer.attention
        width = point.architecture.hidden_size
        layers.append((width, round(width / (heads.query_heads * heads.head_dim))))
    assert {rank for _, rank in layers} == {1, 2, 4, 8}
    assert max(width for width, _ in layers) > 12_000
    assert max(width for width, rank in layers if rank < 4) <= 0.6 * 16_384
    assert sum(rank == 1 for _, rank in layers) >= 20
    for point in points(CPU, 0, "models", 60):
        heads = point.architecture.layers[0].layer.attention
        assert heads.query_heads * heads.head_dim == point.architecture.hidden_size


def test_models_of_ranks_shares_are_what_modules_can_be():
    shares = replace(TINY, whole_ranks=(2, 4))
    for point in points(shares, 0, "models", 8):
        architecture = point.architecture
        model = build_model(architecture, Precision.FP32, Device("cpu", 1 << 16))
        held = sum(parameter.numel() for parameter in model.parameters())
        assert held == architecture.parameter_count()
