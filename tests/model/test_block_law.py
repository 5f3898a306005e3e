"""Matrix products that run in whole waves of whole blocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.block_law import BlockLaw, amounts, block_law_ms
from model.kernel_fitting import fit_kernel
from model.law_fitting import _block_constants, _block_slope, fit_block_law
from model.laws import sizes_of
from model.operations import OperationKind, linear
from model.precision import Precision
from model.regime_fitting import fit_laws, misfit
from model.regimes import RegimeLaws
from model.rows import usable_rows

PROCESSORS = 100
LAW = BlockLaw(PROCESSORS, 1e-9, 2e-8, 1e-3, 1e-9, 1e-9, 20.0, 3e-3, 1e-12, 5e-10, 4.0)


def sizes(*shapes):
    rows = [linear("x", *shape, Precision.BF16) for shape in shapes]
    return sizes_of(OperationKind.LINEAR, rows)


def drawn(count, seed=0, rows=(16, 8192)):
    rng = np.random.default_rng(seed)
    low, high = np.log((rows[0], 512, 512)), np.log((rows[1], 16384, 16384))
    return [tuple(int(v) for v in np.exp(rng.uniform(low, high))) for _ in range(count)]


def test_a_product_whose_blocks_begin_another_wave_takes_another_wave():
    sharp = LAW._replace(edge_step_ms=1e-12, byte_ms=1e-15, part_ms=1.0, sharpness=200.0)
    # 100 blocks of 256 by 128, and one column of blocks more.
    one, two = sharp(sizes((256, 100 * 128, 65536), (256, 101 * 128, 65536)))
    assert two > 1.1 * one
    nearly = sharp(sizes((256, 99 * 128, 65536)))
    assert nearly == pytest.approx(one, rel=0.05)


def test_few_blocks_are_cut_into_parts():
    # One block of 64 by 64: 8 processors take an eighth of the inner dimension each.
    (short,) = LAW._replace(byte_ms=1e-15, part_ms=1e-12)(sizes((64, 64, 65536)))
    (whole,) = LAW._replace(byte_ms=1e-15, part_ms=1.0)(sizes((64, 64, 65536)))
    assert short < whole / 3


@given(*[st.integers(1, 20_000)] * 3, st.sampled_from([0, 1, 2]), st.integers(1, 4_096))
def test_a_larger_product_never_takes_less_time(m, n, k, grown, more):
    larger = [m, n, k]
    larger[grown] += more
    less_ms, more_ms = LAW(sizes((m, n, k), larger))
    assert more_ms >= less_ms * (1 - 1e-12)


@given(*[st.integers(1, 20_000)] * 3, st.floats(0.1, 10.0))
def test_a_slower_clock_scales_the_law(m, n, k, factor):
    processors, *constants = LAW
    *times, corner = constants
    slower = [*(factor * ms for ms in times), corner]
    slower[5] = LAW.sharpness
    found = BlockLaw(processors, *slower)(sizes((m, n, k)))
    assert found == pytest.approx(factor * LAW(sizes((m, n, k))))


def test_the_slope_is_that_of_small_steps():
    some = sizes(*drawn(40))
    counted = amounts(some, PROCESSORS)
    theta = np.log([*LAW[1:-1], LAW.corner - 1])

    def log_ms(at):
        return np.log(block_law_ms(some, counted, *_block_constants(at)))

    steps = 1e-6 * np.eye(len(theta))
    by_steps = [(log_ms(theta + step) - log_ms(theta - step)) / 2e-6 for step in steps]
    assert _block_slope(some, counted, theta) == pytest.approx(np.column_stack(by_steps), abs=1e-6)


def test_the_fit_finds_the_law_that_made_the_latencies():
    known, others = sizes(*drawn(300)), sizes(*drawn(100, seed=1))
    found = fit_block_law(known, LAW(known), PROCESSORS)
    assert misfit(LAW(others), found(others)) < 0.02


def test_it_is_taken_for_many_rows_where_it_explains_them_better():
    shapes = drawn(300) + drawn(20, seed=1, rows=(4, 15))
    known = sizes(*shapes)
    laws = fit_laws(OperationKind.LINEAR, known, LAW(known), PROCESSORS)
    assert laws.blocks is not None
    many = known.regime == len(laws.laws) - 1
    assert laws(known)[many] == pytest.approx(laws.blocks(known.take(many)))
    assert laws(known)[~many] == pytest.approx(replace(laws, blocks=None)(known)[~many])
    # What has no processors that blocks run on, and what goes by FLOPs and bytes.
    assert fit_laws(OperationKind.LINEAR, known, LAW(known)).blocks is None
    smooth = replace(laws, blocks=None)(known)
    assert fit_laws(OperationKind.LINEAR, known, smooth, PROCESSORS).blocks is None


def test_laws_written_as_json_price_the_same():
    some = sizes(*drawn(40))
    laws = replace(fit_laws(OperationKind.LINEAR, some, LAW(some)), blocks=LAW)
    read = RegimeLaws.from_json(laws.to_json())
    assert read == laws
    assert np.array_equal(read(some), laws(some))


def test_a_kernel_of_a_device_with_processors_goes_by_blocks(synthetic_device):
    device = synthetic_device(precision=Precision.BF16, noise=0.0)
    shapes = drawn(200)
    timed = dict(zip(shapes, LAW(sizes(*shapes)).tolist(), strict=True))
    rows = []
    for shape in shapes:
        row = device.linear(*shape)
        rows.append(replace(row, latency_ms=replace(row.latency_ms, median=timed[shape])))
    usable = usable_rows(rows)
    plain = fit_kernel(OperationKind.LINEAR, usable)
    waves = fit_kernel(OperationKind.LINEAR, usable, PROCESSORS)
    asked = sizes(*drawn(200, seed=2))
    assert misfit(LAW(asked), waves.latency_ms(asked)) < 0.5 * misfit(
        LAW(asked), plain.latency_ms(asked)
    )
