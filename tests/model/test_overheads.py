"""Overheads are sums of terms, each with the size that it multiplies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architecture import Layer, Norm
from model.blocks import Attention, FeedForward
from model.execution import layer_overhead
from model.operations import Operation, OperationKind, embedding, linear
from model.overheads import TERMS, Overheads, columns, exposed_share
from model.precision import Precision

GATED = Layer(
    attention=Attention(query_heads=4, kv_heads=2, head_dim=8),
    feed_forward=FeedForward(intermediate_size=64),
)
PLAIN = Layer(
    attention=Attention(query_heads=4, kv_heads=2, head_dim=8),
    feed_forward=FeedForward(intermediate_size=64, gated=False),
    norm=Norm.LAYER,
)
STEP = Operation(
    OperationKind.STEP_OVERHEAD, "step_overhead", Precision.FP32, (2, 256.0, 3), 0.0, 1024.0
)
REQUEST = Operation(
    OperationKind.REQUEST_OVERHEAD, "request_overhead", Precision.FP32, (), 0.0, 0.0
)
LAYER = layer_overhead(32, GATED, tokens=6, sequences=2, precision=Precision.FP32)
EMBEDDING = embedding(6, 32, Precision.FP32)
ALL = {o.kind: o for o in (EMBEDDING, LAYER, STEP, REQUEST)}


def test_every_kind_has_as_many_sizes_as_terms():
    assert set(ALL) == set(TERMS)
    for kind, operation in ALL.items():
        assert len(columns(operation)) == len(TERMS[kind])


def test_no_two_kinds_share_a_term():
    names = [name for terms in TERMS.values() for name in terms]
    assert len(names) == len(set(names))


def test_a_look_up_costs_by_the_values_it_moves():
    assert Overheads({"element_ms": 0.5}).latency_ms(EMBEDDING) == 0.5 * 6 * 32


def test_a_layer_costs_once_by_its_kernels_and_by_its_values():
    kernels, elements, _ = LAYER.shape
    terms = Overheads({"layer_ms": 1.0, "kernel_ms": 0.1, "layer_element_ms": 0.01, "gap_ms": 0.02})
    assert terms.latency_ms(LAYER) == pytest.approx(1.0 + 0.12 * kernels + 0.01 * elements)


def test_a_layer_norm_and_a_plain_block_launch_fewer_kernels():
    plain = layer_overhead(32, PLAIN, tokens=6, sequences=2, precision=Precision.FP32)
    terms = Overheads({"kernel_ms": 1.0})
    assert terms.latency_ms(plain) < terms.latency_ms(LAYER)


def test_a_step_costs_once_and_by_its_logits_whatever_its_depth():
    assert Overheads({"step_ms": 2.0, "logit_ms": 0.5}).latency_ms(STEP) == 2.0 + 0.5 * 256


def test_a_request_costs_once():
    assert Overheads({"request_ms": 3.0}).latency_ms(REQUEST) == 3.0


def test_a_term_that_was_not_fitted_costs_nothing():
    assert all(Overheads({}).latency_ms(operation) == 0.0 for operation in ALL.values())


def test_a_kernel_has_no_terms():
    with pytest.raises(KeyError):
        columns(linear("x", 1, 1, 1, Precision.FP32))


@given(
    st.lists(st.floats(0, 1e3), min_size=8, max_size=8), st.floats(0, 100), st.sampled_from([*ALL])
)
def test_terms_in_another_unit_scale_the_latency(values, unit, kind):
    names = [name for terms in TERMS.values() for name in terms]
    terms = dict(zip(names, values, strict=True))
    scaled = Overheads({name: unit * value for name, value in terms.items()})
    operation = ALL[kind]
    assert scaled.latency_ms(operation) == pytest.approx(
        unit * Overheads(terms).latency_ms(operation)
    )


SIZES = st.floats(1e-6, 1e6)


@given(SIZES, SIZES, st.floats(1, 64))
def test_launches_and_kernels_take_between_the_longer_and_the_sum(launches, device, power):
    share = exposed_share(launches, device, power)
    assert 0.0 <= share <= 1.0 + 1e-12
    total = device + share * launches
    assert max(launches, device) * (1 - 1e-9) <= total <= (launches + device) * (1 + 1e-9)
    assert total == pytest.approx(
        max(launches, device)
        * (1.0 + (min(launches, device) / max(launches, device)) ** power) ** (1.0 / power)
    )


@given(SIZES, SIZES, st.floats(1, 64), st.floats(1, 100))
def test_a_busier_device_hides_more_of_the_launches(launches, device, power, factor):
    before = exposed_share(launches, device, power)
    assert exposed_share(launches, factor * device, power) <= before * (1 + 1e-9)


@given(SIZES, SIZES)
def test_by_the_power_one_nothing_is_hidden(launches, device):
    assert exposed_share(launches, device, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("sizes", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_where_one_of_the_two_is_nothing_there_is_nothing_to_hide(sizes):
    assert exposed_share(*sizes, 4.0) == 1.0


def test_of_a_step_launches_alone_are_hidden_and_by_kernels_of_the_layers_alone():
    product = linear("x", 6, 32, 64, Precision.FP32)
    operations = [EMBEDDING, product._replace(count=3), LAYER._replace(count=2), STEP, REQUEST]
    terms = {"element_ms": 0.01, "layer_ms": 1.0, "kernel_ms": 0.5, "gap_ms": 0.1}
    terms |= {"step_ms": 7.0, "logit_ms": 0.1, "request_ms": 11.0}
    added, beside = Overheads(terms), Overheads(terms, power=4.0)
    alone = [5.0 if o is operations[1] else added.latency_ms(o) for o in operations]
    plain, found = (each.run_ms(operations, alone) for each in (added, beside))
    assert plain == [o.count * ms for o, ms in zip(operations, alone, strict=True)]
    kernels, _, _ = LAYER.shape
    launches, device = 2 * (1.0 + 0.5 * kernels), 15.0 + 0.01 * 6 * 32 + 2 * 0.1 * kernels
    overlapped = (launches**4 + device**4) ** 0.25
    assert sum(found) == pytest.approx(overlapped + 7.0 + 0.1 * 256 + 11.0)
    changed = [
        index for index, pair in enumerate(zip(plain, found, strict=True)) if pair[0] != pair[1]
    ]
    assert changed == [2]
