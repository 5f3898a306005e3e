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


def event(name, start, end, device="CPU", own=0.0, *, annotation=False):
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(
        name=name,
        time_range=span,
        device_type=SimpleNamespace(name=device),
        self_cpu_time_total=own,
        is_user_annotation=annotation,
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
    assert decode.idle_share == pytest.approx(1 - 0.27 / 0.5)
    assert decode.communication_share == 0


def test_nccls_kernels_communicate_where_no_other_runs_beside_them():
    kernels = [
        event("gemm", 1420, 1520, "CUDA"),
        event("nccl:all_reduce", 1500, 1600, "CUDA", annotation=True),
        event("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 1500, 1600, "CUDA"),
        event("gemm", 1580, 1700, "CUDA"),
        event("ncclDevKernel_AllGather_RING_LL", 1750, 1800, "CUDA"),
    ]
    _, decode = phases_of([*SPANS, *kernels])
    assert decode.communication_share == pytest.approx((0.06 + 0.05) / 0.5)
    assert decode.idle_share == pytest.approx(1 - (0.28 + 0.05) / 0.5)
    assert [kernel.name for kernel in decode.kernels] == [
        "gemm",
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL",
        "ncclDevKernel_AllGather_RING_LL",
    ]


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
    phases = trace_run(run, gpu, path, {}, 0.0)
    assert [phase.phase for phase in phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in phases:
        # A product may take more kernels than one, all products alike.
        assert phase.kernels
        assert all(kernel.calls % 5 == 0 for kernel in phase.kernels)
        assert 0 <= phase.idle_share < 1
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
    assert prefill.idle_share == pytest.approx(1 - 0.89)
    assert prefill.communication_share == 0


def test_an_operator_waits_in_gloos_message_which_is_listed_with_all_of_it():
    operators = [
        event("aten::mm", 10, 110, own=100),
        event("c10d::_allgather_base_", 120, 180, own=40),
        event("aten::chunk", 130, 150, own=20),
        event("gloo:all_gather", 150, 400),
        event("aten::copy_", 300, 380, own=80),  # on gloo's thread
        event("aten::mm", 410, 510, own=100),
        event("c10d::allreduce_", 980, 990, own=10),
        event("gloo:all_reduce", 985, 1005),  # its thread notes the end late
    ]
    prefill, _ = phases_of([*SPANS, *operators])
    assert prefill.communication_share == pytest.approx(0.28 + 0.02)
    assert prefill.idle_share == pytest.approx(1 - (0.1 + 0.28 + 0.1 + 0.02))
    assert [(k.name, k.calls, k.milliseconds) for k in prefill.kernels] == [
        ("gloo:all_gather", 1, pytest.approx(0.25)),
        ("aten::mm", 2, pytest.approx(0.2)),
        ("gloo:all_reduce", 1, pytest.approx(0.015)),
    ]


def test_layers_that_are_missing_idle_and_communicate_as_those_that_ran_alone():
    decoding = [event("gemm", 1400, 1800, "CUDA"), event("nccl", 1800, 1850, "CUDA")]
    alone = [
        event("tokenpace layers of decode step", 2000, 2100),
        event("tokenpace layers of decode step", 2000, 2090, "CUDA"),
        event("gemm", 2010, 2060, "CUDA"),
        event("nccl", 2060, 2090, "CUDA"),
    ]
    _, decode = phases_of([*SPANS, *decoding, *alone], missing=7.0)
    # A head of 400 us and layers of 100 us, which stand for eight times as many.
    assert decode.milliseconds == pytest.approx(0.5)
    assert decode.communication_share == pytest.approx((50 + 7 * 30) / (500 + 7 * 100))
    assert decode.idle_share == pytest.approx(1 - (450 + 7 * 80) / (500 + 7 * 100))
    assert [(k.name, k.calls) for k in decode.kernels] == [("gemm", 1), ("nccl", 1)]
