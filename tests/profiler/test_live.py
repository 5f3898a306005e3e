"""Live measurements: the real request, whole or scaled from a few layers, within its budget."""

import gzip
import json
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._inductor import config as inductor

import profiler.live
import profiler.live_models
import profiler.telemetry
from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.estimate import Phase
from model.huggingface import architecture_from_config
from model.precision import Precision
from model.workload import Workload
from profiler.device import Device, open_device
from profiler.interface import LiveRequest, LiveResult, Progressed, Scope
from profiler.live import cold_depth, measure_live
from profiler.live_ranks import measure_on_ranks
from profiler.models import LayerSpans
from profiler.ranks import run_on_ranks
from profiler.wholes import Once
from tests.profiler.rank_work import NO_CACHE, measured_live

CPU = Device("cpu", 1 << 40)
"""Nothing overflows its cache: whole models run."""

TINY = architecture_of_dimensions(
    name="tiny",
    hidden_size=64,
    layer_count=2,
    query_heads=4,
    kv_heads=2,
    intermediate_size=128,
    vocab_size=128,
)
DEEP = replace(TINY, layers=(replace(TINY.layers[0], count=24),))


def request(
    scope=Scope.MODEL,
    architecture=TINY,
    budget_s=20.0,
    tensor=1,
    engine="transformers",
    **workload,
):
    sizes = {"input_tokens": 12, "output_tokens": 4, "batch_size": 2} | workload
    return LiveRequest(
        device="cpu",
        budget_s=budget_s,
        architecture=architecture,
        workload=Workload(**sizes),
        tensor=tensor,
        precision=Precision.FP32,
        scope=scope,
        engine=engine,
    )


def measure(request, device=CPU):
    """Returns the progress and the result."""
    *progress, result = measure_live(request, device, time.monotonic())
    assert isinstance(result, LiveResult)
    assert all(isinstance(event, Progressed) for event in progress)
    return progress, result


ENGINES = ("transformers", "torch")
engines = pytest.mark.parametrize("engine", ENGINES)


@engines
@pytest.mark.parametrize("scope", Scope)
def test_a_request_is_measured_with_its_spread(scope, engine):
    progress, result = measure(request(scope, engine=engine))
    for spread in (result.ttft_ms, result.tpot_ms):
        assert 0 < spread.p10 <= spread.median <= spread.p90
        assert spread.samples >= 5
    fractions = [event.fraction for event in progress]
    assert fractions == sorted(fractions)
    assert all(0 < fraction < 1 for fraction in fractions)
    assert not [note for note in result.notes if "layers" in note or "tokens" in note]


@engines
def test_a_few_layers_are_scaled_to_the_whole_depth(engine):
    _, whole = measure(request(Scope.MODEL, DEEP, engine=engine))
    _, scaled = measure(request(Scope.LAYER, DEEP, engine=engine), NO_CACHE)
    assert "2 of 24 layers were run and scaled" in scaled.notes
    # Unscaled it would be a tenth. What neighbours slow down are not the quickest runs.
    for name in ("ttft_ms", "tpot_ms"):
        ratio = getattr(scaled, name).p10 / getattr(whole, name).p10
        assert 1 / 3 < ratio < 3


def test_all_layers_of_a_shallow_model_are_run():
    _, result = measure(request(Scope.LAYER), NO_CACHE)
    assert not [note for note in result.notes if "scaled" in note]


@engines
@pytest.mark.parametrize("tokens", [0, 1])
def test_without_later_tokens_there_is_no_time_for_them(tokens, engine):
    _, result = measure(request(output_tokens=tokens, engine=engine))
    assert result.ttft_ms.median > 0
    assert result.tpot_ms is None


TWO_CPUS = ("cpu", "cpu")


def on_ranks(path, **changes):
    """What two ranks are asked for, with a trace."""
    asked = request(tensor=2, budget_s=60.0, **changes)
    return replace(asked, rank_devices=TWO_CPUS, trace_path=str(path))


def check_whole_on_ranks(result, path):
    assert result.notes[0] == "2 tensor-parallel ranks were run, which exchanged over gloo"
    assert not [note for note in result.notes if "layers" in note]
    for spread in (result.ttft_ms, result.tpot_ms):
        assert 0 < spread.p10 <= spread.median <= spread.p90
        assert 5 <= spread.samples <= 30
    assert result.energy_per_token_joules is None
    assert [phase.phase for phase in result.phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in result.phases:
        calls = {kernel.name: kernel.calls for kernel in phase.kernels}
        # Behind attention and feed-forward of both layers, and behind the head.
        assert (calls["gloo:all_reduce"], calls["gloo:all_gather"]) == (4, 1)
        exchanged = sum(k.milliseconds for k in phase.kernels if k.name.startswith("gloo:"))
        communication_ms = phase.communication_share * phase.milliseconds
        assert 0 < exchanged <= communication_ms < (1 - phase.idle_share) * phase.milliseconds
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "gloo:all_reduce" for event in events) == 4 * 4


def test_ranks_run_together_and_say_so_and_the_first_writes_its_trace(tmp_path):
    path = tmp_path / "x.trace.json.gz"
    *progress, result = measure_on_ranks(on_ranks(path), 1, time.monotonic())
    assert [event.text for event in progress] == ["2 ranks measure together"]
    check_whole_on_ranks(result, path)
    assert list(tmp_path.iterdir()) == [path]


def test_ranks_run_plain_few_and_compiled_layers_and_agree_on_what_they_took(tmp_path):
    """All of it by the same processes, which take seconds to start."""
    paths = [tmp_path / f"{name}.gz" for name in ("plain", "few plain", "few", "compiled")]
    plain, few_plain, few, compiled = paths
    asked = [
        on_ranks(plain, engine="torch"),
        on_ranks(few_plain, engine="torch", scope=Scope.LAYER, architecture=DEEP),
        on_ranks(few, scope=Scope.LAYER, architecture=DEEP),
        # It waits for the compiler.
        replace(
            on_ranks(compiled, engine="torch", output_tokens=2), budget_s=120.0, torch_compile=True
        ),
    ]
    found = run_on_ranks(TWO_CPUS, 1, measured_live, asked)
    for result, (most, least) in found:
        assert most == -least == result.ttft_ms.median
    whole, *scaled, fused = [result for result, _ in found]
    check_whole_on_ranks(whole, plain)
    for result in scaled:
        assert "2 of 24 layers were run and scaled" in result.notes
        # Tiny layers do little else.
        for phase in result.phases:
            assert 0.3 < phase.communication_share < 1 - phase.idle_share < 1
    check_compiled_on_ranks(fused)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def check_compiled_on_ranks(result):
    assert result.tpot_ms.median > 0
    assert any("torch compiled the layers" in note for note in result.notes)
    assert any("2 tensor-parallel ranks were run" in note for note in result.notes)
    for phase in result.phases:
        calls = {kernel.name: kernel.calls for kernel in phase.kernels}
        assert (calls["gloo:all_reduce"], calls["gloo:all_gather"]) == (4, 1)
        # A graph a layer: none is broken where ranks exchange.
        assert sum(n for name, n in calls.items() if "CompiledFxGraph" in name) == 2


def test_ranks_say_what_a_rank_alone_would():
    # One is enough: none gets as far as to exchange anything.
    asked = replace(request(), rank_devices=("cpu",), precision=Precision.FP4)
    with pytest.raises(InvalidFieldError, match="precision: "):
        list(measure_on_ranks(asked, 1, time.monotonic()))


@engines
def test_a_ranks_share_is_run_and_said_so(engine):
    _, result = measure(replace(request(tensor=2, engine=engine), alone="two are too many"))
    told = "one of 2 tensor-parallel ranks was run (two are too many), without what they exchange"
    assert told in result.notes
    assert result.ttft_ms.median > 0


def test_energy_is_told_by_token_of_whole_models(monkeypatch):
    read = iter(range(0, 10_000, 720))
    monkeypatch.setattr(profiler.telemetry, "energy_joules", lambda _: float(next(read)))
    _, result = measure(request(Scope.MODEL, output_tokens=4, batch_size=2))
    assert result.energy_per_token_joules == pytest.approx(720 / (result.ttft_ms.samples * 8))
    for asked in (request(Scope.LAYER, DEEP), request(output_tokens=0)):
        _, result = measure(asked, NO_CACHE)
        assert result.energy_per_token_joules is None


def test_energy_of_fewer_tokens_is_not_told(monkeypatch):
    monkeypatch.setattr(profiler.telemetry, "energy_joules", lambda _: time.monotonic())
    _, result = measure(request(budget_s=1.5, output_tokens=100_000, engine="torch"))
    assert any("of 100000 tokens" in note for note in result.notes)
    assert result.energy_per_token_joules is None


def test_heat_is_told_beside_what_was_measured(monkeypatch):
    monkeypatch.setattr(profiler.live, "held_down_by", lambda device: ("power brake", "heat"))
    _, result = measure(request())
    assert "throttled: the clocks were held down by power brake, heat" in result.notes


def test_a_degree_that_does_not_fit_is_refused():
    with pytest.raises(InvalidFieldError) as raised:
        measure(request(tensor=3))
    assert raised.value.field == "tensor"


def test_what_does_not_fit_the_budget_is_a_timeout():
    with pytest.raises(TimeoutError, match="are left"):
        measure(request(budget_s=1e-3))


@engines
def test_a_long_run_is_shortened_to_fit_and_said_so(engine):
    measure(request(engine=engine))  # what is loaded at first use takes seconds
    begin = time.monotonic()
    _, result = measure(request(budget_s=1.5, output_tokens=100_000, engine=engine))
    assert time.monotonic() - begin < 6.0
    assert any("of 100000 tokens were generated a repeat" in note for note in result.notes)
    assert result.tpot_ms.median > 0


def test_the_model_that_runs_has_the_workloads_sizes(monkeypatch):
    points = []
    generate_once = profiler.live_models.generate_once

    def spy(model, point, device):
        points.append(point)
        return generate_once(model, point, device)

    monkeypatch.setattr(profiler.live_models, "generate_once", spy)
    measure(request(input_tokens=9, output_tokens=3, batch_size=5))
    assert {(p.sequences, p.input_tokens) for p in points} == {(5, 9)}
    assert {p.output_tokens for p in points[1:]} == {3}


def test_plain_layers_name_what_they_lack():
    biased = architecture_from_config({"model_type": "gpt_oss"}, "x")
    with pytest.raises(InvalidFieldError, match="use engine transformers") as raised:
        measure(request(architecture=biased, engine="torch"))
    assert raised.value.field == "model"


compiles = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
"""Torch's compiler uses what torch says it should not."""


@compiles
def test_compiled_layers_are_measured_and_nothing_is_compiled_in_what_is_told(monkeypatch):
    torch.compiler.reset()
    build, spent = profiler.live.live_model, []

    def watched(*arguments):
        model = build(*arguments)
        warm_up, runs = model.warm_up, model.runs

        def timed(point):
            begin = time.monotonic()
            once = warm_up(point)
            spent.append((once, time.monotonic() - begin))
            return once

        def strict(point):
            once = runs(point)
            return torch.compiler.set_stance("fail_on_recompile")(once)

        monkeypatch.setattr(model, "warm_up", timed)
        monkeypatch.setattr(model, "runs", strict)
        return model

    monkeypatch.setattr(profiler.live, "live_model", watched)
    asked = request(budget_s=120.0, engine="torch")
    _, result = measure(replace(asked, torch_compile=True))
    assert result.tpot_ms.median > 0
    assert any("torch compiled the layers" in note for note in result.notes)
    ((first, steps, _), warm_up_s) = spent.pop()
    # Of five graphs that are compiled one alone takes a tenth of the time.
    assert (first + sum(steps)) / 1e3 < warm_up_s / 20
    # Nothing is left to compile once the clock runs.
    assert result.ttft_ms.p90 < 100 * result.ttft_ms.p10


@compiles
def test_where_torch_cannot_compile_the_remedy_is_named(monkeypatch, tmp_path):
    torch.compiler.reset()
    # Nothing that was compiled before is found there.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    asked = replace(request(engine="torch"), torch_compile=True)
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(InvalidFieldError, match=r"no-such-compiler.*leave it out") as raised,
    ):
        measure(asked)
    assert raised.value.field == "torch_compile"


def test_plain_layers_have_fewer_products_in_their_trace(tmp_path):
    path = tmp_path / "x.trace.json.gz"
    asked = replace(request(engine="torch"), trace_path=str(path))
    _, result = measure(asked)
    assert [phase.phase for phase in result.phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in result.phases:
        products = [kernel for kernel in phase.kernels if kernel.name == "aten::mm"]
        # Query, key and value are one, and gate and up.
        assert [kernel.calls for kernel in products] == [4 * 2 + 1]


@pytest.mark.parametrize("scope", Scope)
def test_a_trace_lists_the_kernels_of_each_phase_and_opens(scope, tmp_path):
    path = tmp_path / "x.trace.json.gz"
    asked = replace(request(scope, DEEP), trace_path=str(path))
    _, result = measure(asked, NO_CACHE)
    prefill, decode = result.phases
    assert (prefill.phase, decode.phase) == (Phase.PREFILL, Phase.DECODE)
    for phase in result.phases:
        times = [kernel.milliseconds for kernel in phase.kernels]
        assert times == sorted(times, reverse=True)
        assert 0 < sum(times) <= phase.milliseconds
        assert 0 < phase.idle_share < 1
        assert phase.communication_share == 0
    # Seven matrices a layer and the head, each pass.
    layers = 24 if scope is Scope.MODEL else 2
    for phase in result.phases:
        products = [kernel for kernel in phase.kernels if kernel.name == "aten::mm"]
        assert [kernel.calls for kernel in products] == [7 * layers + 1]
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    named = [event for event in events if event.get("name") == "aten::mm"]
    # The prompt and three steps; of a few layers these alone once more in each phase.
    alone = 0 if scope is Scope.MODEL else 2 * 7 * layers
    assert len(named) == 4 * (7 * layers + 1) + alone
    assert all(event["dur"] >= 0 and event["ph"] == "X" for event in named)


def test_a_trace_that_cannot_be_written_is_a_note_beside_what_was_measured(tmp_path):
    asked = replace(request(), trace_path=str(tmp_path / "none" / "x.trace.json.gz"))
    _, result = measure(asked)
    assert result.ttft_ms.median > 0
    assert result.phases == ()
    assert any("the trace could not be written" in note for note in result.notes)


def test_without_time_for_a_trace_there_is_a_note(tmp_path):
    measure(request())  # what is loaded at first use takes seconds
    asked = replace(request(budget_s=1.0), trace_path=str(tmp_path / "x.trace.json.gz"))
    _, result = measure(asked)
    assert result.ttft_ms.median > 0
    assert any("no time was left for a trace" in note for note in result.notes)
    assert not list(tmp_path.iterdir())


@given(
    st.integers(1, 64), st.integers(1, 1 << 40), st.sampled_from([Precision.FP32, Precision.BF16])
)
def test_as_many_layers_are_cold_as_overflow_the_cache(layer_count, cache_bytes, precision):
    deep = replace(TINY, layers=(replace(TINY.layers[0], count=layer_count),))
    device = Device("cpu", cache_bytes)
    depth = cold_depth(deep, precision, device)
    layer_bytes = deep.layers[0].layer.parameter_count(64) * precision.weight_bytes
    if depth < layer_count:
        assert depth * layer_bytes >= device.cold_bytes
        assert depth == 2 or (depth - 1) * layer_bytes < device.cold_bytes
    else:
        assert depth == max(2, layer_count)


MIXTURES = {
    family: architecture_from_config({"model_type": family, "vocab_size": 128} | config)
    for family, config in {
        "mixtral": {"num_local_experts": 4, "intermediate_size": 32},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        "deepseek_v3": {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "first_k_dense_replace": 1,
        },
    }.items()
    for config in [
        config
        | {"hidden_size": 64, "num_hidden_layers": 4, "head_dim": 16, "num_attention_heads": 4}
        | {"num_key_value_heads": 2}
    ]
}


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("family", MIXTURES)
@engines
def test_experts_and_latent_attention_are_measured(family, scope, tensor, engine):
    asked = request(scope, MIXTURES[family], tensor=tensor, engine=engine)
    _, result = measure(asked, CPU if scope is Scope.MODEL else NO_CACHE)
    assert result.ttft_ms.median > 0
    assert result.tpot_ms.median > 0


def test_each_kind_of_layer_is_scaled_to_its_own_depth(monkeypatch):
    (dense, mixed) = MIXTURES["deepseek_v3"].layers
    deep = replace(
        MIXTURES["deepseek_v3"],
        layers=(replace(dense, count=4), replace(mixed, count=30)),
    )
    once = Once(100.0, [50.0], disturbed=False)
    monkeypatch.setattr(profiler.live_models, "generate_once", lambda *_: once)
    monkeypatch.setattr(LayerSpans, "by_group", lambda _: [[10.0, 20.0], [4.0, 6.0]])
    _, result = measure(request(Scope.LAYER, deep), NO_CACHE)
    assert "3 of 34 layers were run and scaled" in result.notes
    # One dense layer stands for 4, two with experts stand for 30.
    assert result.ttft_ms.median == pytest.approx(100 + 3 * 10 + 14 * 20)
    assert result.tpot_ms.median == pytest.approx(50 + 3 * 4 + 14 * 6)


def measure_on_gpu(scope=Scope.MODEL, **changes):
    asked = replace(request(scope), device="cuda:0", precision=Precision.BF16, **changes)
    _, result = measure(asked, open_device("cuda:0"))
    assert 0 < result.ttft_ms.p10 <= result.ttft_ms.median
    assert 0 < result.tpot_ms.p10 <= result.tpot_ms.median
    return result


def of_gpus(test):
    missing = not torch.cuda.is_available()
    return pytest.mark.gpu(pytest.mark.skipif(missing, reason="needs a CUDA device")(test))


@of_gpus
@engines
@pytest.mark.parametrize("scope", Scope)
def test_a_gpu_measures_a_request(scope, engine):
    measure_on_gpu(scope, engine=engine)


@of_gpus
@compiles
def test_a_gpu_measures_compiled_layers():
    torch.compiler.reset()
    result = measure_on_gpu(engine="torch", torch_compile=True, budget_s=240.0)
    assert any("torch compiled the layers" in note for note in result.notes)


@of_gpus
def test_a_gpu_traces_the_kernels_of_its_graphs(tmp_path):
    path = tmp_path / "x.trace.json.gz"
    result = measure_on_gpu(engine="torch", trace_path=str(path))
    assert [phase.phase for phase in result.phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in result.phases:
        # Of two layers and the head, nine products are the fewest; operators of the host are none.
        assert sum(kernel.calls for kernel in phase.kernels) >= 4 * 2 + 1
        assert not [kernel for kernel in phase.kernels if kernel.name.startswith("aten::")]
        assert 0 <= phase.idle_share < 1
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    # The prompt and three steps.
    assert sum(event.get("name") == "cudaGraphLaunch" for event in events) == 4


@of_gpus
@engines
def test_a_gpus_trace_of_a_few_layers_is_of_its_kernels(engine, tmp_path):
    asked = request(Scope.LAYER, DEEP, engine=engine, budget_s=60.0)
    asked = replace(asked, device="cuda:0", trace_path=str(tmp_path / "x.trace.json.gz"))
    cold = replace(open_device("cuda:0"), cache_bytes=1)
    _, result = measure(asked, cold)
    assert "2 of 24 layers were run and scaled" in result.notes
    assert [phase.phase for phase in result.phases] == [Phase.PREFILL, Phase.DECODE]
    for phase in result.phases:
        assert phase.kernels
        assert not [kernel.name for kernel in phase.kernels if kernel.name.startswith("aten::")]
        assert 0 < phase.idle_share < 1
        assert phase.communication_share == 0


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@engines
def test_the_trace_of_gpus_tells_what_they_exchange(engine, tmp_path):
    asked = request(tensor=2, engine=engine, budget_s=120.0)
    path = str(tmp_path / "x.trace.json.gz")
    asked = replace(asked, rank_devices=("cuda:0", "cuda:1"), trace_path=path)
    *_, result = measure_on_ranks(asked, 1, time.monotonic())
    for phase in result.phases:
        sums = [kernel for kernel in phase.kernels if "AllReduce" in kernel.name]
        assert sum(kernel.calls for kernel in sums) == 4
        assert 0 < phase.communication_share < 1 - phase.idle_share
