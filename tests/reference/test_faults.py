"""Rows that cannot be right are told by the device's memory, and by how they were routed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.hardware import data_sheet
from model.measurement import Distribution, Measurement
from model.precision import Precision
from model.shapes import operations_of
from reference.faults import (
    IN_GROUPS,
    MEMORIES,
    TOO_FAST,
    TOO_FAST_KERNEL,
    fault,
    read_bytes,
)
from reference.rows import Row
from reference.tables import DEVICES

EXPERTS = {
    "tokens": 64.0,
    "hidden_size": 7168.0,
    "intermediate_size": 2048.0,
    "local_experts": 256.0,
    "experts": 256.0,
    "top_k": 8.0,
    "touched": 256.0,
}


def row(kind, shape, latency_ms, **changed):
    fields = {"precision": "fp8-block", "engine": "vllm", "group": "g"} | changed
    return Row(kind=kind, shape=shape, latency_ms=latency_ms, **fields)


def test_memory_is_that_of_the_data_sheets():
    assert set(MEMORIES) == set(DEVICES)
    for name, memory in MEMORIES.items():
        sheet = data_sheet(name)
        assert memory == (sheet.bandwidth_bytes_per_second, sheet.last_level_cache_bytes)


def test_rows_faster_than_memory_are_told_where_the_cache_cannot_hold_them():
    # 11.3 GB at 3.35 TB/s
    assert fault(row("experts", EXPERTS, 3.3), "h100-sxm") == TOO_FAST
    assert fault(row("experts", EXPERTS, 3.4), "h100-sxm") == ""
    small = EXPERTS | {"touched": 1.0, "intermediate_size": 256.0}
    assert fault(row("experts", small, 0.0001), "h100-sxm") == ""


@pytest.mark.parametrize("kind", ["linear", "linear_per_tensor"])
def test_linears_read_all_their_weights(kind):
    assert read_bytes(row(kind, {"m": 1.0, "n": 64.0, "k": 32.0}, 1.0, precision="fp8")) == 64 * 32


def test_deepseeks_experts_count_where_all_were_met():
    dealt = row("experts", EXPERTS, 4.0, group="7168x2048x256")
    assert fault(dealt, "h100-sxm") == IN_GROUPS
    assert fault(dealt._replace(engine="trtllm"), "h100-sxm") == ""
    assert fault(dealt._replace(group="7168x2048x384"), "h100-sxm") == ""


def test_a_kernel_with_impossible_rows_is_left_out_whole():
    quick = row("experts", EXPERTS, 4.0, engine="trtllm", kernel="moe_torch_flow_min_latency")
    assert fault(quick, "b200-sxm") == TOO_FAST_KERNEL


@given(data=st.data(), precision=st.sampled_from([p for p in Precision if p != "fp32"]))
@pytest.mark.parametrize(
    "kind", ["linear", "linear_per_tensor", "batched_linear", "attention", "experts", "mla"]
)
def test_no_more_is_counted_than_the_operation_moves(kind, precision, data):
    size = st.integers(1, 300)
    names = {
        "linear": "m n k",
        "linear_per_tensor": "m n k",
        "batched_linear": "m n k batch",
        "attention": "sequences query_tokens kv_tokens query_heads kv_heads head_dim window",
        "experts": "tokens hidden_size intermediate_size local_experts touched",
        "mla": "sequences query_tokens kv_tokens query_heads kv_rank rope_dim head_dim value_dim",
    }[kind]
    shape = {name: float(data.draw(size)) for name in names.split()}
    if "kv_tokens" in shape:
        shape["kv_tokens"] += shape["query_tokens"]
    if kind == "experts":
        shape |= {"experts": shape["local_experts"], "top_k": 1.0}
    measured = Measurement(
        kind=kind,
        precision=precision,
        engine="vllm",
        shape=shape,
        latency_ms=Distribution(median=1.0, p10=1.0, p90=1.0, samples=1),
        group="g",
    )
    (operation,) = operations_of(measured)
    assert read_bytes(row(kind, shape, 1.0, precision=precision.value)) <= operation.bytes
