"""Models that a campaign never saw, measured for real; the limits' verdict."""

import re
from types import SimpleNamespace

import pytest

from model.dimensions import architecture_of_dimensions
from model.estimate import Phase
from model.precision import Precision


@pytest.fixture
def first(campaign_file, campaign_rows):
    return campaign_file("first", campaign_rows["first"])


def test_it_measures_layers_models_and_rates_and_compares_campaigns(
    held_out, command, first, campaign_file, campaign_rows
):
    second = campaign_file("second", campaign_rows["slower"])
    given = (first, "--again", second, "--device", "cpu", "--write-page")
    code, printed = command(held_out, *given)
    assert code == 0
    for engine in ("transformers", "torch"):
        for passed in ("1 x 1 over 16", "2 x 8 over 8"):
            assert f"| small | {engine} | {passed} |" in printed
            assert f"| small, a rank of 2 | {engine} | {passed} |" in printed
        for phase in ("prefill of 1 over 8", "decode of 1 over 10"):
            assert f"| small, 2 layers | {engine} | {phase} |" in printed
    assert re.search(r"\| product of 64 cubed, fp32 \| \d", printed)
    assert re.search(r"\| copy of 1 MiB \| \d", printed)
    counts = dict(re.findall(r"^(layers|whole models|campaigns): .* of (\d+) \(", printed, re.M))
    assert counts == {"layers": "8", "whole models": "4", "campaigns": "12"}
    page = held_out.PAGE.read_text()
    assert page.startswith("# Models that a campaign never saw, on a CPU\n")
    assert "python benchmarks/held_out.py first.jsonl --again second.jsonl" in page
    for line in printed.splitlines():
        assert line in page or line[0].upper() + line[1:] in page


def test_errors_are_held_against_their_limits_on_a_gpu_alone(held_out, capsys):
    def held(name, *errors, on_gpu=True):
        return held_out.summary(name, errors, on_gpu=on_gpu)[1]

    assert held("layers", 0.03, -0.03, 0.03)
    assert not held("layers", 0.05, -0.05, 0.05)
    assert not held("layers", 0.01, 0.01, -0.3)  # the 90th percentile
    assert held("layers", 0.05, -0.05, 0.05, on_gpu=False)
    assert held("whole models", 0.01, 0.01, 0.9)  # has no limit there
    text, _ = held_out.summary("layers", [0.02, -0.04, 0.06], on_gpu=True)
    assert text == (
        "Layers: median 4.0%, 90th percentile 5.6%, of 3 (on a GPU at most 4% and 10%)."
    )


@pytest.fixture
def card(held_out, monkeypatch):
    """A GPU whose layers and models take what the cost model says, times a factor."""
    gpu = SimpleNamespace(is_cuda=True, processors=0, default_precision=Precision.FP32)
    monkeypatch.setattr(held_out, "open_device", lambda name: gpu)

    def timed(cost_model, factor):
        for engine in ("transformers", "torch"):
            operations = held_out.step_operations(
                held_out.preset("small"),
                held_out.ForwardPoint(1, 1, 16).step,
                held_out.Parallelism(),
                Precision.FP32,
                Precision.FP32,
                engine,
                first=False,
            )
            it = held_out.Timed(f"small | {engine} | a pass", engine, Phase.DECODE, operations, 1.0)
            yield it._replace(measured_ms=factor * it.predicted_ms(cost_model))

    def make(layers=1.0, whole=1.0, rate=1.0):
        monkeypatch.setattr(held_out, "layers", lambda model, *_: timed(model, layers))
        monkeypatch.setattr(held_out, "whole_models", lambda model, *_: timed(model, whole))
        monkeypatch.setattr(held_out, "rates", lambda *_: [held_out.Case("copy", 1.0, rate)])

    return make


@pytest.mark.parametrize(
    ("took", "code"),
    [
        ({}, 0),
        ({"layers": 1.2}, 1),
        ({"whole": 0.8}, 1),
        ({"rate": 1.06}, 1),
        ({"layers": 1.03, "whole": 1.04, "rate": 0.96}, 0),
    ],
)
def test_a_gpu_whose_limit_is_exceeded_ends_with_code_1(held_out, card, command, first, took, code):
    card(**took)
    assert command(held_out, first, "--device", "cuda:0")[0] == code


def test_campaigns_that_disagree_end_with_code_1(
    held_out, card, command, first, campaign_file, campaign_rows
):
    card()
    slower = campaign_file("slower", campaign_rows["slower"])
    code, printed = command(held_out, first, "--again", slower, "--device", "cuda:0")
    assert code == 1
    assert re.search(r"campaigns: median (9|1\d)\.\d%", printed)


def test_a_campaign_that_measured_nothing_is_refused(held_out, command, campaign_file):
    with pytest.raises(SystemExit, match="holds no measurement; run the campaign for longer"):
        command(held_out, campaign_file("empty", []), "--device", "cpu")


def test_a_campaign_that_tells_of_no_engine_is_refused(held_out, command, first, monkeypatch):
    monkeypatch.setattr(held_out, "POINTS", {"vllm": held_out.ModelPoint})
    with pytest.raises(SystemExit, match="fits no engine in fp32"):
        command(held_out, first, "--device", "cpu")


def test_a_model_is_cut_to_what_memory_holds(held_out):
    deep = architecture_of_dimensions(
        hidden_size=64, layer_count=8, intermediate_size=128, vocab_size=256, query_heads=4
    )
    needed = deep.parameter_count() * Precision.FP32.weight_bytes

    def layers(free):
        device = SimpleNamespace(free_bytes=lambda: free)
        return held_out.that_fits(deep, Precision.FP32, device).layer_count

    assert layers(100 * needed) == 8
    assert layers(needed // 100) == 2
    assert layers(needed) == int(8 * held_out.FREE_SHARE) == 4
