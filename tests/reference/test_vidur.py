"""Profiles in Vidur's layout, with made-up times."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference.errors import MeasurementFileError
from reference.files import file_import

STATISTICS = ("min", "max", "mean", "median", "std")
PRODUCTS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
OTHERS = ("emb", "input_layernorm", "attn_rope", "post_attention_layernorm", "mlp_act", "add")


def times(**medians):
    """The columns of each timed operation; None is an operation that did not run."""
    return {
        f"time_stats.{name}.{statistic}": "" if median is None else median
        for name, median in medians.items()
        for statistic in STATISTICS
    }


def mlp(tokens, workers=1, **changes):
    spent = dict.fromkeys(OTHERS, 0.01) | {name: 0.1 * (i + 1) for i, name in enumerate(PRODUCTS)}
    sizes = {
        "n_head": 64,
        "n_kv_head": 8,
        "n_embd": 8192,
        "n_expanded_embd": 28672,
        "vocab_size": 128256,
        "use_gated_mlp": True,
        "num_tokens": tokens,
        "num_tensor_parallel_workers": workers,
    }
    return times(**spent) | sizes | changes


def attention(batch, chunk, cached, *, prefill, **changes):
    spent = {"attn_input_reshape": 0.001, "attn_output_reshape": 0.001}
    spent |= {"attn_decode": None if prefill else 0.02, "attn_prefill": 0.3 if prefill else None}
    sizes = {
        "n_embd": 8192,
        "n_q_head": 64,
        "n_kv_head": 8,
        "block_size": 16,
        "num_tensor_parallel_workers": 4,
        "max_model_len": 4096,
        "batch_size": batch,
        "prefill_chunk_size": chunk,
        "kv_cache_size": cached,
        "is_prefill": prefill,
        "attention_backend": "AttentionBackend.FLASHINFER",
    }
    return times(**spent) | sizes | changes


def collective(workers, size, *, name="all_reduce", together=None):
    return {"": 0, **times(**{name: 0.04})} | {
        "rank": 0,
        "num_workers": workers,
        "size": size,
        "collective": name,
        "devices_per_node": together or workers,
        "max_devices_per_node": 8,
    }


def write(folder, name, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / name).write_text(text.getvalue(), encoding="utf-8")
    return folder / name


def bring(*paths, engine="vllm"):
    return file_import(paths, device="a100-sxm", engine=engine, origin="", limit=10_000)


def rows(*paths):
    (source,) = bring(*paths).sources
    return source.rows


def problems(*paths, **options):
    with pytest.raises(MeasurementFileError) as caught:
        bring(*paths, **options)
    return caught.value.problems


def test_products_of_a_layer_are_those_of_one_rank(tmp_path):
    found = rows(write(tmp_path, "mlp.csv", [mlp(128, workers=4)]))
    shapes = [(row.shape["m"], row.shape["n"], row.shape["k"]) for row in found]
    assert shapes == [
        (128, (64 + 2 * 8) * 128 // 4, 8192),
        (128, 8192, 8192 // 4),
        (128, 2 * 28672 // 4, 8192),
        (128, 8192, 28672 // 4),
    ]
    assert [row.latency_ms for row in found] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert {(row.kind, row.precision, row.engine) for row in found} == {("linear", "fp16", "vllm")}
    assert found[0].group == "2560x8192"


def test_without_a_gate_the_up_projection_is_one_matrix(tmp_path):
    found = rows(write(tmp_path, "mlp.csv", [mlp(128, use_gated_mlp=False)]))
    assert found[2].shape["n"] == 28672


def test_prefills_and_decodes_count_the_tokens_attended_to(tmp_path):
    profile = [attention(16, 0, 1023, prefill=False), attention(1, 512, 1024, prefill=True)]
    decode, prefill = rows(write(tmp_path, "attention.csv", profile))
    heads = {"query_heads": 16.0, "kv_heads": 2.0, "head_dim": 128.0}
    assert decode.shape == {"sequences": 16, "query_tokens": 1, "kv_tokens": 1024} | heads
    assert prefill.shape == {"sequences": 1, "query_tokens": 512, "kv_tokens": 1536} | heads
    assert (decode.latency_ms, prefill.latency_ms) == (0.02, 0.3)
    assert decode.group == prefill.group == "16/2"


def test_only_all_reduces_inside_a_machine_are_taken(tmp_path):
    profile = [collective(1, 2048), collective(4, 65536), collective(4, 65536, together=2)]
    file = write(tmp_path, "all_reduce.csv", profile)
    (row,) = rows(file)
    assert row.shape == {"message_bytes": 65536, "ranks": 4}
    assert (row.kind, row.precision) == ("all_reduce", "bf16")
    assert bring(file).notes == (
        "all_reduce.csv: times that are not imported: 1 of all_reduce of a single GPU,"
        " 1 of all_reduce across machines",
    )


def test_what_is_not_imported_is_counted_and_named(tmp_path):
    file = write(tmp_path, "mlp.csv", [mlp(1), mlp(2) | times(attn_pre_proj=0.0)])
    found = bring(file)
    assert len(found.sources[0].rows) == 7
    (note,) = found.notes
    assert all(f"2 of {name}" in note for name in OTHERS)
    assert "1 of attn_pre_proj, too short for Vidur's microseconds" in note


def test_a_file_of_nothing_usable_is_refused(tmp_path):
    file = write(tmp_path, "send_recv.csv", [collective(2, 2048, name="send_recv")])
    assert problems(file) == ("send_recv.csv holds nothing that can be imported; leave it out",)


def test_an_engine_is_asked_for(tmp_path):
    file = write(tmp_path, "mlp.csv", [mlp(1)])
    assert problems(file, engine="") == ("mlp.csv names no engine; pass --engine, such as vllm",)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (mlp("x"), "mlp.csv:2: num_tokens is 'x'; it must be a whole number from 1 on"),
        (mlp(1, use_gated_mlp="?"), "mlp.csv:2: use_gated_mlp is '?'; it must be True or False"),
        (
            mlp(1, workers=3),
            "mlp.csv:2: n_head is 64, which num_tensor_parallel_workers, 3, does not divide",
        ),
        (mlp(1, n_embd=8193), "mlp.csv:2: n_embd is 8193, which n_head, 64, does not divide"),
        (
            mlp(1) | times(attn_pre_proj="fast"),
            "mlp.csv:2: time_stats.attn_pre_proj.median is 'fast'; it must be a number of",
        ),
        (
            attention(1, 0, 512, prefill=True),
            "mlp.csv:2: prefill_chunk_size is 0 in a prefill; remove the line",
        ),
        (attention("", 1, 1, prefill=True), "mlp.csv:2: batch_size is empty; it must be a whole"),
        (collective("", 8), "mlp.csv:2: num_workers is empty; it must be a whole number from 1 on"),
    ],
)
def test_a_wrong_cell_is_named_with_the_remedy(tmp_path, row, problem):
    assert problems(write(tmp_path, "mlp.csv", [row]))[0].startswith(problem)


def test_a_profile_that_lacks_columns_names_them(tmp_path):
    row = mlp(1)
    del row["n_kv_head"]
    assert problems(write(tmp_path, "mlp.csv", [row]))[0].startswith(
        "mlp.csv:1: n_kv_head is missing for a profile of Vidur"
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 1 << 15),
    kv_heads=st.integers(1, 16),
    ratio=st.integers(1, 16),
    head_dim=st.sampled_from((64, 80, 128)),
    inner=st.integers(1, 1 << 16),
    workers=st.sampled_from((1, 2, 4, 8)),
    gated=st.booleans(),
)
def test_the_ranks_products_are_together_those_of_the_whole_model(
    tmp_path, tokens, kv_heads, ratio, head_dim, inner, workers, gated
):
    heads, kv_heads, inner = kv_heads * ratio * workers, kv_heads * workers, inner * workers
    hidden = heads * head_dim
    changes = {"n_head": heads, "n_kv_head": kv_heads, "n_embd": hidden}
    changes |= {"n_expanded_embd": inner, "use_gated_mlp": gated}
    found = rows(write(tmp_path, "mlp.csv", [mlp(tokens, workers=workers, **changes)]))
    weights = workers * sum(row.shape["n"] * row.shape["k"] for row in found)
    attention_weights = hidden * (2 * hidden + 2 * kv_heads * head_dim)
    assert weights == attention_weights + (3 if gated else 2) * hidden * inner
    assert {row.shape["m"] for row in found} == {tokens}
