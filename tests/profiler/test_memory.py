"""A point's need for memory is bounded before anything is allocated."""

from dataclasses import replace
from functools import partial
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend
from torch.profiler import ProfilerActivity, profile

from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from profiler import plain_attention
from profiler.attention_backends import FusedBackend
from profiler.attention_choice import Choices
from profiler.device import Device
from profiler.experts import ExpertsPoint, measure_experts
from profiler.latent import BatchedLinearPoint, LatentPoint, measure_batched_linear, measure_latent
from profiler.models import ModelPoint
from profiler.modules import build_model
from profiler.operations import AttentionPoint, LinearPoint, measure_attention, measure_linear
from profiler.paged_attention import PagedAttentionPoint, measure_paged_attention
from profiler.plain_models import PlainModelPoint
from profiler.static_attention import StaticAttentionPoint, measure_static_attention
from profiler.timing import Effort
from profiler.wholes import ForwardPoint, GeneratePoint, measure_whole

QUICK = Effort(seconds=0.0, min_samples=1, max_samples=1, sample_ms=0.001)
CPU = Device("cpu", 1 << 16)


class CountingDevice(Device):
    """Counts the bytes of all random data that it makes."""

    __slots__ = ()
    made = 0

    def random(self, *size, dtype):
        tensor = super().random(*size, dtype=dtype)
        type(self).made += tensor.nbytes
        return tensor


def bytes_made(measure, point, precision):
    device = CountingDevice("cpu", CPU.cache_bytes)
    CountingDevice.made = 0
    list(measure(point, precision, device, QUICK))
    return CountingDevice.made


precisions = st.sampled_from([Precision.FP32, Precision.BF16])
small = st.integers(1, 4)


@settings(max_examples=20)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 64), precisions)
def test_a_linear_never_takes_more_than_its_bound(n, k, m, precision):
    point = LinearPoint(n, k, (m,))
    assert bytes_made(measure_linear, point, precision) <= point.needed_bytes(precision, CPU)


@settings(max_examples=20)
@given(small, st.integers(1, 64), st.integers(0, 64), small, small, precisions)
def test_an_attention_never_takes_more_than_its_bound(
    sequences, query, past, kv_heads, groups, precision
):
    sizes = (sequences, query, query + past, kv_heads * groups, kv_heads, 16)
    for make, measure in (
        (AttentionPoint, measure_attention),
        (StaticAttentionPoint, measure_static_attention),
        (PagedAttentionPoint, measure_paged_attention),
    ):
        point = make(*sizes)
        assert bytes_made(measure, point, precision) <= point.needed_bytes(precision, CPU)


def peak_bytes(run):
    """The most bytes that a call holds at once, of those that it allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(held)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize(("query", "kv"), [(1, 2048), (256, 256), (32, 512)])
def test_what_an_attention_has_in_flight_is_within_its_bound_and_not_far(
    monkeypatch, query, kv, precision
):
    # Blocks of random values weigh nothing beside real points.
    monkeypatch.setattr("profiler.device._RANDOM_VALUES", 1 << 10)
    point = AttentionPoint(2, query, kv, 32, 4, 64)
    peak = peak_bytes(lambda: list(measure_attention(point, precision, CPU, QUICK)))
    bound = point.needed_bytes(precision, CPU)
    assert peak <= bound <= 1.5 * peak


GPU = Device("cuda:0", 1 << 16)


FLASH = FusedBackend("flash", SDPBackend.FLASH_ATTENTION)
REPEATING = FusedBackend("repeating", SDPBackend.FLASH_ATTENTION, takes_groups=False)


@pytest.mark.parametrize("backends", [[FLASH], [FLASH, REPEATING]], ids=["groups", "repeated"])
@pytest.mark.parametrize("sequences", [1, 6])
def test_finding_the_fastest_kernel_of_a_gpu_is_within_its_bound(monkeypatch, sequences, backends):
    monkeypatch.setattr("profiler.device._RANDOM_VALUES", 1 << 10)
    choices = Choices(CPU, backends)
    monkeypatch.setattr(plain_attention, "attend_by_fastest", choices.attend)
    point = StaticAttentionPoint(sequences, 512, 512, 32, 4, 64)
    run = partial(measure_static_attention, point, Precision.BF16, CPU, QUICK)
    found, plain = peak_bytes(lambda: list(run())), point.needed_bytes(Precision.BF16, CPU)
    assert plain < found <= point.needed_bytes(Precision.BF16, GPU)


@pytest.mark.parametrize(
    ("query", "head_dim", "precision", "device", "repeats"),
    [
        (1, 128, Precision.BF16, GPU, False),
        (1, 128, Precision.FP32, CPU, False),
        (1, 128, Precision.FP32, GPU, True),
        (1, 512, Precision.BF16, GPU, True),
        (900, 128, Precision.BF16, GPU, False),
        (90, 128, Precision.BF16, GPU, True),
    ],
)
def test_keys_are_counted_for_each_query_head_only_where_they_are_copied(
    query, head_dim, precision, device, repeats
):
    groups = AttentionPoint(2, query, 900, 32, 4, head_dim)
    assert groups.repeats_keys(precision, device) is repeats
    assert not replace(groups, kv_heads=32).repeats_keys(precision, device)
    tried = StaticAttentionPoint(2, query, 900, 32, 4, head_dim)
    assert tried.repeats_keys(precision, device) is (repeats or (device is GPU and query > 1))
    assert not replace(tried, kv_heads=32).repeats_keys(precision, device)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), small, st.integers(1, 64), small, small)
def test_experts_never_take_more_than_their_bound(local, ranks, tokens, hidden, inner):
    point = ExpertsPoint(8 * hidden, 8 * inner, local, local * ranks, 1, (1, tokens))
    made = bytes_made(measure_experts, point, Precision.FP32)
    assert made <= point.needed_bytes(Precision.FP32, CPU)


@settings(max_examples=20, deadline=None)
@given(small, st.integers(1, 64), st.integers(0, 64), small, precisions)
def test_a_latent_attention_never_takes_more_than_its_bound(
    sequences, query, past, heads, precision
):
    point = LatentPoint(sequences, query, query + past, heads, 16, 8, 12, 10)
    assert bytes_made(measure_latent, point, precision) <= point.needed_bytes(precision, CPU)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 100), st.integers(1, 100), small, st.integers(1, 64), precisions)
def test_products_of_heads_never_take_more_than_their_bound(n, k, batch, m, precision):
    point = BatchedLinearPoint(n, k, batch, (m,))
    made = bytes_made(measure_batched_linear, point, precision)
    assert made <= point.needed_bytes(precision, CPU)


@settings(max_examples=10, deadline=None)
@given(small, st.integers(2, 64), small)
def test_a_plain_model_never_takes_more_than_its_bound(sequences, tokens, layer_count):
    whole = model_point(sequences, tokens, layer_count)
    point = PlainModelPoint(whole.architecture, whole.forwards, whole.generates)
    made = bytes_made(measure_whole, point, Precision.FP32)
    weights = 4 * point.architecture.parameter_count()
    assert made > 0
    assert weights + made <= point.needed_bytes(Precision.FP32, CPU)


def model_point(sequences=1, tokens=8, layer_count=2):
    architecture = architecture_of_dimensions(
        hidden_size=32,
        layer_count=layer_count,
        query_heads=4,
        intermediate_size=64,
        vocab_size=128,
    )
    return ModelPoint(
        architecture,
        (ForwardPoint(sequences, tokens, tokens),),
        (GeneratePoint(sequences, tokens, 4),),
    )


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_model_takes_its_weights_and_more_for_its_passes(precision):
    point = model_point()
    model = build_model(point.architecture, precision, CPU)
    weights = sum(p.nbytes for p in model.parameters())
    assert weights < point.needed_bytes(precision, CPU)


@given(small, st.integers(8, 200), st.integers(1, 8))
def test_longer_wider_and_deeper_passes_take_more(sequences, tokens, layer_count):
    def need(*sizes):
        return model_point(*sizes).needed_bytes(Precision.FP32, CPU)

    whole = need(sequences, tokens, layer_count)
    assert whole < need(sequences + 1, tokens, layer_count)
    assert whole < need(sequences, tokens + 1, layer_count)
    assert whole < need(sequences, tokens, layer_count + 1)
