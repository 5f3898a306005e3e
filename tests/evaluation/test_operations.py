"""Tables of operations on a device whose law is known, and on a slice of a published table."""

import math
from dataclasses import replace

import pytest

from evaluation import draws, extrapolation, operations
from evaluation.devices import _quantile
from evaluation.devices import scored as scored_device
from evaluation.extrapolation import longer, more_ranks
from evaluation.inputs import Inputs
from evaluation.operations import Case
from evaluation.peers import forest, roofline
from model.analytical import AnalyticalCostModel
from model.hardware import data_sheet
from model.measurement import Distribution
from model.operations import OperationKind
from model.precision import Precision
from model.rows import Row, usable_rows

CASE = Case("linear", "h100-sxm", "linear", "bf16", 3.5, 5.0)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """A tenth of the trees err as those of a whole forest, sooner."""
    monkeypatch.setattr(forest, "_TREES", 10)


@pytest.fixture
def device(synthetic_device):
    return synthetic_device(precision=Precision.BF16)


@pytest.fixture
def linears(device):
    sizes = [64 * int(v) for v in device.rng.integers(2, 48, size=32)]
    return usable_rows(
        device.linear(m, n, k)
        for n, k in zip(sizes[::2], sizes[1::2], strict=True)
        for m in (1, 8, 64, 512, 2048)
    )


def test_physics_beats_a_forest_on_weight_shapes_left_out(linears):
    found = operations.scored(CASE, linears)
    assert (found.points, found.groups) == (80, len({r.measurement.group for r in linears}))
    assert found.ours[0] < 10 < found.forest[0]
    assert 0.8 < found.covered <= 1.0


def timed(device, sizes, times):
    rows = [device.linear(*each) for each in sizes]
    return usable_rows(
        replace(row, latency_ms=Distribution(median=ms, p10=ms, p90=ms, samples=1))
        for row, ms in zip(rows, times, strict=True)
    )


def test_noise_is_how_far_equal_work_lies_apart(device):
    def linears(times, m=8):
        return timed(device, [(m + i, 512, 512) for i in range(len(times))], times)

    assert operations.noise(linears([1.0, 1.0, 1.25])) == pytest.approx(20 / 3)
    assert operations.noise(linears([1.0])) is None
    assert operations.noise(linears([1.0, 1.25], m=512)) is None


def test_noise_of_launches_is_how_far_as_many_rows_lie_apart(device):
    sizes = [(64, 512, 512), (64, 512, 1024), (96, 512, 512)]
    rows = timed(device, sizes, [1.0, 3.0, 5.0])
    # Their median, 2, is twice the one and two thirds of the other.
    assert operations.launch_noise(rows) == pytest.approx(100 * (1 + 1 / 3) / 2)
    assert operations.launch_noise(rows[1:]) is None


def test_fit_times_tell_how_many_rows_were_fitted_on(linears, monkeypatch):
    monkeypatch.setattr(operations, "_SPEEDS", ((50, 60.0), (1_000, 5.0)))
    some, every = operations.fit_times([row.measurement for row in linears])
    assert (some[0], every[0]) == ("50 rows", "80 rows")
    assert 0 < float(some[1].split()[0]) < 60


def test_few_rows_are_the_same_for_all_that_are_fitted_on_them(linears):
    for draw in (draws.at_random(40), draws.chosen(OperationKind.LINEAR, 70, 132)):
        first, again = draw(linears), draw(list(linears))
        assert [id(row) for row in first] == [id(row) for row in again]
        assert len({id(row) for row in first}) == len(first) < len(linears)
    assert draws.every(linears) is linears
    assert draws.at_random(len(linears))(linears) is linears


def test_no_latency_of_a_row_is_looked_at_before_it_is_taken(linears):
    draw = draws.chosen(OperationKind.LINEAR, 70, 132)
    taken = {id(row) for row in draw(linears)}
    other = [row if id(row) in taken else _slower(row) for row in linears]
    again = draws.chosen(OperationKind.LINEAR, 70, 132)(other)
    assert {id(row) for row in again} == taken


def _slower(row):
    one = row.measurement
    ms = 100 * one.latency_ms.median
    spread = Distribution(median=ms, p10=ms, p90=ms, samples=1)
    return Row(replace(one, latency_ms=spread), row.operations)


def test_a_roofline_is_the_larger_of_two_quotients_of_the_data_sheet(linears):
    sheet = data_sheet("h100-sxm")
    found = roofline.operations_ms(linears, "h100-sxm")
    for row, milliseconds in zip(linears, found, strict=True):
        m, n, k = (row.measurement.shape[name] for name in "mnk")
        compute = 2 * m * n * k / sheet.peaks[Precision.BF16]
        traffic = 2 * (m * k + k * n + m * n) / sheet.bandwidth_bytes_per_second
        assert milliseconds == pytest.approx(1e3 * max(compute, traffic))


@pytest.mark.parametrize("make", [longer, more_ranks])
def test_a_split_keeps_every_row_once_and_asks_for_what_lies_beyond(make, linears, device):
    attention = usable_rows(
        device.attention(2, 1, kv, heads, heads, 64)
        for kv in (128, 1024, 1025, 4096)
        for heads in (4, 8, 16, 32)
    )
    for rows in (linears, attention):
        known, asked = make(rows)
        assert len(known) + len(asked) == len(rows)
        assert not {id(row) for row in known} & {id(row) for row in asked}
        name = ("m" if rows is linears else "kv_tokens") if make is longer else None
        name = name or ("n" if rows is linears else "query_heads")
        beyond = [row.measurement.shape[name] for row in asked]
        within = [row.measurement.shape[name] for row in known]
        if make is longer:
            assert max(within) <= 1024 < min(beyond)
        else:
            assert max(beyond) < min(within)


def test_experts_of_tensor_parallel_size_eight_are_asked_for(device):
    rows = usable_rows(
        replace(
            device.linear(1, 64, 64),
            kind="experts",
            shape={
                "tokens": 8.0,
                "hidden_size": 512.0,
                "intermediate_size": 1024.0 / tensor,
                "local_experts": 8.0,
                "experts": 8.0,
                "top_k": 2.0,
                "balanced": 1.0,
            },
        )
        for tensor in (1, 2, 4, 8)
    )
    known, asked = more_ranks(rows)
    assert len(known) == 3
    assert [row.measurement.shape["intermediate_size"] for row in asked] == [128.0]


def as_physics_says(rows, device, slowness=1.0):
    """The rows as our analytical model times them on a device."""
    physics = AnalyticalCostModel(data_sheet(device), "vllm")

    def timed(row):
        ms = 1e3 * slowness * physics.seconds(row.operations[0])
        return replace(
            row.measurement, latency_ms=Distribution(median=ms, p10=ms, p90=ms, samples=1)
        )

    return usable_rows(timed(row) for row in rows)


def test_a_device_that_obeys_its_data_sheet_needs_no_wider_interval(linears):
    known, asked = (as_physics_says(linears, name) for name in ("a100-sxm", "h100-sxm"))
    found = scored_device("linear bf16", "a100-sxm", "h100-sxm", known, asked)
    assert found.transferred[0] < 3
    assert found.covered == 1.0
    assert 0.3 < found.added < 0.45  # of a distance of a little more than 1
    assert found.needed < 0.05


def test_a_device_twice_as_slow_as_its_data_sheet_says_needs_as_much(linears):
    known = as_physics_says(linears, "a100-sxm")
    asked = as_physics_says(linears, "h100-sxm", slowness=2.0)
    found = scored_device("linear bf16", "a100-sxm", "h100-sxm", known, asked)
    assert found.covered < 0.1
    assert found.needed == pytest.approx(math.log(2), abs=0.1)


def test_each_kind_counts_alike_however_many_its_rows():
    assert _quantile([[0.0] * 1000, [1.0] * 10]) == 1.0
    assert _quantile([[0.0] * 1000, [1.0] * 10, *([[0.0] * 5] * 20)]) == 0.0


@pytest.mark.usefixtures("package")
def test_a_slice_of_a_published_table_makes_its_section(tmp_path, monkeypatch):
    case = next(c for c in operations.CASES if (c.device, c.engine) == ("a100-sxm", "vllm"))
    monkeypatch.setattr(operations, "CASES", [case])
    monkeypatch.setattr(extrapolation, "CASES", [case])
    said = []
    inputs = Inputs(out=tmp_path, say=said.append, limit=150)
    text = operations.section(inputs).text + extrapolation.section(inputs).text
    assert text.count("| linear bf16 | a100-sxm | vllm |") == 1
    assert text.count("| linear bf16, vllm | a100-sxm |") == 2
    assert "### up to 1,024 tokens -> longer" in text
    assert "### tp 1, 2, 4 -> 8" in text
    assert {path.name for path in tmp_path.iterdir()} == {"operations.png", "extrapolation.png"}
    assert said.count("read operations of vllm on a100-sxm") == 1
