"""Overheads are sums of terms, each with the size that it multiplies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architecture import Layer, Norm
from model.blocks import Attention, FeedForward
from model.execution import layer_overhead
from model.operations import Operation, OperationKind, embedding, linear
from model.overheads import TERMS, Overheads, columns
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
    terms = Overheads({"layer_ms": 1.0, "kernel_ms": 0.1, "layer_element_ms": 0.01})
    assert terms.latency_ms(LAYER) == pytest.approx(1.0 + 0.1 * kernels + 0.01 * elements)


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
    terms = dict(zip(names, values, strict=False))
    scaled = Overheads({name: unit * value for name, value in terms.items()})
    operation = ALL[kind]
    assert scaled.latency_ms(operation) == pytest.approx(
        unit * Overheads(terms).latency_ms(operation)
    )
