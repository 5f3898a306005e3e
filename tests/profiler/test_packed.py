"""Packed linears: the numerics against floats, and models that hold nothing else."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers.pytorch_utils import Conv1D

from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.operations import OperationKind
from model.precision import Precision
from model.shapes import operations_of
from profiler import operations
from profiler.device import Device, open_device
from profiler.models import ModelPoint, generate_once
from profiler.modules import build_model
from profiler.numerics import CHECKED, InaccurateError, check
from profiler.operations import AttentionPoint, LinearPoint, measure_attention, measure_linear
from profiler.packed import PACKED, PER_TENSOR, PackedModule
from profiler.timing import Effort
from profiler.wholes import ForwardPoint, GeneratePoint, measure_whole

CPU = Device("cpu", 1 << 16)
BLOCKS = Precision.FP8_BLOCK
"""Torch multiplies it on GPUs alone."""
PER_TENSOR_KIND = OperationKind.LINEAR_PER_TENSOR
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
TINY = architecture_of_dimensions(
    name="tiny",
    hidden_size=64,
    layer_count=2,
    query_heads=4,
    kv_heads=2,
    intermediate_size=128,
    vocab_size=130,
    tied_embeddings=True,
)

GPT2 = architecture_of_dimensions(
    hidden_size=64,
    layer_count=2,
    query_heads=4,
    intermediate_size=128,
    vocab_size=130,
    plain_mlp=True,
    qkv_bias=True,
    attention_output_bias=True,
    mlp_bias=True,
    learned_positions=64,
    tied_embeddings=True,
)

ROUNDING = {Precision.FP8: 0.05, BLOCKS: 0.05, Precision.INT4: 0.13}
"""Largest relative errors, of formats that round more than int8."""

formats = pytest.mark.parametrize("precision", list(PACKED))
on_the_cpu = pytest.mark.parametrize("precision", [p for p in PACKED if p is not BLOCKS])


def relative_error(found, exact):
    return float((found.float() - exact).norm() / exact.norm())


def opened(name, precision):
    if name != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = CPU if name == "cpu" else open_device(name)
    try:
        device.check(precision)
    except InvalidFieldError as error:
        pytest.skip(error.message)
    return device


devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])


@formats
@devices
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 64), (3, 64), (2, 20, 64)])
def test_a_linear_is_as_near_to_floats_as_its_format_rounds(device, precision, bias, shape):
    torch.manual_seed(0)
    place = opened(device, precision).torch_device
    linear = nn.Linear(64, 96, bias=bias).to(place)
    x = torch.randn(shape, device=place)
    exact = linear(x).detach()
    with torch.inference_mode():
        found = PackedModule(linear.to(torch.bfloat16), precision)(x.to(torch.bfloat16))
    assert found.shape == exact.shape
    assert found.dtype is torch.bfloat16
    assert relative_error(found, exact) < ROUNDING.get(precision, 0.025)


@on_the_cpu
@pytest.mark.parametrize("width", [72, 100])
def test_any_width_is_multiplied(precision, width):
    torch.manual_seed(0)
    linear, x = nn.Linear(width, 60), torch.randn(3, width)
    exact = linear(x).detach()
    with torch.inference_mode():
        found = PackedModule(linear.bfloat16(), precision)(x.bfloat16())
    assert relative_error(found, exact) < ROUNDING.get(precision, 0.025)


@on_the_cpu
def test_a_transposed_linear_is_packed_alike(precision):
    torch.manual_seed(0)
    transposed, linear = Conv1D(96, 64), nn.Linear(64, 96)
    linear.weight.data.copy_(transposed.weight.data.t())
    linear.bias.data.copy_(transposed.bias.data)
    x = torch.randn(3, 64).bfloat16()
    first, second = (PackedModule(it.bfloat16(), precision)(x) for it in (transposed, linear))
    assert torch.equal(first, second)


@on_the_cpu
def test_a_model_that_transposes_its_weights_is_packed_too(precision):
    model = build_model(GPT2, precision, CPU)
    kinds = [type(module) for module in model.modules()]
    assert not {nn.Linear, Conv1D} & set(kinds)
    assert kinds.count(PackedModule) == 2 * 4 + 1
    first, steps, _ = generate_once(model, GeneratePoint(2, 5, 3), CPU)
    assert first > 0
    assert len(steps) == 2


@on_the_cpu
@pytest.mark.parametrize("width", [128, 160])
def test_the_last_tokens_of_sequences_are_multiplied_as_copies_of_them_are(precision, width):
    linear = PackedModule(nn.Linear(width, 32).bfloat16(), precision)
    last = torch.randn(3, 5, width).bfloat16()[:, -1]
    assert not last.is_contiguous()
    assert torch.equal(linear(last), linear(last.contiguous()))


def test_aligned_activations_are_not_copied():
    (prepared,) = PACKED[Precision.INT4].prepare(x := torch.zeros(2, 256).bfloat16())
    assert prepared.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("scaled", [PACKED[Precision.FP8], PER_TENSOR])
def test_fp8_of_either_scaling_is_summed_alike(monkeypatch, scaled):
    asked = []
    multiply = torch._scaled_mm

    def spy(*args, use_fast_accum=False, **named):
        asked.append(use_fast_accum)
        return multiply(*args, use_fast_accum=use_fast_accum, **named)

    monkeypatch.setattr(torch, "_scaled_mm", spy)
    x = torch.randn(32, 64).bfloat16()
    scaled.multiply(*scaled.prepare(x), *scaled.pack(x))
    assert asked == [True]


def torchaos_int4(device):
    """What packs a module in torchao's groups of 128 weights."""
    need = partial(pytest.importorskip, reason="needs torchao", exc_type=ImportError)
    quantization = need("torchao.quantization")
    if device == "cpu":
        make = need("torchao.prototype.quantization.int4").PrototypeInt4WeightOnlyConfig
    else:
        make = partial(quantization.Int4WeightOnlyConfig, int4_packing_format="tile_packed_to_4d")
    return partial(quantization.quantize_, config=make(set_inductor_config=False))


def operators_of(run):
    """Names of torch's operators that run, and the result."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as seen:
        result = run()
    return {event.key for event in seen.key_averages()}, result


@pytest.mark.filterwarnings("ignore")  # whatever torchao warns of
@devices
def test_torchaos_int4_is_the_product_that_is_timed(device):
    place, pack = opened(device, Precision.INT4).torch_device, torchaos_int4(device)
    torch.manual_seed(0)
    linear = nn.Linear(1024, 64, bias=False).to(place)
    x = torch.randn(3, 1024, device=place)
    exact = linear(x).detach()
    ours = PackedModule(linear.bfloat16(), Precision.INT4)
    pack(linear)
    (own, found), (other, theirs) = (
        operators_of(partial(it, x.bfloat16())) for it in (ours, linear)
    )
    product = "aten::_weight_int4pack_mm" + ("_for_cpu" if device == "cpu" else "")
    assert product in own & other
    # Scales are rounded before or behind the weights.
    assert relative_error(found, exact) == pytest.approx(relative_error(theirs, exact), rel=0.1)


@on_the_cpu
def test_rows_of_zeros_stay_zero(precision):
    linear = nn.Linear(32, 32, bias=False)
    linear.weight.data.zero_()
    found = PackedModule(linear.to(torch.bfloat16), precision)(torch.zeros(2, 32).bfloat16())
    assert not found.any()


@on_the_cpu
def test_a_model_holds_no_other_linear_and_generates(precision):
    model = build_model(TINY, precision, CPU)
    kinds = [type(module) for module in model.modules()]
    assert nn.Linear not in kinds
    assert kinds.count(PackedModule) == 2 * 7 + 1
    first, steps, _ = generate_once(model, GeneratePoint(2, 5, 4), CPU)
    assert first > 0
    assert len(steps) == 3


@formats
@devices
def test_points_carry_the_precision_of_what_ran(device, precision):
    place = opened(device, precision)
    rows = list(measure_linear(LinearPoint(64, 32, (3, 40)), precision, place, QUICK))
    assert [row.precision for row in rows] == [precision] * 2
    point = AttentionPoint(1, 1, 8, 4, 2, 16)
    (attention,) = measure_attention(point, precision, place, QUICK)
    assert attention.precision is Precision.BF16
    whole = ModelPoint(TINY, (ForwardPoint(1, 1, 4),), ())
    (layer,) = measure_whole(whole, precision, place, QUICK)
    precisions = {o.kind: o.precision for o in operations_of(layer)}
    assert precisions[OperationKind.LINEAR] is precision
    assert precisions[OperationKind.ATTENTION] is Precision.BF16


@pytest.mark.parametrize("kind", [OperationKind.LINEAR, PER_TENSOR_KIND], ids=str)
def test_the_activations_are_packed_before_the_clock_runs(timed, kind):
    list(measure_linear(LinearPoint(64, 32, (3,), kind), Precision.FP8, CPU, QUICK))
    (runs,) = timed
    assert {run.args[0].dtype for run in runs} == {torch.float8_e4m3fn}
    assert len({run.args[2].data_ptr() for run in runs}) == len(runs) > 1
    # Of both sides, a scale each: of every row, or of all of them.
    whole = kind is PER_TENSOR_KIND
    assert {run.args[1].numel() for run in runs} == {1 if whole else 3}
    assert {run.args[3].numel() for run in runs} == {1 if whole else 64}
    assert {scale.dtype for run in runs for scale in (run.args[1], run.args[3])} == {torch.float32}


@devices
@pytest.mark.parametrize("size", [(1, 96, 64), (3, 130, 70), (40, 64, 320)], ids=str)
def test_fp8_with_one_scale_is_as_near_to_floats_as_it_rounds(device, size):
    torch.manual_seed(0)
    place = opened(device, Precision.FP8).torch_device
    rows, n, k = size
    x, weight = torch.randn(rows, k, device=place), torch.randn(n, k, device=place)
    pack, prepare, multiply = PER_TENSOR
    found = multiply(*prepare(x.bfloat16()), *pack(weight.bfloat16()))
    assert (found.shape, found.dtype) == ((rows, n), torch.bfloat16)
    assert relative_error(found, x @ weight.t()) < 0.05


def test_one_scale_for_all_weights_brings_the_largest_to_the_largest_number():
    torch.manual_seed(0)
    weight = torch.randn(7, 64) * torch.logspace(-4, 2, 7)[:, None]
    packed, scale, columns = PER_TENSOR.pack(weight)
    assert columns == 7
    assert float(packed.float().abs().max()) == 448.0
    assert float(scale) == pytest.approx(float(weight.abs().max()) / 448.0)
    again = (packed.float() * scale).t()[:7, :64]
    # Rows of large weights are as they were; the smallest fall below the least number.
    assert relative_error(again[-1], weight[-1]) < 0.05
    assert relative_error(again[0], weight[0]) > 0.5


def test_nothing_but_zeros_has_a_scale_and_stays_zero():
    found = PER_TENSOR.multiply(
        *PER_TENSOR.prepare(torch.zeros(2, 32)), *PER_TENSOR.pack(torch.zeros(32, 32))
    )
    assert not found.any()


@devices
def test_linears_in_fp8_with_one_scale_are_measured_as_those_with_one_a_row(device):
    place = opened(device, Precision.FP8)
    point = LinearPoint(64, 32, (3, 40), PER_TENSOR_KIND)
    rows = list(measure_linear(point, Precision.FP8, place, QUICK))
    assert [(row.kind, row.precision) for row in rows] == [("linear_per_tensor", Precision.FP8)] * 2
    assert [row.shape for row in rows] == [{"m": m, "n": 64, "k": 32} for m in (3, 40)]
    assert {row.group for row in rows} == {"linear_per_tensor-64x32"}
    assert all(row.latency_ms.median > 0 for row in rows)


@pytest.mark.parametrize("precision", [p for p in Precision if p is not Precision.FP8])
def test_only_fp8_is_timed_with_one_scale(precision):
    point = LinearPoint(64, 32, (3,), PER_TENSOR_KIND)
    with pytest.raises(InvalidFieldError, match="precision: "):
        list(measure_linear(point, precision, CPU, QUICK))


@pytest.mark.parametrize("kind", [OperationKind.LINEAR, PER_TENSOR_KIND], ids=str)
def test_a_product_in_fp8_that_is_another_one_is_not_timed(monkeypatch, kind):
    right = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *a, **named: 1.1 * right(*a, **named))
    with pytest.raises(InaccurateError, match="fp8: off by 1"):
        list(measure_linear(LinearPoint(96, 64, (3,), kind), Precision.FP8, CPU, QUICK))


@pytest.mark.parametrize("kind", [OperationKind.LINEAR, OperationKind.LINEAR_TRANSPOSED], ids=str)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_a_product_that_is_another_one_is_not_timed(monkeypatch, precision, kind):
    point = LinearPoint(96, 64, (3,), kind)
    assert list(measure_linear(point, precision, CPU, QUICK))
    transposed = kind is OperationKind.LINEAR_TRANSPOSED
    name, owner = ("addmm", torch) if transposed else ("linear", operations.F)
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: 1.1 * right(*arguments))
    with pytest.raises(InaccurateError, match="off by 10"):
        list(measure_linear(point, precision, CPU, QUICK))


def test_what_is_no_number_is_inaccurate():
    exact = torch.ones(2, CHECKED)
    check(exact.clone(), exact, Precision.FP32)
    with pytest.raises(InaccurateError):
        check(torch.full((2, CHECKED), float("nan")), exact, Precision.FP32)


@pytest.mark.parametrize(("rows", "n", "k"), [(1, 128, 128), (5, 200, 300), (8, 130, 1024)])
def test_fp8_blocks_say_what_floats_did_in_the_layout_that_cublas_takes(rows, n, k):
    torch.manual_seed(0)
    pack, prepare, _ = PACKED[BLOCKS]
    # Blocks that differ by orders of magnitude: one scale for all of them would lose most.
    steps = torch.logspace(-3, 3, -(-k // 128)).repeat_interleave(128)[:k]
    x, weight = torch.randn(rows, k) * steps, torch.randn(n, k) / steps
    packed, scales, columns = pack(weight)
    values, x_scales, kept = prepare(x)
    blocks = -(-k // 128)
    assert (kept, columns) == (rows, n)
    assert values.shape == (-(-rows // 4) * 4, blocks * 128)
    assert packed.shape == (blocks * 128, -(-n // 128) * 128)
    # A column of scales lies together; of the weights' so do a multiple of four.
    assert x_scales.shape == (len(values), blocks)
    assert x_scales.stride(0) == 1
    assert x_scales.stride(1) in {1, len(values)}
    assert scales.shape == (-(-blocks // 4) * 4, packed.shape[1] // 128)
    assert scales.stride(0) == 1
    wide = x_scales.repeat_interleave(128, dim=1)
    tall = scales[:blocks].repeat_interleave(128, dim=0).repeat_interleave(128, dim=1)
    x_again, weight_again = values.float() * wide, (packed.float() * tall).t()
    assert relative_error(x_again[:rows, :k], x) < 0.05
    assert relative_error(weight_again[:n, :k], weight) < 0.05
    product = (x_again @ weight_again.t())[:rows, :n]
    check(product, x @ weight.t()[:, :CHECKED], BLOCKS)
