"""What neither a file nor a flag says is asked for by the flag's name."""

import pytest

from tokenpace.arguments import ArgumentError
from tokenpace.benchmark_files.completion import Given, check_suspicions, complete
from tokenpace.benchmark_files.rows import BenchmarkRow, Suspicion
from tokenpace.v1 import catalog_pb2, types_pb2

FILE = BenchmarkRow(
    source="run.json:1",
    model="meta-llama/Llama-3.1-8B",
    input_tokens=1024,
    output_tokens=128,
    concurrency=16,
    ttft_ms=150.0,
    tpot_ms=9.0,
)
FLAGS = {
    "device": "h100-sxm",
    "engine": "vllm",
    "engine_version": "0.11.0",
    "precision": "bf16",
    "tensor": 2,
    "presets": {"meta-llama/Llama-3.1-8B": "llama-3.1-8b", "llama-3.1-8b": "llama-3.1-8b"},
}


def completed(row=FILE, **flags):
    return complete([row], Given(**FLAGS | flags))[0]


def changed(**values):
    known = {name: getattr(FILE, name) for name in FILE.__dataclass_fields__}
    return BenchmarkRow(**known | values)


def test_file_and_flags_make_a_row():
    assert completed() == catalog_pb2.CalibrationRow(
        model=types_pb2.ModelSpec(preset="llama-3.1-8b"),
        device="h100-sxm",
        workload=types_pb2.Workload(input_tokens=1024, output_tokens=128, concurrency=16),
        parallelism=types_pb2.Parallelism(tensor=2, pipeline=1, expert=1, data=1),
        precision=types_pb2.PRECISION_BF16,
        engine="vllm",
        engine_version="0.11.0",
        ttft_ms=150.0,
        tpot_ms=9.0,
        source="run.json:1",
    )


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--device", "device"),
        ("--engine", "engine"),
        ("--engine-version", "engine_version"),
        ("--precision", "precision"),
        ("--tp", "tensor"),
    ],
)
def test_what_is_missing_is_asked_for(flag, name):
    with pytest.raises(ArgumentError) as caught:
        completed(**{name: None if name == "tensor" else ""})
    assert caught.value.field == flag
    assert "run.json:1" in caught.value.message


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--input-tokens", "input_tokens"),
        ("--output-tokens", "output_tokens"),
        ("--concurrency", "concurrency"),
    ],
)
def test_sizes_come_from_either(flag, name):
    row = changed(**{name: None})
    with pytest.raises(ArgumentError) as caught:
        completed(row)
    assert caught.value.field == flag
    assert getattr(completed(row, **{name: 7}).workload, name) == 7
    assert getattr(completed(**{name: 7}).workload, name) == 7


def test_a_model_is_named_by_repository_by_flag_or_for_each_name():
    unknown = changed(model="someone/else")
    with pytest.raises(ArgumentError, match="--model someone/else=MODEL"):
        completed(unknown)
    with pytest.raises(ArgumentError, match="does not say the model"):
        completed(changed(model=""))
    for models in (("qwen3-32b",), ("someone/else=qwen3-32b", "other=gpt2")):
        assert completed(unknown, models=models).model.preset == "qwen3-32b"
    assert completed(models=("7e9",)).model.parameter_count == 7e9
    with pytest.raises(ArgumentError, match="takes one model"):
        completed(models=("gpt2", "gpt2-xl"))


def test_a_static_batch_and_a_versionless_engine_can_be_said():
    row = changed(concurrency=None, batch_size=4)
    assert completed(row).workload == types_pb2.Workload(
        input_tokens=1024, output_tokens=128, batch_size=4
    )
    assert completed(engine_version="unknown").engine_version == ""
    assert completed(precision="model").precision == types_pb2.PRECISION_UNSPECIFIED
    with pytest.raises(ArgumentError, match="neither TTFT nor TPOT"):
        completed(changed(ttft_ms=None, tpot_ms=None))


def test_what_a_file_says_counts_unless_a_flag_says_otherwise():
    row = changed(device="h200-sxm", tensor=8, data=2, kv_cache_precision="fp8")
    found = complete([row], Given(**FLAGS | {"device": "", "tensor": None}))[0]
    assert (found.device, found.parallelism.tensor, found.parallelism.data) == ("h200-sxm", 8, 2)
    assert found.kv_cache_precision == types_pb2.PRECISION_FP8
    assert completed(row).device == "h100-sxm"


def test_suspicious_rows_are_refused_by_name_and_place():
    check_suspicions([FILE])
    rows = [changed(source=f"run:{n}", suspicions=(Suspicion("BURST", "at once"),)) for n in "123"]
    with pytest.raises(ArgumentError) as caught:
        check_suspicions([FILE, *rows * 3])
    assert caught.value.field == "--force"
    assert "run:1: at once (BURST)" in caught.value.message
    assert "and 4 more" in caught.value.message
