"""Data sheets and the recognition of cards."""

import pytest

from model.errors import UnknownNameError
from model.hardware import data_sheet, device_names, recognise
from model.precision import Precision

MIB = 2**20
CARDS = [name for name in device_names() if name != "cpu"]

# Dense bf16 rate in TFLOPS, memory bandwidth in GB/s and memory in GB that the vendors'
# data sheets print (where one prints the rate with sparsity, half of it).
PRINTED = {
    "a100-sxm": (312, 2039, 80),
    "a100-sxm-40gb": (312, 1555, 40),
    "a100-pcie": (312, 1935, 80),
    "a100-pcie-40gb": (312, 1555, 40),
    "h100-sxm": (1979 / 2, 3350, 80),
    "h100-pcie": (1513 / 2, 2000, 80),
    "h200-sxm": (1979 / 2, 4800, 141),
    "b200-sxm": (4500 / 2, 8000, 180),
    "l40s": (733 / 2, 864, 48),
    "l4": (242 / 2, 300, 24),
    "a10g": (140 / 2, 600, 24),
}


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_figures_are_those_the_data_sheets_print(name):
    sheet = data_sheet(name)
    rate, bandwidth, memory = PRINTED[name]
    assert sheet.peaks[Precision.BF16] == pytest.approx(rate * 1e12, rel=0.02)
    assert sheet.peaks[Precision.FP16] == sheet.peaks[Precision.BF16]
    assert sheet.bandwidth_bytes_per_second == pytest.approx(bandwidth * 1e9)
    # Printed in decimal or binary gigabytes, less what ECC takes.
    assert 0.93 * memory * 1e9 < sheet.memory_bytes <= memory * 2**30
    assert sheet.sources
    assert all(source.startswith("https://") for source in sheet.sources)


# bf16 operations that a multiprocessor of each architecture does in a cycle.
PER_CYCLE = {"a100": 2048, "h100": 4096, "h200": 4096, "b200": 8192, "l4": 1024, "a10g": 512}


@pytest.mark.parametrize("name", CARDS)
def test_so_many_processors_reach_the_printed_rate_at_a_clock_that_cards_have(name):
    sheet = data_sheet(name)
    (per_cycle,) = [rate for family, rate in PER_CYCLE.items() if name.startswith(family)]
    assert 1.3e9 < sheet.peaks[Precision.BF16] / (sheet.processors * per_cycle) < 2.6e9


def test_every_device_of_the_contract_is_there():
    assert set(device_names()) == {*PRINTED, "cpu"}


@pytest.mark.parametrize("name", CARDS)
def test_rates_grow_as_formats_shrink(name):
    peaks = data_sheet(name).peaks
    assert peaks[Precision.FP32] < peaks[Precision.BF16] < peaks[Precision.INT8]
    assert peaks[Precision.INT8] == pytest.approx(2 * peaks[Precision.BF16], rel=0.02)


def test_the_cpu_is_blank():
    cpu = data_sheet("cpu")
    assert (cpu.kind, cpu.memory_bytes, dict(cpu.peaks)) == ("cpu", 0, {})
    assert cpu.effective_peak(Precision.FP32) == 0


@pytest.mark.parametrize(
    ("name", "precision", "compute"),
    [
        ("a100-sxm", Precision.FP8, Precision.BF16),
        ("a100-sxm", Precision.FP8_BLOCK, Precision.BF16),
        ("a100-sxm", Precision.INT8, Precision.INT8),
        ("h100-sxm", Precision.FP8, Precision.FP8),
        ("h100-sxm", Precision.FP8_BLOCK, Precision.FP8_BLOCK),
        ("h100-sxm", Precision.INT4, Precision.BF16),
        ("h100-sxm", Precision.INT8_WEIGHT_ONLY, Precision.BF16),
        ("h100-sxm", Precision.FP4, Precision.BF16),
        ("b200-sxm", Precision.FP4, Precision.FP4),
        ("l4", Precision.FP32, Precision.FP32),
    ],
)
def test_what_a_card_cannot_multiply_computes_in_bf16(name, precision, compute):
    sheet = data_sheet(name)
    assert sheet.compute_precision(precision) is compute
    assert sheet.effective_peak(precision) == sheet.peaks[compute]


@pytest.mark.parametrize(
    ("nvml_name", "mebibytes", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-sxm"),
        ("NVIDIA A100-SXM4-40GB", 40536, "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-pcie"),
        ("NVIDIA A100-PCIE-40GB", 40960, "a100-pcie-40gb"),
        ("A100-SXM4-40GB", 40960, "a100-sxm-40gb"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-sxm"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H200", 143771, "h200-sxm"),
        ("NVIDIA B200", 183359, "b200-sxm"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA L4", 23034, "l4"),
        ("NVIDIA A10G", 23028, "a10g"),
    ],
)
def test_cards_are_recognised(nvml_name, mebibytes, name):
    sheet = recognise(nvml_name, mebibytes * MIB)
    assert sheet is not None
    assert sheet.name == name


@pytest.mark.parametrize(
    ("nvml_name", "mebibytes"),
    [
        ("NVIDIA H200 NVL", 143771),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20096),
        ("NVIDIA H100 80GB HBM3", 40000),
        ("NVIDIA L40", 46068),
        ("NVIDIA GeForce RTX 4090", 24564),
        ("", 0),
    ],
)
def test_other_cards_are_not(nvml_name, mebibytes):
    assert recognise(nvml_name, mebibytes * MIB) is None


def test_an_unknown_device_is_answered_with_the_closest():
    with pytest.raises(UnknownNameError) as caught:
        data_sheet("h100")
    assert caught.value.kind == "device"
    assert "h100-sxm" in caught.value.message
