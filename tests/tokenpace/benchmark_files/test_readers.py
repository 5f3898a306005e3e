"""Files as the tools write them, shortened, and what is read from them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files.deployments import merged
from tokenpace.benchmark_files.reading import parse, read

VLLM = {
    "date": "20260102-030405",
    "backend": "openai",
    "label": None,
    "model_id": "meta-llama/Llama-3.1-8B",
    "tokenizer_id": "meta-llama/Llama-3.1-8B",
    "num_prompts": 200,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 16,
    "duration": 61.0,
    "completed": 200,
    "failed": 0,
    "total_input_tokens": 204_800,
    "total_output_tokens": 25_600,
    "request_throughput": 3.28,
    "output_throughput": 419.7,
    "total_token_throughput": 3777.0,
    "max_concurrent_requests": 19,
    "mean_ttft_ms": 180.0,
    "median_ttft_ms": 150.0,
    "std_ttft_ms": 80.0,
    "p99_ttft_ms": 420.0,
    "mean_tpot_ms": 9.2,
    "median_tpot_ms": 9.0,
    "std_tpot_ms": 0.4,
    "p99_tpot_ms": 10.1,
    "mean_itl_ms": 9.1,
    "median_itl_ms": 8.9,
    "mean_e2el_ms": 1348.0,
    "median_e2el_ms": 1300.0,
}


def metric(unit, **statistics):
    return {"unit": unit} | statistics


AIPERF = {
    "request_throughput": metric("requests/sec", avg=5.0),
    "output_token_throughput": metric("tokens/sec", avg=640.0),
    "request_count": metric("requests", avg=100.0),
    "time_to_first_token": metric("ms", avg=110.0, p50=100.0, p99=300.0, std=20.0),
    "inter_token_latency": metric("ms", avg=8.1, p50=8.0, p99=9.5, std=0.2),
    "request_latency": metric("ms", avg=1600.0, p50=1580.0, p99=2000.0),
    "input_sequence_length": metric("tokens", avg=550.2, p50=550.0, std=10.0),
    "output_sequence_length": metric("tokens", avg=128.0, p50=128.0, std=0.0),
    "input_config": {
        "endpoint": {"model_names": ["Qwen/Qwen3-32B"], "type": "chat"},
        "loadgen": {"concurrency": 8, "request_count": 100},
    },
}


def summary(mean, median=None, deviation=0.0):
    found = {
        "mean": mean,
        "median": mean if median is None else median,
        "std_dev": deviation,
        "percentiles": {"p50": median or mean, "p90": mean, "p99": mean},
    }
    return {"successful": found, "incomplete": {}, "errored": {}, "total": found}


def guidellm_run(strategy, **metrics):
    return {
        "config": {"strategy": strategy},
        "metrics": {
            "time_to_first_token_ms": summary(90.0, 80.0),
            "inter_token_latency_ms": summary(7.2, 7.0),
            "time_per_output_token_ms": summary(7.9, 7.7),
            "request_latency": summary(1.0),
            "requests_per_second": summary(4.0),
            "request_concurrency": summary(3.9),
            "prompt_token_count": summary(512.0),
            "output_token_count": summary(128.0),
        }
        | metrics,
    }


def one(document):
    (row,) = parse(json.dumps(document), "file.json").rows
    return row


def codes(row):
    return [suspicion.code for suspicion in row.suspicions]


# --- vLLM ---------------------------------------------------------------------


def test_vllm_is_read_by_its_medians_and_mean_lengths():
    row = one(VLLM)
    assert (row.model, row.engine, row.device, row.tensor) == (VLLM["model_id"], "", "", None)
    assert (row.input_tokens, row.output_tokens, row.concurrency) == (1024, 128, 16)
    assert (row.ttft_ms, row.tpot_ms) == (150.0, 9.0)
    assert codes(row) == []


def test_vllm_appends_one_object_a_line():
    text = "\n".join(json.dumps(VLLM | {"max_concurrency": load}) for load in (1, 4)) + "\n"
    rows = parse(text, "runs.jsonl").rows
    assert [(row.source, row.concurrency) for row in rows] == [
        ("runs.jsonl:1", 1),
        ("runs.jsonl:2", 4),
    ]


def test_vllm_metadata_says_version_and_degrees():
    row = one(VLLM | {"version": "0.11.0", "tp": "4", "dp": 2})
    assert (row.engine_version, row.tensor, row.data, row.expert) == ("0.11.0", 4, 2, None)


def test_vllms_open_loop_has_as_many_in_flight_as_little_says():
    row = one(VLLM | {"request_rate": 3.3, "max_concurrency": None})
    assert row.concurrency == round(3.28 * 1.348)
    untold = {k: v for k, v in VLLM.items() if k != "mean_e2el_ms"}
    row = one(untold | {"request_rate": 3.3, "max_concurrency": None})
    assert row.concurrency == round(3.28 * (0.180 + 127 * 0.0092))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"failed": 3}, "FAILED_REQUESTS"),
        ({"failed": None, "completed": 190}, "FAILED_REQUESTS"),
        ({"request_rate": 5.0}, "SATURATED"),
        ({"max_concurrency": None}, "BURST"),
        ({"median_ttft_ms": 90_000.0}, "SATURATED"),
        ({"input_lens": [10, 20, 30, 4000], "ttfts": [0.1] * 4}, "HEAVY_TAILED_LENGTHS"),
        ({"output_lens": [5, 5, 5, 900]}, "HEAVY_TAILED_LENGTHS"),
    ],
)
def test_vllms_traps_are_named(changes, code):
    assert codes(one(VLLM | changes)) == [code]


def test_even_lengths_and_an_endless_rate_as_a_number_are_no_trap():
    detailed = {"input_lens": [1020, 1024, 1028], "itls": [[0.1, 0.2]] * 3}
    assert codes(one(VLLM | detailed | {"request_rate": float("inf")})) == []


def test_a_run_without_answers_is_no_row():
    with pytest.raises(ArgumentError, match="no request was completed"):
        one(VLLM | {"completed": 0})


def test_a_run_of_one_token_has_no_tpot():
    row = one(VLLM | {"median_tpot_ms": 0.0, "total_output_tokens": 200})
    assert row.tpot_ms is None


# --- aiperf -------------------------------------------------------------------


def test_aiperfs_inter_token_latency_is_tpot():
    row = one(AIPERF)
    assert (row.ttft_ms, row.tpot_ms) == (100.0, 8.0)
    assert (row.input_tokens, row.output_tokens, row.concurrency) == (550, 128, 8)
    assert row.model == "Qwen/Qwen3-32B"
    assert codes(row) == []


def test_aiperfs_units_are_read():
    seconds = metric("s", avg=0.11, p50=0.1)
    assert one(AIPERF | {"time_to_first_token": seconds}).ttft_ms == pytest.approx(100.0)
    with pytest.raises(ArgumentError, match="time_to_first_token is in 'tokens'"):
        one(AIPERF | {"time_to_first_token": metric("tokens", avg=1.0)})


def test_aiperf_with_a_rate():
    load = {"input_config": {"loadgen": {"request_rate": 5.1}}}
    row = one(AIPERF | load)
    assert (row.concurrency, row.model, codes(row)) == (8, "", [])
    assert codes(one(AIPERF | {"input_config": {"loadgen": {"request_rate": 9.0}}})) == [
        "SATURATED"
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"error_request_count": metric("requests", avg=2.0)}, "FAILED_REQUESTS"),
        ({"input_config": {}}, "BURST"),
        ({"input_sequence_length": metric("tokens", avg=500.0, std=600.0)}, "HEAVY_TAILED_LENGTHS"),
        ({"time_to_first_token": metric("ms", p50=70_000.0)}, "SATURATED"),
    ],
)
def test_aiperfs_traps_are_named(changes, code):
    assert codes(one(AIPERF | changes)) == [code]


# --- GuideLLM -----------------------------------------------------------------


def test_guidellm_has_a_row_for_each_load():
    document = {
        "benchmarks": [
            guidellm_run({"type_": "synchronous"}),
            guidellm_run({"type_": "concurrent", "streams": 4}),
            guidellm_run({"type_": "constant", "rate": 4.1}),
        ]
    }
    rows = parse(json.dumps(document), "benchmarks.json").rows
    assert [row.concurrency for row in rows] == [1, 4, 4]
    assert {(row.ttft_ms, row.tpot_ms, row.input_tokens) for row in rows} == {(80.0, 7.0, 512)}
    assert [codes(row) for row in rows] == [[], [], []]
    assert rows[1].source == "benchmarks.json:benchmarks[1]"


def test_guidellms_time_per_output_token_counts_the_first():
    """128 tokens in 7.7 ms each are 985.6 ms, 80 of them before the first."""
    run = guidellm_run({"type_": "synchronous"}, inter_token_latency_ms={})
    (row,) = parse(json.dumps({"benchmarks": [run]}), "b.json").rows
    assert row.tpot_ms == pytest.approx((128 * 7.7 - 80.0) / 127)
    assert codes(row) == ["TPOT_COUNTS_FIRST_TOKEN"]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (guidellm_run({"type_": "throughput", "max_concurrency": 64}), "BURST"),
        (guidellm_run({"type_": "poisson", "rate": 8.0}), "SATURATED"),
        (
            guidellm_run(
                {"type_": "synchronous"}, request_totals={"successful": 90, "errored": 10}
            ),
            "FAILED_REQUESTS",
        ),
        (
            guidellm_run({"type_": "synchronous"}, prompt_token_count=summary(512.0, 100.0, 700.0)),
            "HEAVY_TAILED_LENGTHS",
        ),
    ],
)
def test_guidellms_traps_are_named(run, code):
    assert codes(one({"benchmarks": [run]})) == [code]


# --- CSV ----------------------------------------------------------------------


def test_a_table_of_ones_own():
    text = (
        "model,device,engine,engine_version,precision,tp,input_tokens,output_tokens,concurrency,"
        "batch_size,ttft_ms,tpot_ms\n"
        "llama-3.1-8b,h100-sxm,vllm,0.11,bf16,2,1024,128,16,,150,9.0\n"
        "llama-3.1-8b,h100-sxm,vllm,0.11,bf16,2,1024,128,,4,,8.5\n"
    )
    first, second = parse(text, "mine.csv").rows
    assert (first.model, first.tensor, first.concurrency, first.ttft_ms) == (
        "llama-3.1-8b",
        2,
        16,
        150.0,
    )
    assert (second.concurrency, second.batch_size, second.ttft_ms, second.tpot_ms) == (
        None,
        4,
        None,
        8.5,
    )
    assert second.source == "mine.csv:3"


def test_columns_that_are_not_read_are_told_and_near_misses_refused():
    found = parse("input_tokens,tpot_ms,operator\n1,2,me\n", "mine.csv")
    assert found.notes == ("columns that were not read: operator",)
    with pytest.raises(ArgumentError, match="did you mean tpot_ms"):
        parse("input_tokens,ttft_ms,tpot\n1,2,3\n", "mine.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input_tokens,tpot_ms\n1,fast\n", "mine.csv:2: tpot_ms is 'fast'"),
        ("input_tokens,tpot_ms\n1,-3\n", "above 0"),
        ("input_tokens,tpot_ms\n1,nan\n", "above 0"),
        ("input_tokens,tpot_ms\n1.5,3\n", "whole number"),
        ("input_tokens,tpot_ms\n1\n", "more or fewer values"),
        ("input_tokens,tpot_ms\n1,2,3\n", "more or fewer values"),
        ("input_tokens,tpot_ms\n", "no row"),
        ("name,value\na,1\n", "ttft_ms or tpot_ms"),
        ('a,tpot_ms\n"1,2\n', "is no CSV file"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_with_its_place(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse(text, "mine.csv")


SAMPLE = (
    "id,silicon_data_source,backend,backend_version,model_path,system,precision,mode,isl,osl,"
    "gemm_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size,"
    "silicon_ttft_ms,silicon_tpot_ms\n"
    "x_tp8_ep8_1,source_file=2026-04-06.csv; silicon_concurrency=64,sglang,0.5.9,"
    "deepseek-ai/DeepSeek-R1,h200_sxm,fp8,{mode},1024,1024,fp8_block,2,64,1,1,1,8,300.5,20.25\n"
)


def test_the_columns_of_silicon_sample_with_their_labels_corrected():
    (row,) = parse(SAMPLE.format(mode="agg"), "s.csv").rows
    assert (row.model, row.device, row.engine, row.engine_version) == (
        "deepseek-ai/DeepSeek-R1",
        "h200-sxm",
        "sglang",
        "0.5.9",
    )
    assert (row.tensor, row.data, row.expert, row.pipeline) == (8, 1, 8, 1)
    assert (row.concurrency, row.precision) == (64, "model")
    assert (row.ttft_ms, row.tpot_ms) == (300.5, 20.25)


@pytest.mark.parametrize(
    ("model", "label", "mode", "meant"),
    [
        ("deepseek-ai/DeepSeek-R1", "fp8", "fp8", "model"),
        ("deepseek-ai/DeepSeek-R1", "fp4", "nvfp4", "fp4"),
        ("openai/gpt-oss-120b", "fp4", "nvfp4", "model"),
        ("moonshotai/Kimi-K2.5", "int4", "int4_wo", "model"),
        ("Qwen/Qwen3-32B", "fp8", "fp8_block", "fp8-block"),
        ("Qwen/Qwen3-32B", "fp8", "fp8", "fp8"),
        ("Qwen/Qwen3-32B", "", "", "model"),
    ],
)
def test_labels_that_stand_for_the_checkpoints_own_format(model, label, mode, meant):
    line = SAMPLE.replace("deepseek-ai/DeepSeek-R1,h200_sxm,fp8", f"{model},h200_sxm,{label}")
    (row,) = parse(line.format(mode="agg").replace("fp8_block", mode), "s.csv").rows
    assert row.precision == meant


def test_a_measurement_that_dumps_repeat_counts_once():
    once, line = SAMPLE.format(mode="agg").splitlines()
    rows = [line, line.replace("DeepSeek-R1", "DeepSeek-V3"), line.replace("300.5", "300.5012")]
    rows += [line.replace("300.5", "301.5"), line.replace("=64", "=32")]
    found = merged(parse("\n".join([once, *rows]), "s.csv").rows)
    assert [(row.ttft_ms, row.concurrency) for row in found] == [
        (300.5, 64),
        (301.5, 64),
        (300.5, 32),
    ]


def test_disaggregated_rows_are_left_out_and_counted():
    both = SAMPLE.format(mode="agg") + SAMPLE.format(mode="disagg").splitlines()[1] + "\n"
    found = parse(both, "s.csv")
    assert len(found.rows) == 1
    assert found.notes[0].startswith("1 rows")
    with pytest.raises(ArgumentError, match="separate devices alone"):
        parse(SAMPLE.format(mode="disagg"), "s.csv")


# --- anything else ------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{}", "[]x", "[1, 2]", '{"num_prompts": 3}', "hello", "{\n{"])
def test_what_no_known_tool_wrote_is_refused(text):
    with pytest.raises(ArgumentError):
        parse(text, "file")


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        read(tmp_path / "none.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="no text in UTF-8"):
        read(binary)
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbfinput_tokens,tpot_ms\r\n1,2\r\n")
    assert read(marked).rows[0].tpot_ms == 2.0


leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.sampled_from([VLLM, AIPERF, {"benchmarks": [guidellm_run({"type_": "constant"})]}]),
    st.data(),
)
def test_any_value_in_any_place_is_read_or_refused(document, data):
    copy = json.loads(json.dumps(document))
    here = copy
    while True:
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else [0]))
        if isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans()):
            here = here[key]
            continue
        here[key] = data.draw(values)
        break
    try:
        rows = parse(json.dumps(copy), "file.json").rows
    except ArgumentError as error:
        assert error.field.startswith("file.json")
        return
    for row in rows:
        assert all(value is None or value > 0 for value in (row.ttft_ms, row.tpot_ms))
        assert row.concurrency is None or row.concurrency >= 1


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parse(text, "file")
    except ArgumentError as error:
        assert error.field.startswith("file")


@given(st.lists(st.lists(st.text(max_size=6), min_size=3, max_size=3), min_size=1, max_size=3))
def test_any_table_is_read_or_refused(lines):
    text = "input_tokens,concurrency,tpot_ms\n" + "\n".join(",".join(line) for line in lines)
    try:
        rows = parse(text, "file").rows
    except ArgumentError as error:
        assert error.field.startswith("file")
        return
    assert all(row.tpot_ms is None or row.tpot_ms > 0 for row in rows)
