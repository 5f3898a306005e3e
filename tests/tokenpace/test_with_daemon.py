"""The client and the command with the real daemon, started as users start it."""

import io
import json
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from model.dimensions import architecture_of_dimensions
from model.execution import step_operations
from model.precision import Precision
from model.workload import Parallelism, Sequences
from profiler.campaign_file import CampaignFile
from reference import campaigns
from reference.campaigns import Header
from tokenpace.benchmark_files.rows import BenchmarkRow, long_queue
from tokenpace.client import Client, TokenpaceError, predict_request
from tokenpace.command import main
from tokenpace.commands.reference_calibrations import calibrate_deployments
from tokenpace.commands.session import Session
from tokenpace.v1 import types_pb2

COMMAND = (sys.executable, "-m", "tokenpace.command")


def started(*arguments):
    """Runs the command as users do."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def run(*arguments):
    """Runs the command in this process, which has loaded what it needs."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """The daemon's process and its address."""
    folder = tmp_path_factory.mktemp("data")
    process = subprocess.Popen(
        [*COMMAND, "serve", "--address", "127.0.0.1:0", "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("listening on 127.0.0.1:")
    yield process, line.removeprefix("listening on ").strip()
    process.send_signal(signal.SIGTERM)
    rest, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert rest == ""  # the one line was all
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def address(serving):
    return serving[1]


def test_the_client_is_answered(address):
    with Client(address) as client:
        answer = client.predict(
            "llama-3.1-8b", input_tokens=512, output_tokens=128, tensor=2, device="h100-sxm"
        )
        assert answer.tpot_ms.lower < answer.tpot_ms.value < answer.tpot_ms.upper
        assert answer.resolved.gpu_count == 2
        size = client.architecture(7e9).architecture.parameter_count
        assert size == pytest.approx(7e9, rel=0.03)
        names = {device.name for device in client.devices().devices}
        assert {"local", "cpu", "h100-sxm"} <= names


def test_a_batch_keeps_errors_in_their_place(address):
    with Client(address) as client:
        answer = client.batch_predict(
            predict_request(name, input_tokens=8) for name in ("gpt2", "nope", "gpt2")
        )
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["response", "error", "response"]


def test_a_refusal_names_the_field(address):
    with Client(address) as client, pytest.raises(TokenpaceError) as caught:
        client.predict("llama-3.1-8b", input_tokens=8, tensor=3)
    assert [v.field for v in caught.value.field_violations] == ["parallelism.tensor"]


def test_the_command_predicts_from_a_config_file(address, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "vocab_size": 1000,
            }
        )
    )
    result = started("predict", "--model", str(config), "--json", "--address", address)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["resolved"]["architecture"]["layerCount"] == 2


def vllm_results(folder, address, factor):
    """Results of runs at some loads, each figure what the daemon predicts times a factor."""
    file = folder / "results.jsonl"
    lines = []
    with Client(address) as client:
        for load in (1, 4, 16, 64):
            answer = client.predict(
                "llama-3.1-8b",
                device="h100-sxm",
                engine="vllm",
                input_tokens=1024,
                output_tokens=128,
                concurrency=load,
                tensor=2,
            )
            lines.append(
                {
                    "model_id": "meta-llama/Llama-3.1-8B",
                    "num_prompts": 100,
                    "request_rate": "inf",
                    "max_concurrency": load,
                    "completed": 100,
                    "failed": 0,
                    "total_input_tokens": 102_400,
                    "total_output_tokens": 12_800,
                    "median_ttft_ms": answer.ttft_ms.value * factor,
                    "median_tpot_ms": answer.tpot_ms.value * factor,
                }
            )
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_rows_of_ones_own_bring_the_error_down(address, tmp_path):
    file = str(vllm_results(tmp_path, address, 1.5))
    at = ("--address", address)
    result = started("calibrate", file, "--name", "own", *at)
    assert result.returncode == 2
    assert "--engine-version" in result.stderr
    where = ("--device", "h100-sxm", "--engine", "vllm", "--engine-version", "0.11.0")
    what = ("--tp", "2", "--precision", "bf16")
    trial = run("calibrate", file, *where, *what, "--dry-run", *at)
    assert (trial.returncode, trial.stderr) == (0, "")
    assert "(not kept)" in trial.stdout
    made = run("calibrate", file, "--name", "own", *where, *what, *at)
    assert (made.returncode, made.stderr) == (0, "")
    assert "33.3% / 33.3% / 33.3%" in made.stdout
    twice = run("calibrate", file, "--name", "own", *where, *what, *at)
    assert (twice.returncode, twice.stdout) == (1, "")
    question = (
        *("predict", "--model", "llama-3.1-8b", "--device", "h100-sxm", "--engine", "vllm"),
        *("--input-tokens", "1024", "--concurrency", "8", "--tp", "2", "--json", *at),
    )
    plain = json.loads(run(*question).stdout)
    answer = json.loads(run(*question, "--calibration", "own").stdout)
    assert answer["resolved"]["calibration"] == "own"
    for figure in ("ttftMs", "tpotMs"):
        expected = pytest.approx(1.5 * plain[figure]["value"], rel=0.05)
        assert answer[figure]["value"] == expected
    listed = run("calibrations", *at)
    for text in ("own", "0.11.0", "33.3% ->"):
        assert text in listed.stdout
    shown = json.loads(run("calibrations", "own", "--json", *at).stdout)
    assert shown["calibration"]["rowCount"] == 4
    assert run("calibrations", "--delete", "own", *at).stdout == "deleted own\n"
    assert "no calibration yet" in run("calibrations", *at).stdout


def test_rows_that_look_wrong_are_refused_unless_forced(address, tmp_path):
    file = vllm_results(tmp_path, address, 1.5)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0] |= {"failed": 20, "completed": 80}
    lines[1] |= {"median_tpot_ms": 0.5}
    file.write_text("\n".join(map(json.dumps, lines)))
    known = (
        *("--device", "h100-sxm", "--engine", "vllm", "--engine-version", "0.11.0"),
        *("--tp", "2", "--precision", "bf16", "--dry-run", "--address", address),
    )
    result = run("calibrate", str(file), *known)
    assert (result.returncode, result.stdout) == (2, "")
    assert "results.jsonl:1: 20 of 100 requests failed" in result.stderr
    forced = run("calibrate", str(file), *known, "--force")
    text = " ".join(forced.stdout.split())
    assert forced.returncode == 0
    assert "remark FASTER_THAN_BANDWIDTH" in text
    assert "results.jsonl:2" in text
    assert "FAILED_REQUESTS" in text
    file.write_text("\n".join(map(json.dumps, lines[1:])))
    refused = run("calibrate", str(file), *known)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "results.jsonl:1" in refused.stderr
    assert "reads weights" in refused.stderr


def test_what_the_daemon_refuses_is_exit_1_with_one_line(address):
    result = started("predict", "--model", "nope", "--address", address)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: model.preset: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_clear_line(address, tmp_path):
    result = started("serve", "--address", address, "--data-dir", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert address in result.stderr
    assert "--address" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_published_measurements_are_brought_in_and_answer(address):
    pytest.importorskip(
        "aiconfigurator_core",
        reason="aiconfigurator-core (the extra `reference`) is not installed",
    )
    arguments = ("--device", "a100-sxm", "--engine", "vllm", "--rows", "100")
    done = started("reference", "import", *arguments, "--address", address, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["costModel"]
    assert model["provenance"] == "PROVENANCE_REFERENCE_DATA"
    with Client(address) as client:
        answer = client.predict(
            "llama-3.1-70b", input_tokens=512, output_tokens=128, tensor=4, device="a100-sxm"
        )
        held = client.measurements(device="a100-sxm").total_size
    assert answer.cost_model == model["id"]
    assert held == model["measurementCount"]


PAGE = Path(__file__).parents[2] / "docs" / "measurement-files.md"


def example():
    """The example of the page on files of measurements."""
    return re.search(r"```csv\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]


def test_ones_own_measurements_are_brought_in_and_answer(address, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(example(), encoding="utf-8")
    where = ("--device", "b200-sxm", "--address", address)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(example().replace("linear,bf16", "linear,bf61"), encoding="utf-8")
    refused = run("reference", "import", str(file), str(wrong), *where, "--engine", "vllm")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "wrong.csv:2: precision is 'bf61'" in refused.stderr
    unknown = run("reference", "import", str(file), *where, "--engine", "vroom")
    assert unknown.returncode == 1
    assert "vroom" in unknown.stderr
    with Client(address) as client:
        assert client.measurements(device="b200-sxm").total_size == 0
    what = ("--engine", "vllm", "--source", "nobody, made up", "--json")
    done = run("reference", "import", str(file), *where, *what)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["costModel"]
    assert model["provenance"] == "PROVENANCE_REFERENCE_DATA"
    assert model["measurementCount"] == len(example().splitlines()) - 1
    again = run("reference", "import", str(file), *where, *what)
    assert json.loads(again.stdout)["costModel"]["measurementCount"] == model["measurementCount"]
    with Client(address) as client:
        held = client.measurements(device="b200-sxm")
        assert held.total_size == model["measurementCount"]
        answer = client.predict(
            "llama-3.1-8b", input_tokens=512, output_tokens=64, device="b200-sxm"
        )
    assert answer.cost_model == json.loads(again.stdout)["costModel"]["id"]
    assert answer.provenance == types_pb2.PROVENANCE_REFERENCE_DATA
    # What is written for one token, over the layers: the products of the model's weights.
    decode = sum(ms for ms in (0.0226, 0.0164, 0.091, 0.0475)) * 32
    assert decode < answer.tpot_ms.value < 2 * decode


HEADER = Header(
    device="h200-sxm",
    environment={"device_name": "NVIDIA H200", "torch_version": "2.11.0"},
    memory_bytes=150_000_000_000,
    create_time="2026-01-02T00:00:00+00:00",
    command="python -m profiler campaign",
    commit="0" * 40,
)


@pytest.fixture
def brought_home(synthetic_device, tmp_path):
    """What a campaign on a synthetic device measured, in a file, and the device."""
    device = synthetic_device(precision=Precision.BF16)
    path = tmp_path / "campaign.jsonl"
    with CampaignFile(path, HEADER) as file:
        for row in device.campaign(linears=20, attentions=30, models=5):
            file.append(row)
    return path, device


def test_a_campaign_without_a_daemon_is_brought_home_and_answers(address, brought_home):
    path, device = brought_home
    count = len(campaigns.read(path).rows)
    what = ("import", str(path), "--source", "me, CC0", "--address", address, "--json")
    done = started("measurements", *what)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["costModel"]
    assert model["provenance"] == "PROVENANCE_REFERENCE_DATA"
    assert (model["device"], model["engines"]) == ("h200-sxm", ["transformers"])
    assert run("measurements", *what).returncode == 0
    sizes = {"hidden_size": 256, "layer_count": 6, "query_heads": 8, "kv_heads": 4, "head_dim": 32}
    sizes |= {"intermediate_size": 512, "vocab_size": 8192, "tied_embeddings": True}
    small = architecture_of_dimensions(name="small", **sizes)
    step = (Sequences(count=1, query_tokens=1, kv_tokens=64 + 16),)
    operations = step_operations(
        small, step, Parallelism(), Precision.BF16, Precision.BF16, "transformers", first=False
    )
    with Client(address) as client:
        held = client.measurements(device="h200-sxm", page_size=1000)
        answers = {
            engine: client.predict(
                types_pb2.Architecture(**sizes),
                device="h200-sxm",
                engine=engine,
                precision="bf16",
                input_tokens=64,
                output_tokens=32,
            )
            for engine in ("transformers", "vllm")
        }
    assert held.total_size == count  # the second import found them all
    assert {row.kind for row in held.measurements} >= {"layer", "prefill", "decode"}
    for answer in answers.values():
        assert answer.provenance == types_pb2.PROVENANCE_REFERENCE_DATA
    # Its own overheads are in the one, an engine's published coefficients in the other.
    assert answers["transformers"].tpot_ms.value == pytest.approx(device.truth(operations), rel=0.2)
    assert answers["vllm"].tpot_ms.value != answers["transformers"].tpot_ms.value


def test_a_campaign_of_an_unknown_card_stands_for_the_one_that_is_named(address, brought_home):
    path, _ = brought_home
    known = run("measurements", "import", str(path), "--device", "l4", "--address", address)
    assert (known.returncode, known.stdout) == (2, "")
    assert "was measured on h200-sxm" in known.stderr
    unknown = path.with_name("unknown.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    unknown.write_text(json.dumps(replace(HEADER, device="").to_json()) + "\n" + "".join(lines[1:]))
    where = ("measurements", "import", str(unknown), "--address", address)
    refused = run(*where)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "NVIDIA H200, which no data sheet is known of" in refused.stderr
    assert "--device" in refused.stderr
    here = run(*where, "--device", "cpu")
    assert here.returncode == 1
    assert "in this machine" in here.stderr
    done = run(*where, "--device", "l40s")
    assert done.returncode == 0, done.stderr
    assert "note: what NVIDIA H200 measured stands for l40s" in done.stderr
    misplaced = run("measurements", "--device", "l40s", "import", str(unknown))
    assert misplaced.returncode == 2
    assert "behind import" in misplaced.stderr


def test_a_campaign_of_a_cpu_stands_for_no_gpu(address, brought_home):
    path, _ = brought_home
    lines = path.read_text().splitlines(keepends=True)
    environment = {"device_name": "AMD EPYC", "device_kind": "cpu"}
    header = replace(HEADER, device="", environment=environment)
    path.write_text(json.dumps(header.to_json()) + "\n" + "".join(lines[1:]))
    where = ("measurements", "import", str(path), "--address", address)
    for flags, named in (((), "leave it out"), (("--device", "a10g"), "--device a10g")):
        done = run(*where, *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert "was measured on a CPU, AMD EPYC" in done.stderr
        assert named in done.stderr
    with Client(address) as client:
        assert client.measurements(device="a10g").total_size == 0
    here = run(*where, "--device", "cpu")
    assert here.returncode == 1
    assert "in this machine" in here.stderr


def test_what_is_no_campaigns_file_is_refused(address, tmp_path):
    path = tmp_path / "mine.jsonl"
    missing = run("measurements", "import", str(path), "--address", address)
    path.write_text(json.dumps(HEADER.to_json()) + "\n")
    empty = run("measurements", "import", str(path), "--address", address)
    path.write_text("kind,precision\n")
    other = run("measurements", "import", str(path), "--address", address)
    for done, said in (
        (missing, "No such file"),
        (empty, "no measurement"),
        (other, "no campaign"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_the_files_of_vidur_are_brought_in_and_answer(address, tmp_path):
    lines = [
        "time_stats.attn_pre_proj.median,time_stats.attn_rope.median,time_stats.mlp_up_proj.median,"
        "n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tokens,"
        "num_tensor_parallel_workers"
    ]
    lines += [
        f"{0.01 + tokens / 2e3 / tp:.3f},0.01,{0.02 + tokens / 1e3 / tp:.3f},"
        f"32,8,4096,14336,True,{tokens},{tp}"
        for tokens in (1, 16, 128, 1024)
        for tp in (1, 2, 4)
    ]
    (tmp_path / "mlp.csv").write_text("\n".join(lines), encoding="utf-8")
    lines = [
        "time_stats.attn_decode.median,time_stats.attn_prefill.median,n_embd,n_q_head,n_kv_head,"
        "num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size,is_prefill"
    ]
    for tp in (1, 2):
        for tokens in (64, 512, 4096):
            lines.append(f"{0.01 + tokens / 4e5:.3f},,4096,32,8,{tp},1,0,{tokens},False")
            lines.append(f",{0.01 + tokens**2 / 4e7 / tp:.3f},4096,32,8,{tp},1,{tokens},0,True")
    (tmp_path / "attention.csv").write_text("\n".join(lines), encoding="utf-8")
    where = ("--device", "a100-pcie", "--engine", "vllm", "--address", address)
    files = (str(tmp_path / name) for name in ("mlp.csv", "attention.csv"))
    done = run("reference", "import", *files, *where)
    assert done.returncode == 0, done.stderr
    assert "note: mlp.csv: times that are not imported: 12 of attn_rope" in done.stderr
    with Client(address) as client:
        answer = client.predict(
            "llama-3.1-8b", input_tokens=512, device="a100-pcie", precision="fp16"
        )
        rows = client.measurements(device="a100-pcie")
    assert answer.provenance == types_pb2.PROVENANCE_REFERENCE_DATA
    assert rows.total_size == 24 + 12
    assert {row.precision for row in rows.measurements} == {types_pb2.PRECISION_FP16}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("mine.csv",), "--device"),
        (("mine.csv", "--device", "l40s", "--device", "l4"), "--device"),
        (("mine.csv", "--device", "l40s", "--engine", "vllm", "--engine", "sglang"), "--engine"),
        (("mine.csv", "--device", "l40s", "--source", "x" * 201), "--source"),
        (("none.csv", "--device", "l40s"), "none.csv cannot be read"),
        (("--device", "h100-sxm", "--source", "me"), "--source"),
    ],
)
def test_what_files_need_is_asked_for(address, arguments, named):
    done = run("reference", "import", *arguments, "--address", address)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr


def test_deployments_become_calibrations_that_replace_earlier_ones(address, capsys):
    def rows(factor, loads, model="meta-llama/Llama-3.1-70B"):
        with Client(address) as client:
            for load in loads:
                answer = client.predict(
                    "llama-3.1-70b",
                    device="h100-pcie",
                    engine="sglang",
                    input_tokens=1024,
                    output_tokens=128,
                    concurrency=load,
                    tensor=4,
                )
                yield BenchmarkRow(
                    source=f"rows:{load}",
                    model=model,
                    device="h100-pcie",
                    engine="sglang",
                    precision="model",
                    tensor=4,
                    input_tokens=1024,
                    output_tokens=128,
                    concurrency=load,
                    tpot_ms=answer.tpot_ms.value * factor,
                )

    def bring(*found):
        with Session(address, json=False) as session:
            calibrate_deployments(session, found, "h100-pcie", "sglang")
        return capsys.readouterr()

    name = "reference-llama-3.1-70b-h100-pcie-sglang"
    others = (*rows(9.0, (2, 3, 5, 7), model="nobody/knows-it"),)
    saturated = BenchmarkRow(
        source="late", model="meta-llama/Llama-3.1-70B", device="h100-pcie", engine="sglang"
    )
    saturated = replace(saturated, ttft_ms=9e4, suspicions=tuple(long_queue(9e4)))
    few = bring(*rows(1.5, (1, 4, 16)), *others, saturated)
    assert (few.out, "1 rows of saturated runs" in few.err) == ("", True)
    made = bring(*rows(1.5, (1, 4, 16, 64)), *others).out
    assert made.startswith(f"{name}: 4 rows, TPOT error 33.3% -> ")
    assert bring(*rows(1.25, (1, 2, 4, 16, 64))).out.startswith(f"{name}: 5 rows, TPOT error 20.0%")
    refused = bring(*(replace(row, tensor=3) for row in rows(1.5, (1, 4, 16, 64))))
    assert (refused.out, f"note: {name}: not made: " in refused.err) == ("", True)
    with Client(address) as client:
        (it,) = [it for it in client.calibrations().calibrations if it.name.startswith("reference")]
        assert (it.name, it.row_count) == (name, 5)
        question = {"input_tokens": 1024, "device": "h100-pcie", "engine": "sglang", "tensor": 4}
        plain = client.predict("llama-3.1-70b", **question)
        assert plain.resolved.calibration == ""
        named = client.predict("llama-3.1-70b", **question, calibration=name)
        assert named.resolved.calibration == name
        client.delete_calibration(name)


def test_an_unknown_table_is_wrong_usage(address):
    done = run("reference", "import", "--device", "h1000", "--address", address)
    assert done.returncode == 2
    assert "h1000" in done.stderr
