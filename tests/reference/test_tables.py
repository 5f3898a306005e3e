"""Tables of every kind, written as published ones are and read back; and the real ones."""

import importlib.util
import math

import pytest

from reference import faults, operations, sources, tables
from reference.errors import NotInstalledError

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra `reference`) is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

REAL = pytest.mark.skipif(
    importlib.util.find_spec(tables.PACKAGE) is None,
    reason=f"{tables.DISTRIBUTION} (the extra `reference`) is not installed",
)


def write(folder, path, columns):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), file)


def gemm(folder, version, latency, engine="vllm"):
    write(
        folder,
        f"h100_sxm/gemm/{engine}/{version}/gemm_perf.parquet",
        {
            "gemm_dtype": ["bfloat16", "bfloat16", "unknown"],
            "m": [8, 8, 8],
            "n": [512, 512, 512],
            "k": [1024, 1024, 1024],
            "latency": [latency, 2 * latency, latency],
        },
    )


def read(folder, engine="vllm", limit=100):
    return [(r.table, r.rows) for r in operations.rows("h100-sxm", engine, folder, limit)]


def test_the_newest_version_and_the_fastest_kernel_count(tmp_path):
    gemm(tmp_path, "0.9.0", 1.0)
    gemm(tmp_path, "0.24.0", 0.5)
    gemm(tmp_path, "0.24.0rc1", 3.0)
    ((table, (row,)),) = read(tmp_path)
    assert (table.engine, table.version) == ("vllm", "0.24.0")
    assert row.kind == "linear"
    assert row.precision == "bf16"
    assert row.shape == {"m": 8.0, "n": 512.0, "k": 1024.0}
    assert row.latency_ms == 0.5


def test_another_engine_stands_in_and_says_so(tmp_path):
    gemm(tmp_path, "1.0", 0.5, engine="sglang")
    ((table, (row,)),) = read(tmp_path)
    assert table.engine == row.engine == "sglang"


def test_attention_has_its_window_and_its_own_kv_heads(tmp_path):
    write(
        tmp_path,
        "h100_sxm/attention/vllm/1/generation_attention_perf.parquet",
        {
            "attn_dtype": ["bfloat16", "fp8"],
            "kv_cache_dtype": ["fp8", "fp8"],
            "window_size": [128, 0],
            "batch_size": [4, 4],
            "isl": [1, 1],
            "step": [1023, 1023],
            "num_heads": [16, 16],
            "num_key_value_heads": [0, 8],
            "head_dim": [64, 64],
            "latency": [0.1, 0.1],
        },
    )
    ((_, (row,)),) = read(tmp_path)
    assert row.precision == "fp8"
    assert row.shape["kv_tokens"] == 1024
    assert row.shape["kv_heads"] == 16
    assert row.shape["window"] == 128


def test_experts_are_those_of_one_rank_dealt_out_in_turn(tmp_path):
    write(
        tmp_path,
        "h100_sxm/moe/vllm/1/moe_perf.parquet",
        {
            "kernel_source": ["triton", "triton", "x_nongated"],
            "moe_dtype": ["fp8_block"] * 3,
            "distribution": ["balanced", "power_law_1.2", "balanced"],
            "moe_tp_size": [2, 2, 2],
            "moe_ep_size": [4, 4, 4],
            "num_tokens": [16] * 3,
            "hidden_size": [6144] * 3,
            "inter_size": [2048] * 3,
            "num_experts": [256] * 3,
            "topk": [8] * 3,
            "latency": [0.3, 0.1, 0.1],
        },
    )
    ((_, (row,)),) = read(tmp_path)
    assert row.precision == "fp8-block"
    assert (row.shape["intermediate_size"], row.shape["local_experts"]) == (1024, 64)
    assert (row.shape["touched"], row.shape["imbalance"]) == (32, 1)
    assert row.latency_ms == 0.3


def experts(folder, path="vllm/1", **changed):
    columns = {
        "kernel_source": ["one"],
        "moe_dtype": ["fp8_block"],
        "distribution": ["balanced"],
        "moe_tp_size": [1],
        "moe_ep_size": [1],
        "num_tokens": [64],
        "hidden_size": [7168],
        "inter_size": [2048],
        "num_experts": [256],
        "topk": [8],
        "latency": [4.0],
    } | changed
    rows = max(len(column) for column in columns.values())
    columns = {name: (column * rows)[:rows] for name, column in columns.items()}
    write(folder, f"h100_sxm/moe/{path}/moe_perf.parquet", columns)


def test_what_cannot_be_right_is_left_out_and_counted(tmp_path):
    # 11.3 GB of weights take 3.4 ms at 3.35 TB/s.
    experts(tmp_path, "trtllm/1", num_tokens=[64, 80, 96], latency=[3.3, 3.5, 3.2])
    (found,) = operations.rows("h100-sxm", "trtllm", tmp_path, 100)
    assert [row.latency_ms for row in found.rows] == [3.5]
    assert found.left_out == {faults.TOO_FAST: 2}


@pytest.mark.parametrize(
    ("latency", "kept"),
    [
        # Choices of other ranks' experts went to the first of the rank's own: A100's rows.
        ([57.8, 57.5, 57.0, 57.5, 28.6], 1),
        ([57.8, 29.0, 14.8, 8.1, 5.0], 5),
        # A large overhead beside it is none of another rank's choices (as on L40S).
        ([57.8, 50.0, 46.0, 44.5, 44.0], 5),
        # One odd row does not tell of all.
        ([57.8, 57.5, 14.8, 8.1, 5.0], 5),
    ],
)
def test_ranks_that_ran_others_choices_are_left_out_and_counted(tmp_path, latency, kept):
    sizes = {"num_tokens": [16384], "hidden_size": [4096], "num_experts": [128]}
    # Its ranks had what is theirs, whatever the other layer's had.
    sizes |= {"inter_size": [1536] * 5 + [768] * 5, "moe_ep_size": [1, 2, 4, 8, 16] * 2}
    experts(tmp_path, "sglang/1", **sizes, latency=[*latency, 28.8, 14.8, 8.1, 4.6, 3.0])
    (found,) = operations.rows("h100-sxm", "sglang", tmp_path, 100)
    widths = [row.shape["intermediate_size"] for row in found.rows]
    assert (widths.count(1536), widths.count(768)) == (kept, 5)
    assert found.left_out[faults.OTHERS_CHOICES] == 5 - kept


def test_a_single_choice_is_never_another_ranks(tmp_path):
    experts(
        tmp_path, "sglang/1", topk=[1], num_experts=[16], moe_ep_size=[1, 2], latency=[4.0, 4.0]
    )
    (found,) = operations.rows("h100-sxm", "sglang", tmp_path, 100)
    assert len(found.rows) == 2


def test_an_older_version_stands_in_where_the_newest_lacks_the_kind(tmp_path):
    experts(tmp_path, "trtllm/2", kernel_source=["one_nongated"])
    experts(tmp_path, "trtllm/1")
    ((table, (row,)),) = read(tmp_path, "trtllm")
    assert (table.engine, table.version) == ("trtllm", "1")
    assert row.shape["touched"] == 256


def test_experts_without_a_gate_are_none_of_ours(tmp_path):
    experts(tmp_path, hidden_size=[2688], inter_size=[1856])
    assert read(tmp_path) == []


def test_a_precision_that_was_timed_from_the_host_is_another_engines(tmp_path):
    shape = {"m": list(range(1, 41)), "n": [64] * 40, "k": [64] * 40}
    two = {name: column * 2 for name, column in shape.items()}
    formats = ["bfloat16"] * 40 + ["fp8_block"] * 40
    for engine, launched in (("vllm", 0.057), ("sglang", 0.004)):
        times = {"gemm_dtype": formats, "latency": [0.004] * 40 + [launched] * 40}
        write(tmp_path, f"h100_sxm/gemm/{engine}/1/gemm_perf.parquet", two | times)
    found = {rows[0].precision: (table.engine, len(rows)) for table, rows in read(tmp_path)}
    assert found == {"bf16": ("vllm", 40), "fp8-block": ("sglang", 40)}
    (every,) = operations.rows("h100-sxm", "vllm", tmp_path, 100, launched=True)
    assert (every.table.engine, len(every.rows)) == ("vllm", 80)


def test_linear_attention_is_a_recurrence_and_a_convolution(tmp_path):
    columns = {
        "kernel_source": ["causal_conv1d_update", "fused_recurrent_gated_delta_rule"],
        "batch_size": [8] * 2,
        "seq_len": [1] * 2,
        "num_k_heads": [16] * 2,
        "head_k_dim": [128] * 2,
        "num_v_heads": [32] * 2,
        "head_v_dim": [128] * 2,
        "d_conv": [4] * 2,
        "latency": [0.002, 0.02],
    }
    write(tmp_path, "h100_sxm/linear_attention/vllm/1/gdn_perf.parquet", columns)
    ((_, (convolution, recurrence)),) = read(tmp_path)
    assert (convolution.kind, convolution.shape["channels"]) == ("convolution", 8192)
    assert recurrence.kind == "linear_attention"
    assert recurrence.shape == {
        "sequences": 8,
        "query_tokens": 1,
        "key_heads": 16,
        "value_heads": 32,
        "key_dim": 128,
        "value_dim": 128,
    }


def test_parts_of_sparse_attention_are_read_where_something_ran(tmp_path):
    columns = {
        "kv_cache_dtype": ["fp8_e4m3"] * 2,
        "num_heads": [64] * 2,
        "batch_size": [4] * 2,
        "isl": [1] * 2,
        "step": [100, 5000],
        "latency": [0.0, 0.03],
    }
    for name in ("dsa_attn", "mqa_logits", "topk"):
        path = f"h100_sxm/sparse_attention/sglang/1/glm5_{name}_module_perf.parquet"
        write(tmp_path, path, columns)
    rows = [row for _, found in read(tmp_path) for row in found]
    assert [(r.kind, r.precision) for r in rows] == [
        ("sparse_mla", "fp8"),
        ("indexer", "fp8"),
        ("top_k", "fp32"),
    ]
    assert {row.shape["kv_tokens"] for row in rows} == {5001}


def test_messages_are_in_bytes_and_the_engines_own_all_reduce_counts(tmp_path):
    columns = {"num_gpus": [2, 2], "message_size": [1024, 1024], "latency": [0.01, 0.02]}
    write(
        tmp_path,
        "h100_sxm/comm/nccl/2/nccl_perf.parquet",
        columns | {"op_name": ["all_reduce", "alltoall"], "nccl_dtype": ["half", "half"]},
    )
    assert [r.kind for _, rows in read(tmp_path) for r in rows] == ["all_reduce", "all_to_all"]
    write(
        tmp_path,
        "h100_sxm/comm/vllm/1/custom_allreduce_perf.parquet",
        columns | {"kernel_source": ["custom_graph", "custom_eager"]},
    )
    rows = [row for _, found in read(tmp_path) for row in found]
    assert [(row.kind, row.engine) for row in rows] == [
        ("all_reduce", "vllm"),
        ("all_to_all", "nccl"),
    ]
    assert rows[0].shape == {"message_bytes": 2048.0, "ranks": 2.0}


def test_more_rows_than_asked_are_drawn_the_same_each_time(tmp_path):
    columns = {"gemm_dtype": ["bfloat16"] * 50, "m": list(range(1, 51))}
    columns |= {"n": [64] * 50, "k": [64] * 50, "latency": [1.0] * 50}
    write(tmp_path, "h100_sxm/gemm/vllm/1/gemm_perf.parquet", columns)
    first, second = read(tmp_path, limit=10), read(tmp_path, limit=10)
    assert first == second
    assert len(first[0][1]) == 10


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tables, "PACKAGE", "no_such_package")
    with pytest.raises(NotInstalledError, match="reference"):
        tables.data_folder()


@REAL
# The H200's are those that the command's tests import.
@pytest.mark.parametrize("device", [name for name in tables.DEVICES if name != "h200-sxm"])
def test_the_real_tables_hold_every_kind_in_plausible_times(device):
    source = sources.package_source(device, "vllm", limit=50)
    kinds = {"linear", "attention", "mla", "experts", "linear_attention", "convolution"}
    assert kinds | {"all_reduce"} <= {row.kind for row in source.rows}
    assert tables.LICENCE in source.text
    assert all(0 < row.latency_ms < math.inf for row in source.rows)
    assert len(source.text) <= 500
    # The text says what was left out.
    assert device != "h100-sxm" or f"left out 351 {faults.IN_GROUPS}" in source.text
    assert (faults.OTHERS_CHOICES in source.text) is (device == "a100-sxm")
