"""A trace's spans are told by what ran within them, wherever it was launched."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from model.estimate import Phase
from profiler.device import open_device
from profiler.timing import captured
from profiler.tracing import phases_of, trace_run


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_the_kernels_of_a_graph_that_is_replayed(tmp_path):
    gpu = open_device("cuda:0")
    a = gpu.random(1024, 1024, dtype=torch.float32)
    product = torch.empty_like(a)
    replay = captured(gpu, [lambda: torch.mm(a, a, out=product)] * 5)

    def run(told):
        for _ in range(3):
            replay()
            told()

    path = tmp_path / "x.trace.json.gz"
    phases = trace_run(run, gpu, path)
    assert [phase.phase for phase in phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in phases:
        # A product may take more kernels than one, all products alike.
        assert phase.kernels
        assert all(kernel.calls % 5 == 0 for kernel in phase.kernels)
        assert 0 < phase.busy_ms <= phase.milliseconds
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "cudaGraphLaunch" for event in events) == 3


def test_without_a_gpu_operators_count_by_their_own_time():
    operators = [event("aten::linear", 10, 900, own=10), event("aten::mm", 20, 880, own=800)]
    prefill, decode = phases_of([*SPANS, *operators])
    assert [(k.name, k.milliseconds) for k in prefill.kernels] == [
        ("aten::mm", pytest.approx(0.8)),
        ("aten::linear", pytest.approx(0.01)),
    ]
    assert decode.kernels == ()
