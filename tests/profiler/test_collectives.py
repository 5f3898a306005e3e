"""GPUs send each other messages over NCCL; the tests of ranks do so over gloo."""

import pytest
import torch

from model.precision import Precision
from profiler.collectives import KINDS, measure_collectives
from profiler.ranks import run_on_ranks

# Of two large ones the first is replayed behind the second one's capture.
SIZES = (1 << 25, 1 << 26)
GPUS = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


@pytest.mark.gpu
@pytest.mark.skipif(len(GPUS) < 2, reason="needs two CUDA devices")
def test_all_gpus_send_each_other_messages_of_each_kind_and_size():
    rows = run_on_ranks(GPUS, 1, measure_collectives, Precision.BF16, SIZES, 4)
    assert [row.kind for row in rows] == [kind.value for kind in KINDS for _ in SIZES]
    # The values are dealt out to all ranks, so that a message may be a little shorter.
    sizes = [row.shape["message_bytes"] for row in rows]
    assert sizes == pytest.approx([*SIZES] * len(KINDS), rel=0.01)
    assert {row.shape.get("ranks", len(GPUS)) for row in rows} == {len(GPUS)}
    latencies = [row.latency_ms for row in rows]
    assert all(0 < each.p10 <= each.median <= each.p90 for each in latencies)
    for small, large in zip(latencies[::2], latencies[1::2], strict=True):
        # 64 MiB take tens of microseconds over the quickest links.
        assert large.median > max(small.median, 0.02)
