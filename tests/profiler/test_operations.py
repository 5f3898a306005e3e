"""Single operations timed alone: the right computation, over cold data, with its sizes told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import profiler.operations
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device, open_device
from profiler.operations import (
    AttentionPoint,
    LinearPoint,
    attention_values,
    measure_attention,
    measure_linear,
)
from profiler.timing import Effort

SMALL_CACHE = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
LINEAR = LinearPoint(64, 32, (1, 3, 16))
ATTENTION = AttentionPoint(2, 5, 20, 4, 2, 16)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=gpu)])


@devices
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_linear_is_measured_at_each_of_its_rows(device, precision):
    opened = SMALL_CACHE if device == "cpu" else open_device(device)
    rows = list(measure_linear(LINEAR, precision, opened, QUICK))
    assert [row.shape for row in rows] == [{"m": m, "n": 64, "k": 32} for m in (1, 3, 16)]
    for row in rows:
        assert (row.kind, row.group, row.precision) == ("linear", LINEAR.group, precision)
        assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90
        (operation,) = operations_of(row)
        assert operation.shape == (row.shape["m"], 64, 32)


@devices
@pytest.mark.parametrize("point", [ATTENTION, AttentionPoint(2, 1, 20, 4, 2, 16)])
def test_an_attention_is_measured_with_its_sizes(device, point):
    opened = SMALL_CACHE if device == "cpu" else open_device(device)
    (row,) = measure_attention(point, Precision.BF16, opened, QUICK)
    assert (row.kind, row.group, row.engine) == ("attention", point.group, "transformers")
    (operation,) = operations_of(row)
    assert operation.shape == (2, point.query_tokens, 20, 4, 2, 16)
    assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90


def test_weights_rotate_beyond_the_cache(timed):
    list(measure_linear(LinearPoint(64, 64, (1, 4)), Precision.FP32, SMALL_CACHE, QUICK))
    first, second = timed
    weights = [run.args[1] for run in first]
    assert len({weight.data_ptr() for weight in weights}) == len(weights)
    assert sum(weight.nbytes for weight in weights) >= SMALL_CACHE.cold_bytes
    # Made once, for all rows.
    assert [run.args[1].data_ptr() for run in second] == [w.data_ptr() for w in weights]


def test_caches_rotate_beyond_the_cache_of_the_device_and_not_far_beyond(timed):
    # A long prompt with a single KV head: queries outweigh keys and values by far.
    point = AttentionPoint(1, 64, 64, 16, 1, 16)
    list(measure_attention(point, Precision.FP32, SMALL_CACHE, QUICK))
    (runs,) = timed
    held = len(runs) * 4 * attention_values(point)
    assert (
        SMALL_CACHE.cold_bytes <= held <= SMALL_CACHE.cold_bytes + 2 * 4 * attention_values(point)
    )


@settings(max_examples=25)
@given(
    sequences=st.integers(1, 3),
    query=st.integers(1, 12),
    past=st.integers(0, 12),
    kv_heads=st.integers(1, 2),
    groups=st.integers(1, 3),
)
def test_what_is_timed_is_causal_attention_over_the_whole_context(
    sequences, query, past, kv_heads, groups
):
    point = AttentionPoint(sequences, query, query + past, kv_heads * groups, kv_heads, 8)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        time_runs = profiler.operations.time_runs
        patch.setattr(
            profiler.operations,
            "time_runs",
            lambda *args: (seen.extend(args[1]), time_runs(*args))[1],
        )
        list(measure_attention(point, Precision.FP32, SMALL_CACHE, QUICK))
    run = seen[0]
    module, queries, new, old, _ = run.args
    keys, values = (
        torch.cat([before, after], dim=2).repeat_interleave(groups, dim=1)
        for before, after in (
            zip(old, new, strict=True) if past else ((n[:, :, :0], n) for n in new)
        )
    )
    scores = queries @ keys.transpose(2, 3) * module.scaling
    hidden = torch.arange(query + past)[None, :] > past + torch.arange(query)[:, None]
    expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    output, *_ = run()
    assert torch.allclose(output, expected.transpose(1, 2), atol=1e-6)
    # The cache grows by the new tokens in each run and starts afresh in the next.
    again, *_ = run()
    assert torch.equal(again, output)


def test_a_precision_without_modules_is_refused():
    with pytest.raises(ValueError, match="precision: plain torch modules do not run in fp4"):
        list(measure_linear(LINEAR, Precision.FP4, SMALL_CACHE, QUICK))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_graph_holds_all_copies_so_that_launches_cost_nothing(timed):
    device = open_device("cuda:0")
    (row,) = measure_linear(LinearPoint(64, 64, (1,)), Precision.BF16, device, QUICK)
    (runs,) = timed
    assert len(runs) == 1
    # A launch alone takes longer than a tiny product inside a graph.
    assert row.latency_ms.median < 0.02
