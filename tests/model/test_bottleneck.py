"""What holds a pass back, by its kernels' roofline."""

import pytest

from model.bottleneck import bottleneck
from model.hardware import data_sheet
from model.operations import Operation, OperationKind, linear
from model.precision import Precision

H100 = data_sheet("h100-sxm")


def product(rows, count=1):
    return linear("x", rows, 8192, 8192, Precision.BF16)._replace(count=count)


def test_few_rows_are_held_back_by_bandwidth_and_many_by_computing():
    few = bottleneck([product(1, count=3)], H100, 1.0, 0.0, 0.0)
    weights = 2 * 8192 * 8192
    assert few.bound == "bandwidth"
    assert few.bandwidth_ms == pytest.approx(3e3 * weights / 3.35e12, rel=1e-3)
    assert few.compute_ms == 0
    many = bottleneck([product(8192)], H100, 2.0, 0.0, 0.0)
    assert many.bound == "compute"
    assert many.compute_ms == pytest.approx(1e3 * 2 * 8192**3 / 989.5e12, rel=1e-3)
    assert many.share == pytest.approx(many.compute_ms / 2)


def test_what_waits_for_its_host_is_held_back_by_overhead():
    found = bottleneck([product(1)], H100, 1.0, 0.9, 0.05)
    assert (found.bound, found.overhead_ms) == ("overhead", 0.9)
    assert found.share == pytest.approx(found.bandwidth_ms)


def test_what_waits_for_other_ranks_is_held_back_by_communication():
    found = bottleneck([product(1)], H100, 1.0, 0.3, 0.6)
    assert (found.bound, found.overhead_ms, found.communication_ms) == ("communication", 0.3, 0.6)
    assert found.share == pytest.approx(found.bandwidth_ms)


def test_what_is_no_kernel_of_one_device_does_not_count():
    others = [
        Operation(kind, "x", Precision.BF16, (1e6, 8.0), 1e12, 1e12)
        for kind in (OperationKind.ALL_REDUCE, OperationKind.LAYER_OVERHEAD)
    ]
    assert bottleneck([product(1), *others], H100, 1.0, 0.1, 0.2) == bottleneck(
        [product(1)], H100, 1.0, 0.1, 0.2
    )
