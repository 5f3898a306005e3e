"""A trace's spans are told by what ran within them, wherever it was launched."""

from types import SimpleNamespace

import pytest

from model.estimate import Phase
from profiler.tracing import phases_of


def event(name, start, end, device="CPU", own=0.0):
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(
        name=name,
        time_range=span,
        device_type=SimpleNamespace(name=device),
        self_cpu_time_total=own,
    )


PREFILL, DECODE = "tokenpace prefill", "tokenpace decode step"
SPANS = [
    event(PREFILL, 0, 1000, own=50),
    event(DECODE, 1000, 1400, own=20),
    event(DECODE, 1400, 1900, own=20),
    event(DECODE, 1900, 1901),  # behind the last token
]


def test_a_graphs_kernels_count_though_no_operator_launched_them():
    launch = event("cudaGraphLaunch", 1405, 1410, own=5)
    kernels = [
        event("gemm", 1420, 1520, "CUDA"),
        event("flash", 1520, 1560, "CUDA"),
        event("gemm", 1560, 1690, "CUDA"),
        event(DECODE, 1420, 1690, "CUDA"),  # the span as the device sees it
        event("gemm", 1100, 1300, "CUDA"),  # of the step before
    ]
    prefill, decode = phases_of([*SPANS, launch, *kernels])
    assert (prefill.phase, decode.phase) == (Phase.PREFILL, Phase.DECODE)
    assert prefill.kernels == ()
    assert [(k.name, k.calls, k.milliseconds) for k in decode.kernels] == [
        ("gemm", 2, pytest.approx(0.23)),
        ("flash", 1, pytest.approx(0.04)),
    ]
    assert decode.milliseconds == pytest.approx(0.5)
    assert decode.busy_ms == pytest.approx(0.27)


def test_without_a_gpu_operators_count_by_their_own_time():
    operators = [event("aten::linear", 10, 900, own=10), event("aten::mm", 20, 880, own=800)]
    prefill, decode = phases_of([*SPANS, *operators])
    assert [(k.name, k.milliseconds) for k in prefill.kernels] == [
        ("aten::mm", pytest.approx(0.8)),
        ("aten::linear", pytest.approx(0.01)),
    ]
    assert decode.kernels == ()
