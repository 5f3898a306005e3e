"""Real layers and real generate() runs: as many tokens, steps and passes as asked."""

import pytest
import torch

from model.dimensions import architecture_of_dimensions
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import architecture_of_shape, operations_of, step_of_shape
from model.workload import Sequences
from profiler.device import Device, open_device
from profiler.models import (
    ForwardTimer,
    LayerSpans,
    ModelPoint,
    TransformersModel,
    decoder,
    generate_once,
)
from profiler.modules import build_model
from profiler.timing import Effort
from profiler.wholes import ForwardPoint, GeneratePoint, measure_whole, repeated

CPU = Device("cpu", 1 << 20)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=3)
SIZES = {"hidden_size": 32, "layer_count": 3, "intermediate_size": 64, "vocab_size": 128}
LLAMA = architecture_of_dimensions(name="tiny", query_heads=4, kv_heads=2, **SIZES)
GPT2 = architecture_of_dimensions(
    query_heads=4,
    plain_mlp=True,
    qkv_bias=True,
    attention_output_bias=True,
    mlp_bias=True,
    learned_positions=64,
    tied_embeddings=True,
    **SIZES,
)

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=gpu)])


def build(architecture=LLAMA, device=CPU):
    return build_model(architecture, Precision.FP32, device)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.mark.parametrize("architecture", [LLAMA, GPT2])
def test_layers_are_found_whatever_a_family_calls_them(architecture):
    assert len(decoder(build(architecture)).layers) == 3


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_generate_takes_one_step_for_each_token_after_the_first(model, sequences, tokens):
    first, steps, _ = generate_once(model, GeneratePoint(sequences, 5, tokens), CPU)
    assert first > 0
    assert len(steps) == tokens - 1
    assert all(step > 0 for step in steps)


def test_generate_takes_as_long_as_its_parts(model):
    import time

    begin = time.perf_counter()
    first, steps, _ = generate_once(model, GeneratePoint(1, 5, 8), CPU)
    whole = (time.perf_counter() - begin) * 1e3
    assert 0.3 * whole < first + sum(steps) <= whole


def test_a_run_is_repeated_until_the_effort_is_spent(model):
    runs = TransformersModel(model, CPU).runs
    firsts, steps = repeated(runs(GeneratePoint(2, 4, 3)), Effort(seconds=60, max_samples=4))
    assert 1 <= firsts.distribution.samples <= 4
    assert 1 <= steps.distribution.samples <= 4
    firsts, steps = repeated(runs(GeneratePoint(2, 4, 1)), QUICK)
    assert firsts.distribution.samples >= 1
    assert steps is None


FORWARDS = [
    ForwardPoint(1, 1, 20),
    ForwardPoint(3, 1, 9),
    ForwardPoint(2, 7, 7),
    ForwardPoint(3, 5, 21),
    ForwardPoint(1, 2, 2),
]


@pytest.mark.parametrize("architecture", [LLAMA, GPT2])
@pytest.mark.parametrize("point", FORWARDS)
def test_a_pass_runs_its_queries_over_its_context(architecture, point):
    model = build(architecture)
    passes = []

    def watch(_, args, kwargs, output):
        cache = output.past_key_values
        passes.append((tuple(kwargs["input_ids"].shape), cache.get_seq_length()))

    handle = model.base_model.register_forward_hook(watch, with_kwargs=True)
    timer = ForwardTimer(model, CPU)
    timing = timer.layer(point, QUICK)
    handle.remove()
    timer.close()
    assert 1 <= timing.distribution.samples <= QUICK.max_samples
    assert timing.distribution.p10 > 0
    past = point.kv_tokens - point.query_tokens
    filled = [((1, past), past)] if past else []
    run = ((point.sequences, point.query_tokens), point.kv_tokens)
    assert passes[: len(filled)] == filled
    assert set(passes[len(filled) :]) == {run}
    assert len(passes) >= len(filled) + 1 + QUICK.min_samples


def test_positions_go_on_where_the_context_ends(model):
    positions = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: positions.append(kwargs.get("position_ids")), with_kwargs=True
    )
    ForwardTimer(model, CPU).layer(ForwardPoint(2, 3, 10), QUICK)
    handle.remove()
    assert positions[-1].tolist() == [[7, 8, 9]]


def test_spans_are_one_a_pass_and_end_when_closed(model):
    spans = LayerSpans(model, CPU)
    ids = torch.zeros(1, 4, dtype=torch.long)
    with torch.inference_mode():
        for _ in range(3):
            model(input_ids=ids)
    assert spans.layer_count == 3
    assert len(spans.milliseconds()) == 3
    assert all(span > 0 for span in spans.milliseconds())
    spans.reset()
    assert spans.milliseconds() == []
    spans.close()
    with torch.inference_mode():
        model(input_ids=ids)
    assert spans.milliseconds() == []


def test_spans_of_groups_are_those_of_their_layers(model):
    together, apart = LayerSpans(model, CPU), LayerSpans(model, CPU, [1, 2])
    with torch.inference_mode():
        for _ in range(4):
            model(input_ids=torch.zeros(1, 4, dtype=torch.long))
    groups = apart.by_group()
    assert [len(group) for group in groups] == [2] * 4
    for (first, rest), whole in zip(groups, together.milliseconds(), strict=True):
        assert first > 0
        assert rest > 0
        assert first + rest == pytest.approx(whole, rel=0.5)
    together.close()
    apart.close()


def test_layers_take_less_than_the_whole_pass(model):
    spans = LayerSpans(model, CPU)
    first, steps, _ = generate_once(model, GeneratePoint(1, 6, 5), CPU)
    inside = spans.milliseconds()
    spans.close()
    assert len(inside) == 5
    assert all(layers < step for layers, step in zip(inside, [first, *steps], strict=True))


@devices
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_all_that_is_asked_of_a_model_is_measured(device, precision):
    opened = CPU if device == "cpu" else open_device(device)
    point = ModelPoint(
        LLAMA,
        (ForwardPoint(2, 1, 12), ForwardPoint(1, 6, 6)),
        (GeneratePoint(1, 8, 5), GeneratePoint(3, 4, 1)),
    )
    rows = list(measure_whole(point, precision, opened, QUICK))
    assert [row.kind for row in rows] == ["layer", "layer", "prefill", "decode", "prefill"]
    steps = [step_of_shape(row.shape) for row in rows]
    assert steps == [
        (Sequences(count=2, query_tokens=1, kv_tokens=12),),
        (Sequences(count=1, query_tokens=6, kv_tokens=6),),
        (Sequences(count=1, query_tokens=8, kv_tokens=8),),
        (Sequences(count=1, query_tokens=1, kv_tokens=10),),
        (Sequences(count=3, query_tokens=4, kv_tokens=4),),
    ]
    for row in rows:
        assert (row.group, row.precision, row.engine) == ("tiny", precision, "transformers")
        assert 0 < row.latency_ms.p10 <= row.latency_ms.median <= row.latency_ms.p90
        assert architecture_of_shape(row.shape).parameter_count() == LLAMA.parameter_count()
        assert OperationKind.LINEAR in {operation.kind for operation in operations_of(row)}


def test_layers_lie_within_their_step():
    model = build_model(LLAMA, Precision.FP32, CPU)
    spans = LayerSpans(model, CPU)
    first, steps, _ = generate_once(model, GeneratePoint(1, 11, 8), CPU)
    inside = spans.milliseconds()
    assert len(inside) == 8
    for layers, step in zip(inside, [first, *steps], strict=True):
        assert 0 < layers < step
