"""Shapes for a bare parameter count."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InvalidFieldError
from model.sizes import architecture_of_size
from model.workload import Parallelism

COUNTS = st.floats(6, 13).map(lambda exponent: min(max(10**exponent, 1e6), 1e13))


@given(COUNTS)
def test_the_count_is_within_three_hundredths(parameters):
    count = architecture_of_size(parameters).parameter_count()
    assert count == pytest.approx(parameters, rel=0.03)


@given(COUNTS, COUNTS)
def test_more_parameters_never_give_a_smaller_model(first, second):
    low, high = sorted((first, second))
    assert (
        architecture_of_size(low).parameter_count() <= architecture_of_size(high).parameter_count()
    )


@given(st.floats(9.01, 13).map(lambda exponent: min(10**exponent, 1e13)))
def test_eight_ranks_divide_the_heads_and_widths_are_friendly(parameters):
    architecture = architecture_of_size(parameters)
    for tensor in (1, 2, 4, 8):
        Parallelism(tensor=tensor).check(architecture)
    assert architecture.hidden_size % 512 == 0
    assert architecture.layers[0].layer.feed_forward.intermediate_size % 128 == 0


@given(COUNTS)
def test_proportions_are_those_of_trained_models(parameters):
    architecture = architecture_of_size(parameters)
    width = architecture.layers[0].layer.feed_forward.intermediate_size / architecture.hidden_size
    assert 1.5 <= width <= 5
    assert 16 <= architecture.hidden_size / architecture.layer_count <= 200


def test_seven_billion_look_like_llama():
    architecture = architecture_of_size(7e9)
    layer = architecture.layers[0].layer
    assert architecture.model_type == "llama"
    assert architecture.hidden_size == 4096
    assert 30 <= architecture.layer_count <= 34
    assert (layer.attention.query_heads, layer.attention.kv_heads) == (32, 8)
    assert layer.attention.head_dim == 128
    assert layer.feed_forward.gated
    assert layer.feed_forward.intermediate_size % 256 == 0
    assert not architecture.tied_embeddings


@pytest.mark.parametrize("parameters", [0, -7e9, 999_999, 1.1e13, math.nan, math.inf])
def test_a_count_out_of_range_is_refused(parameters):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of_size(parameters)
    assert caught.value.field == "parameter_count"
