"""The kernels of plain torch that attend, and the choice of the fastest that is right."""

import logging
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.dimensions import architecture_of_dimensions
from model.precision import Precision
from profiler import attention_choice, plain_attention
from profiler.attention_backends import (
    BACKENDS,
    FlashWindow,
    FlexBackend,
    FusedBackend,
    Sight,
    band,
)
from profiler.attention_choice import Choices, attend_by_fastest, choices_of, leave_out
from profiler.device import Device, open_device
from profiler.interface import DeviceLostError
from profiler.plain import PlainDecoder
from profiler.plain_attention import attend_to
from profiler.plain_models import PlainModel
from profiler.static_attention import StaticAttentionPoint, measure_static_attention
from profiler.timing import Effort, captured
from profiler.wholes import ForwardPoint

CPU = Device("cpu", 0)
DECODE = Sight(2, 300, is_causal=False)
PROMPT = Sight(160, 160)
CHUNK = Sight(40, 300)
WINDOW = Sight(40, 300, window=70)
PROMPT_IN_WINDOW = Sight(160, 160, window=70)
SIGHTS = (DECODE, PROMPT, CHUNK, WINDOW, PROMPT_IN_WINDOW)
sights = pytest.mark.parametrize("sight", SIGHTS, ids=str)
HEADS = {"alone": (4, 4), "shared": (8, 2)}
heads = pytest.mark.parametrize("heads", HEADS.values(), ids=list(HEADS))
FLASH = FusedBackend("flash", SDPBackend.FLASH_ATTENTION)
MATH = FusedBackend("math", SDPBackend.MATH)
CUDNN = FusedBackend("cudnn", SDPBackend.CUDNN_ATTENTION)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Counted:
    """A backend whose plans are counted, and that may take longer."""

    name = "counted"

    def __init__(self, backend=FLASH, plan_s=0.0, run_s=0.0):
        self.plans = 0
        self._backend, self._plan_s, self._run_s = backend, plan_s, run_s

    def plan(self, sight, query, keys):
        self.plans += 1
        time.sleep(self._plan_s)
        return partial(self._attend, self._backend.plan(sight, query, keys))

    def _attend(self, attend, *tensors):
        time.sleep(self._run_s)
        return attend(*tensors)


class UpperLeft:
    """torch's ``is_causal`` hides by the upper left corner: wrong behind a past."""

    name = "upper left"

    def plan(self, sight, query, keys):
        return partial(F.scaled_dot_product_attention, is_causal=sight.is_causal)


def tensors(sight, heads=(4, 4), dtype=torch.float32, device="cpu", width=64):
    torch.manual_seed(0)
    query = torch.randn(2, heads[0], sight.queries, width, dtype=dtype, device=device)
    keys = torch.randn(2, heads[1], sight.keys, width, dtype=dtype, device=device)
    return query, keys, torch.randn_like(keys)


def exact(sight, query, keys, values):
    """By the definition, in 64 bits."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = (each.double().repeat_interleave(groups, dim=1) for each in (keys, values))
    scores = query.double() @ keys.transpose(2, 3) * query.shape[3] ** -0.5
    if sight.is_causal:
        for row in range(sight.queries):
            last = sight.keys - sight.queries + row
            scores[:, :, row, last + 1 :] = -torch.inf
            if sight.window is not None:
                scores[:, :, row, : max(0, last + 1 - sight.window)] = -torch.inf
    return scores.softmax(dim=3) @ values


def error(found, right):
    return float((found.double() - right).norm() / right.norm())


@pytest.fixture
def told(caplog):
    """What the log says of each choice."""
    caplog.set_level(logging.INFO, attention_choice.__name__)
    return lambda: [record.getMessage() for record in caplog.records]


@sights
@heads
@pytest.mark.parametrize("repeated", [False, True], ids=["groups", "repeated"])
def test_a_kernel_attends_to_what_a_query_sees(sight, heads, repeated):
    given = tensors(sight, heads)
    backend = FusedBackend("math", SDPBackend.MATH, takes_groups=not repeated)
    attend = backend.plan(sight, *given[:2])
    assert error(attend(*given), exact(sight, *given)) < 1e-5
    assert error(attend_by_fastest(sight, *given), exact(sight, *given)) < 1e-5


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("sight", [CHUNK, WINDOW], ids=str)
@torch.inference_mode()
def test_flex_attention_attends_to_what_a_query_sees(sight):
    given = tensors(sight, (4, 2))
    attend = FlexBackend().plan(sight, *given[:2])
    assert error(attend(*given), exact(sight, *given)) < 1e-5


def test_flex_attention_is_compiled_only_where_others_read_a_mask():
    planned = [FlexBackend().plan(sight, *tensors(sight)[:2]) for sight in SIGHTS]
    assert [plan is None for plan in planned] == [True, True, False, False, False]
    half = tensors(CHUNK, dtype=torch.bfloat16)
    assert FlexBackend().plan(CHUNK, *half[:2]) is None  # flash takes it


def test_the_operator_with_a_window_is_asked_for_windows_alone():
    planned = [FlashWindow().plan(sight, *tensors(sight)[:2]) for sight in SIGHTS]
    assert [plan is None for plan in planned] == [True, True, True, False, False]


def test_a_band_ends_at_each_querys_own_key():
    assert band(2, 4, 2, torch.device("cpu")).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


@torch.inference_mode()
def test_the_fastest_is_taken(told):
    given = tensors(Sight(512, 512), (8, 8))
    with sdpa_kernel(SDPBackend.MATH):  # what torch prefers within
        found = Choices(CPU, [CUDNN, FLASH]).attend(Sight(512, 512), *given)
    assert error(found, exact(Sight(512, 512), *given)) < 1e-5
    (said,) = told()
    assert said.startswith("attention by flash: 2 x 8 on 8 heads of 64, torch.float32")
    assert "no cudnn (RuntimeError: " in said


@torch.inference_mode()
def test_what_is_slower_than_torchs_choice_is_not(told):
    given = tensors(Sight(512, 512), (8, 8))
    Choices(CPU, [MATH]).attend(Sight(512, 512), *given)
    (said,) = told()
    assert said.startswith("attention by default")
    assert "math " in said


@pytest.mark.parametrize("size", [1.0, 0.02])
@torch.inference_mode()
def test_what_computes_something_else_is_left_out(told, size):
    query, keys, values = (each * size for each in tensors(CHUNK))
    with sdpa_kernel(SDPBackend.MATH):  # slower than what is wrong
        found = Choices(CPU, [UpperLeft()]).attend(CHUNK, query, keys, values)
    assert error(found, exact(CHUNK, query, keys, values)) < 1e-5
    (said,) = told()
    assert said.startswith("attention by default")
    assert "no upper left (InaccurateError: it differs by " in said


class Breakable(Device):
    """The CPU, taken for a device whose context can be lost."""

    is_lost = False

    def synchronize(self):
        if self.is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


class Breaking:
    """A backend whose kernel takes the context with it, which the call itself may not tell."""

    name = "breaking"

    def __init__(self, raises):
        self._raises = raises

    def plan(self, sight, query, keys):
        return partial(self._attend, sight)

    def _attend(self, sight, *tensors):
        Breakable.is_lost = True
        if self._raises:
            raise RuntimeError("CUDA error: misaligned address")
        return attend_by_fastest(sight, *tensors)


@pytest.mark.parametrize("raises", [False, True], ids=["later", "at once"])
@torch.inference_mode()
def test_a_candidate_that_takes_the_device_with_it_is_named_and_can_be_left_out(
    monkeypatch, raises, told
):
    monkeypatch.setattr(Breakable, "is_lost", False)
    given, right = tensors(CHUNK), exact(CHUNK, *tensors(CHUNK))
    choices = Choices(Breakable("cpu", 0), [Breaking(raises), FLASH])
    with pytest.raises(DeviceLostError, match="illegal memory access") as lost:
        choices.attend(CHUNK, *given)
    assert lost.value.group == "attention by breaking"
    # As another process does, which has a context of its own.
    Breakable.is_lost = False
    choices = Choices(Breakable("cpu", 0), [Breaking(raises), FLASH])
    choices.leave_out(["linear-8x8", lost.value.group])
    assert error(choices.attend(CHUNK, *given), right) < 1e-5
    (said,) = told()
    assert "flash " in said
    assert "breaking" not in said


@torch.inference_mode()
def test_a_candidate_is_left_out_of_all_that_a_process_attends_to(monkeypatch):
    left, taken = Counted(), Counted()
    left.name = "left out"
    monkeypatch.setattr(attention_choice, "BACKENDS", (left, taken))
    choices_of.cache_clear()
    try:
        leave_out("cpu", {"attention by left out"})
        choices_of("cpu").attend(CHUNK, *tensors(CHUNK))
    finally:
        choices_of.cache_clear()
    assert (left.plans, taken.plans) == (0, 1)


@torch.inference_mode()
def test_a_shape_is_chosen_for_once_and_others_anew():
    counted = Counted()
    choices = Choices(CPU, [counted])
    right = [exact(sight, *tensors(sight)) for sight in SIGHTS]
    for plans in (len(SIGHTS), len(SIGHTS)):
        found = [choices.attend(sight, *tensors(sight)) for sight in SIGHTS]
        assert all(error(*both) < 1e-5 for both in zip(found, right, strict=True))
        assert counted.plans == plans
    query, keys, values = tensors(PROMPT)
    by_token = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in (keys, values)]
    for others in (tensors(PROMPT, (8, 4)), tensors(PROMPT, width=32), (query, *by_token)):
        before = counted.plans
        assert error(choices.attend(PROMPT, *others), exact(PROMPT, *others)) < 1e-5
        assert counted.plans == before + 1


@torch.inference_mode()
def test_the_shape_that_was_not_asked_for_the_longest_is_forgotten():
    counted = Counted()
    choices = Choices(CPU, [counted], remembered=2)
    for sight, plans in ((DECODE, 1), (CHUNK, 2), (DECODE, 2), (PROMPT, 3), (DECODE, 3)):
        choices.attend(sight, *tensors(sight))
        assert counted.plans == plans
    choices.attend(CHUNK, *tensors(CHUNK))
    assert counted.plans == 4


@pytest.mark.parametrize(
    ("backend", "plan_s", "run_s", "plans"),
    [(FLASH, 0.05, 0.0, 1), (CUDNN, 0.05, 0.0, 1), (FLASH, 0.0, 0.05, 2)],
    ids=["compiles", "compiles in vain", "runs as long later"],
)
@torch.inference_mode()
def test_one_that_took_too_long_to_prepare_is_asked_no_more(backend, plan_s, run_s, plans):
    counted = Counted(backend, plan_s, run_s)
    choices = Choices(CPU, [counted], preparing_s=0.04)
    for sight in (PROMPT, CHUNK):
        given = tensors(sight)
        assert error(choices.attend(sight, *given), exact(sight, *given)) < 1e-5
    assert counted.plans == plans


@torch.inference_mode()
def test_nothing_is_chosen_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    counted = Counted()
    given = tensors(CHUNK)
    found = Choices(Device("cuda:0", 0), [counted]).attend(CHUNK, *given)
    assert error(found, exact(CHUNK, *given)) < 1e-5
    assert counted.plans == 0


@pytest.mark.parametrize("sizes", [(2, 1, 24), (2, 24, 24), (2, 8, 24)], ids=str)
def test_layers_and_the_kernel_alone_share_a_choice(monkeypatch, sizes):
    counted = Counted()
    choices = Choices(CPU, [counted])
    monkeypatch.setattr(plain_attention, "attend_by_fastest", choices.attend)
    effort = Effort(seconds=0.0, min_samples=1, max_samples=1)
    point = StaticAttentionPoint(*sizes, 4, 2, 8)
    list(measure_static_attention(point, Precision.FP32, CPU, effort))
    assert counted.plans == 1
    decoder = PlainDecoder(
        architecture_of_dimensions(
            hidden_size=32,
            layer_count=2,
            intermediate_size=64,
            vocab_size=96,
            query_heads=4,
            kv_heads=2,
        ),
        Precision.FP32,
        CPU,
    )
    PlainModel(decoder).layer(ForwardPoint(*sizes), effort)
    assert counted.plans == 1


@torch.inference_mode()
def test_on_the_cpu_nothing_is_timed(told):
    query, keys, values = tensors(CHUNK, (4, 2))
    attend_to(query.transpose(1, 2), keys, values)
    assert not told()


@sights
@heads
@pytest.mark.parametrize(
    "backend",
    [pytest.param(each, marks=gpu, id=each.name) for each in BACKENDS],
)
@torch.inference_mode()
def test_each_candidate_is_right_on_a_gpu_or_fails(backend, heads, sight, told):
    given = tensors(sight, heads, torch.bfloat16, "cuda:0")
    right = exact(sight, *given)
    choices = Choices(open_device("cuda:0"), [backend])
    assert error(choices.attend(sight, *given), right) < 1e-2
    assert "InaccurateError" not in told()[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@heads
@torch.inference_mode()
def test_a_graph_holds_what_was_chosen_when_it_was_warmed_up(heads, told):
    device = open_device("cuda:0")
    choices_of.cache_clear()
    for sight in SIGHTS:
        given = tensors(sight, heads, torch.bfloat16, "cuda:0")
        output = torch.zeros_like(given[0])
        replay = captured(
            device, [lambda s=sight, g=given, o=output: o.copy_(attend_by_fastest(s, *g))]
        )
        replay()
        device.synchronize()
        assert error(output, exact(sight, *given)) < 1e-2
    assert len(told()) == len(SIGHTS)
