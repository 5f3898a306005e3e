"""The device under test: its cache, precisions, memory and random data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler.device import FP8_CAPABILITY, Device, dtype_of, fill_random, open_device

KINDS = (Device("cpu", 1 << 25), Device("cuda:0", 1 << 25), Device("cuda:0", 1 << 25, 132, (9, 0)))


def test_the_cpu_is_always_there():
    cpu = open_device("cpu")
    assert not cpu.is_cuda
    assert cpu.torch_device == torch.device("cpu")
    assert cpu.cache_bytes > 0
    assert cpu.free_bytes() > 0
    cpu.synchronize()
    assert not cpu.lost()


def test_the_cpu_computes_with_as_many_threads_as_told():
    before = torch.get_num_threads()
    try:
        open_device("cpu", threads=1)
        assert torch.get_num_threads() == 1
        open_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["cuda:99", "tpu"])
def test_a_device_that_torch_does_not_see_is_refused(name):
    with pytest.raises(RuntimeError, match=name):
        open_device(name)


@pytest.mark.parametrize("device", KINDS)
def test_the_default_precision_comes_first_and_torch_has_all_of_them(device):
    assert device.precisions[0] is device.default_precision
    assert len(set(device.precisions)) == len(device.precisions)
    for precision in device.precisions:
        assert dtype_of(precision).itemsize == precision.activation_bytes
    assert (Precision.FP8 in device.precisions) is (device.capability >= FP8_CAPABILITY)


def test_a_precision_that_torch_has_not_is_refused_with_the_remedy():
    with pytest.raises(InvalidFieldError, match="use fp32, bf16, fp16") as raised:
        Device("cpu", 1 << 25).check(Precision.FP4)
    assert raised.value.field == "precision"


@pytest.mark.parametrize("device", KINDS)
def test_what_a_device_measures_unasked_passes_its_own_check(device):
    for precision in device.precisions:
        device.check(precision)


def test_fp8_needs_its_multipliers():
    Device("cpu", 1 << 25).check(Precision.FP8)
    Device("cuda:0", 1 << 25, 142, FP8_CAPABILITY).check(Precision.FP8)
    with pytest.raises(InvalidFieldError, match=r"no fp8 multipliers.*8\.9; use bf16 or int8"):
        Device("cuda:0", 1 << 25, 108, (8, 0)).check(Precision.FP8)


@pytest.mark.parametrize(
    ("capability", "cuda", "runs"),
    [
        ((9, 0), "12.9", True),
        ((9, 0), "13.0", True),
        ((9, 0), "12.8", False),
        ((10, 0), "13.0", False),
        ((8, 9), "12.9", False),
        ((9, 0), None, False),
    ],
)
def test_fp8_in_blocks_needs_hopper_and_a_late_cuda(monkeypatch, capability, cuda, runs):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    device = Device("cuda:0", 1 << 25, 132, capability)
    if runs:
        device.check(Precision.FP8_BLOCK)
    else:
        with pytest.raises(InvalidFieldError, match=r"CUDA 12\.9 or later; use fp8 or bf16"):
            device.check(Precision.FP8_BLOCK)


def test_the_cpu_has_no_fp8_in_blocks():
    with pytest.raises(InvalidFieldError, match="use fp8 or bf16"):
        Device("cpu", 1 << 25).check(Precision.FP8_BLOCK)


def test_cold_data_is_larger_than_the_cache_but_never_without_bound():
    assert Device("cpu", 1 << 20).cold_bytes > 1 << 20
    assert Device("cpu", 1 << 50).cold_bytes < 1 << 40


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_random_data_has_no_zeros_and_no_two_equal_rows(size, dtype):
    tensor = open_device("cpu").random(*size, dtype=dtype)
    assert tensor.shape == tuple(size)
    assert tensor.dtype == dtype
    assert torch.isfinite(tensor).all()
    assert tensor.count_nonzero() >= 0.99 * tensor.numel() - 1
    assert tensor.abs().max() < 1


@pytest.mark.parametrize("count", [0, 1, (1 << 20) - 1, (1 << 20) + 7, (5 << 20) + 3])
def test_every_value_is_filled_whatever_the_length(count):
    tensor = torch.full((count,), float("nan"))
    fill_random(tensor)
    assert not tensor.isnan().any()
    if count > 1000:
        assert tensor.std() == pytest.approx(0.02, rel=0.1)
        assert tensor[-1000:].std() == pytest.approx(0.02, rel=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_a_cache_memory_and_random_data():
    gpu = open_device("cuda:0")
    assert gpu.is_cuda
    assert gpu.cache_bytes > 1 << 20
    assert gpu.free_bytes() > 0
    tensor = gpu.random(100, 100, dtype=torch.bfloat16)
    assert tensor.device.type == "cuda"
    gpu.synchronize()
    assert tensor.float().std().item() == pytest.approx(0.02, rel=0.1)
