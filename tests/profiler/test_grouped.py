"""Experts on GPUs: where torch has a kernel that a graph can hold, and what is said elsewhere."""

import pytest

from model.errors import InvalidFieldError
from model.huggingface import architecture_from_config
from model.precision import Precision
from model.workload import Workload
from profiler.check import check
from profiler.device import Device
from profiler.experts import ExpertsPoint
from profiler.grouped import check_grouped
from profiler.interface import PLAIN_ENGINE, LiveRequest, Scope
from profiler.live_models import live_model
from profiler.plain_models import PlainModelPoint, timed_decoder
from profiler.point_kinds import EVERY_KIND
from profiler.wholes import ForwardPoint

MIXTURE = architecture_from_config(
    {
        "model_type": "mixtral",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "vocab_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
    },
    "mixture",
)
DENSE = architecture_from_config(
    {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "vocab_size": 96,
        "num_attention_heads": 4,
    },
    "dense",
)
POINT = ForwardPoint(1, 1, 4)
BEYOND = [
    (Precision.FP16, (9, 0), "in bf16, not in fp16; use bf16"),
    (Precision.FP32, (10, 0), "in bf16, not in fp32; use bf16"),
    (Precision.FP8, (9, 0), "in bf16, not in fp8; use bf16"),
    (Precision.FP16, (8, 0), "in no precision on cuda:0's 8.0"),
    (Precision.BF16, (8, 0), "capability 9 or 10 alone, in no precision on cuda:0's 8.0"),
    (Precision.BF16, (12, 0), "in no precision on cuda:0's 12.0"),
]
beyond = pytest.mark.parametrize(("precision", "capability", "said"), BEYOND)


def gpu(capability):
    return Device("cuda:0", 1 << 25, 132, capability)


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (10, 3)])
def test_bf16_runs_where_torch_has_a_kernel(capability):
    check_grouped(Precision.BF16, gpu(capability))


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_the_cpu_needs_no_graph(precision):
    check_grouped(precision, Device("cpu", 1 << 20))


def test_experts_are_not_packed_on_the_cpu():
    with pytest.raises(InvalidFieldError, match="are not held in int8; use fp32 or bf16"):
        check_grouped(Precision.INT8, Device("cpu", 1 << 20))


@beyond
def test_experts_alone_are_refused_with_the_reason(precision, capability, said):
    point = ExpertsPoint(32, 16, 8, 8, 2, (1,))
    with pytest.raises(InvalidFieldError, match=said) as raised:
        list(point.measure(precision, gpu(capability)))
    assert raised.value.field == "precision"


@beyond
def test_plain_experts_are_refused_before_memory_is_taken(precision, capability, said):
    with pytest.raises(InvalidFieldError, match=said):
        PlainModelPoint(MIXTURE, (POINT,), ()).build(precision, gpu(capability))
    asked = LiveRequest(
        device="cuda:0",
        budget_s=1.0,
        architecture=MIXTURE,
        workload=Workload(input_tokens=4),
        tensor=1,
        precision=precision,
        scope=Scope.MODEL,
        engine=PLAIN_ENGINE,
    )
    with pytest.raises(InvalidFieldError, match=said):
        live_model(asked, MIXTURE, MIXTURE, gpu(capability))


class Gpu(Device):
    """An A100 whose tensors are on the CPU."""

    __slots__ = ()
    is_cuda = True


def test_dense_layers_are_not_refused():
    a100 = Gpu("cpu", 1 << 16, 108, (8, 0))
    assert len(timed_decoder(DENSE, Precision.FP16, a100).layers) == 2
    with pytest.raises(InvalidFieldError, match="grouped products"):
        timed_decoder(MIXTURE, Precision.FP16, a100)


@pytest.mark.parametrize(
    ("precision", "capability"), [(Precision.FP16, (9, 0)), (Precision.BF16, (8, 0))]
)
def test_a_check_counts_it_as_a_limit(precision, capability):
    kinds = [kind for kind in EVERY_KIND if kind.name in {"experts", "plain_mixture"}]
    found = list(check(gpu(capability), [precision], kinds))
    assert len(found) == 2
    for each in found:
        assert each.text.startswith("not timed: precision: torch's grouped products run")
        assert not each.failed
