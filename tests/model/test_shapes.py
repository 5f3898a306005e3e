"""A measurement's sizes lead back to what was run, or say what is wrong with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architecture import Norm
from model.blocks import Activation
from model.dimensions import architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from model.execution import step_operations
from model.measurement import Distribution, Measurement
from model.operations import SHAPE_FIELDS, OperationKind
from model.precision import Precision
from model.presets import preset, preset_names
from model.shapes import (
    SIZES,
    architecture_of_shape,
    architecture_shape,
    operations_of,
    step_of_shape,
)
from model.workload import Parallelism, Sequences

ONE = Distribution(median=1.0, p10=1.0, p90=1.0, samples=3)
STEP = Sequences(count=2, query_tokens=5, kv_tokens=9)
TINY = architecture_of_dimensions(
    hidden_size=32, layer_count=2, query_heads=4, kv_heads=2, intermediate_size=64, vocab_size=128
)
LINEAR = {"m": 3.0, "n": 64.0, "k": 32.0}
ATTENTION = {
    "sequences": 2.0,
    "query_tokens": 5.0,
    "kv_tokens": 9.0,
    "query_heads": 4.0,
    "kv_heads": 2.0,
    "head_dim": 8.0,
}

_TOKENS = {"sequences": 2.0, "query_tokens": 5.0}
LINEAR_ATTENTION = _TOKENS | {
    "key_heads": 2.0,
    "value_heads": 4.0,
    "key_dim": 8.0,
    "value_dim": 16.0,
}
CONVOLUTION = _TOKENS | {"channels": 96.0, "width": 4.0}
_OVER = _TOKENS | {"kv_tokens": 9.0}
SPARSE_MLA = _OVER | {"query_heads": 4.0, "kv_rank": 32.0, "rope_dim": 8.0, "top_k": 3.0}
INDEXER = _OVER | {"heads": 4.0, "head_dim": 16.0}
TOP_K = _OVER | {"top_k": 3.0}


def measured(kind, shape):
    return Measurement(
        kind=kind,
        precision=Precision.FP32,
        engine="transformers",
        shape=shape,
        latency_ms=ONE,
        group="g",
    )


def without_name(architecture):
    return dict(dimensions_of(architecture)) | {"name": ""}


@pytest.mark.parametrize("name", preset_names())
def test_a_pass_has_no_other_sizes_than_its_kind_may_have(name):
    step = (STEP, Sequences(count=3, query_tokens=1, kv_tokens=9))
    assert architecture_shape(preset(name), step).keys() <= set(SIZES["layer"])


@pytest.mark.parametrize("kind", SIZES)
def test_every_kind_that_has_sizes_is_known(kind):
    with pytest.raises(KeyError) as caught:
        operations_of(measured(kind, {}))
    assert caught.value.args[0] in SIZES[kind]


@st.composite
def architectures(draw):
    heads = draw(st.integers(1, 16))
    return architecture_of_dimensions(
        hidden_size=draw(st.integers(1, 4096)),
        layer_count=draw(st.integers(1, 64)),
        query_heads=heads,
        kv_heads=draw(st.sampled_from([d for d in range(1, heads + 1) if heads % d == 0])),
        head_dim=draw(st.integers(1, 256)),
        intermediate_size=draw(st.integers(1, 8192)),
        vocab_size=draw(st.integers(1, 200_000)),
        plain_mlp=draw(st.booleans()),
        activation=draw(st.sampled_from(Activation)),
        tied_embeddings=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        sliding_window=draw(st.integers(0, 4096)),
        norm=draw(st.sampled_from(Norm)),
        norms_per_layer=draw(st.sampled_from([1, 2, 4])),
        head_bias=draw(st.booleans()),
    )


@given(architectures(), st.integers(1, 64), st.integers(1, 4096), st.integers(0, 4096))
def test_an_architecture_and_its_step_survive_the_way_into_sizes_and_back(
    architecture, count, query, past
):
    step = Sequences(count=count, query_tokens=query, kv_tokens=query + past)
    shape = architecture_shape(architecture, (step,))
    assert all(isinstance(size, float) for size in shape.values())
    assert without_name(architecture_of_shape(shape)) == without_name(architecture)
    assert step_of_shape(shape) == (step,)


def test_sequences_that_decode_beside_a_chunk_survive_the_way_too():
    step = (STEP, Sequences(count=3, query_tokens=1, kv_tokens=7))
    shape = architecture_shape(TINY, step)
    assert step_of_shape(shape) == step
    rows = {row.name: row for row in operations_of(measured("layer", shape))}
    assert rows["q_proj"].shape[0] == 2 * 5 + 3
    with pytest.raises(KeyError, match="decode_kv_tokens"):
        step_of_shape({name: size for name, size in shape.items() if name != "decode_kv_tokens"})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_costs_the_same_after_the_way_back(name):
    architecture = preset(name)
    back = architecture_of_shape(architecture_shape(architecture, (STEP,)))
    assert back.parameter_count() == architecture.parameter_count()
    costs = [
        [(o.flops, o.bytes, o.count) for o in step_operations(a, (STEP,), *_PLAIN)]
        for a in (architecture, back)
    ]
    assert costs[0] == costs[1]


_PLAIN = (Parallelism(), Precision.BF16, Precision.BF16, "transformers")


def test_a_linear_point_is_one_linear():
    (row,) = operations_of(measured("linear", LINEAR))
    assert (row.kind, row.shape, row.count) == (OperationKind.LINEAR, (3, 64, 32), 1)


@pytest.mark.parametrize(
    "kind", [OperationKind.LINEAR_TRANSPOSED, OperationKind.LINEAR_PER_TENSOR], ids=str
)
def test_linears_stored_or_scaled_otherwise_are_kinds_of_their_own(kind):
    (row,) = operations_of(measured(kind, LINEAR))
    assert (row.kind, row.shape, row.count) == (kind, (3, 64, 32), 1)


def test_an_attention_point_is_one_attention_over_its_context():
    (row,) = operations_of(measured("attention", ATTENTION))
    assert (row.kind, row.shape) == (OperationKind.ATTENTION, (2, 5, 9, 4, 2, 8))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear_attention", LINEAR_ATTENTION),
        ("convolution", CONVOLUTION),
        ("sparse_mla", SPARSE_MLA),
        ("indexer", INDEXER),
        ("top_k", TOP_K),
    ],
)
def test_a_point_of_a_later_kind_is_one_operation(kind, shape):
    (row,) = operations_of(measured(kind, shape))
    assert (row.kind, row.count) == (kind, 1)
    assert dict(zip(SHAPE_FIELDS[row.kind], row.shape, strict=True)) == shape


def test_a_layer_point_is_one_layer_whatever_the_depth():
    rows = operations_of(measured("layer", architecture_shape(TINY, (STEP,))))
    assert {row.count for row in rows} == {1}
    assert [row.name for row in rows] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "attention",
        "layer_overhead",
    ]


def test_a_prefill_carries_the_request_and_a_decode_does_not():
    kinds = {
        kind: {row.kind for row in operations_of(measured(kind, architecture_shape(TINY, (STEP,))))}
        for kind in ("prefill", "decode")
    }
    assert kinds["prefill"] - kinds["decode"] == {OperationKind.REQUEST_OVERHEAD}
    assert kinds["decode"] >= {OperationKind.EMBEDDING, OperationKind.STEP_OVERHEAD}


def test_an_unknown_kind_is_named():
    with pytest.raises(KeyError, match="pooling"):
        operations_of(measured("pooling", architecture_shape(TINY, (STEP,))))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("linear", LINEAR),
        ("attention", ATTENTION),
        ("linear_attention", LINEAR_ATTENTION),
        ("convolution", CONVOLUTION),
        ("sparse_mla", SPARSE_MLA),
        ("indexer", INDEXER),
        ("top_k", TOP_K),
        ("layer", architecture_shape(TINY, (STEP,))),
        ("decode", architecture_shape(TINY, (STEP,))),
    ],
)
@given(st.data())
def test_a_missing_or_damaged_size_is_named(kind, shape, data):
    name = data.draw(st.sampled_from(sorted(shape)))
    with pytest.raises(KeyError, match=name):
        operations_of(measured(kind, {n: v for n, v in shape.items() if n != name}))
    damaged = data.draw(st.sampled_from([float("nan"), float("inf"), -1.0, 0.5, 1e300]))
    with pytest.raises(InvalidFieldError) as raised:
        operations_of(measured(kind, shape | {name: damaged}))
    assert raised.value.field == name


@pytest.mark.parametrize("name", ["activation", "norm"])
def test_an_enum_beyond_its_members_is_named(name):
    with pytest.raises(InvalidFieldError) as raised:
        architecture_of_shape(architecture_shape(TINY, (STEP,)) | {name: 99.0})
    assert raised.value.field == name


def test_more_queries_than_keys_are_refused():
    with pytest.raises(InvalidFieldError, match="10 exceeds the 9 tokens"):
        operations_of(measured("attention", ATTENTION | {"query_tokens": 10.0}))
