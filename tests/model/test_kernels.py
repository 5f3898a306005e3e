"""A kernel is its regime's law times a learned residual, and knows where it was measured."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor

from model.blobs import pack, unpack
from model.blocks import (
    Attention,
    Experts,
    FeedForward,
    Indexer,
    LatentAttention,
    LinearAttention,
)
from model.features import USUAL_PROCESSORS, features
from model.kernels import Kernel
from model.laws import REGIMES, Law, sizes_of
from model.operations import (
    LINEARS,
    OperationKind,
    attention,
    batched_linear,
    convolution,
    experts,
    indexer,
    linear,
    linear_attention,
    mla,
    sparse_mla,
    top_k,
)
from model.precision import Precision
from model.regimes import RegimeLaws
from model.residual import Residual
from model.trees import trees_of

LAWS = {
    kind: RegimeLaws(tuple(Law(0.01 * (i + 1), 1e-9, 1e-8, 1e-7, 3.0) for i in range(count)))
    for kind, count in REGIMES.items()
}


INDEXER = Indexer(heads=4, head_dim=32, top_k=16)
LATENT = LatentAttention(
    query_heads=8, kv_rank=64, query_rank=0, head_dim=32, rope_dim=16, value_dim=32
)


def operations(kind, count=60, seed=0, low=1, high=2000):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        a, b, c = (int(np.exp(rng.uniform(np.log(low), np.log(high)))) for _ in range(3))
        if kind in LINEARS:
            rows.append(linear("x", a, 64 + b, 64 + c, Precision.FP32, kind=kind))
        elif kind is OperationKind.BATCHED_LINEAR:
            rows.append(batched_linear("x", a, 64 + b, 64 + c, 8, Precision.FP32))
        elif kind is OperationKind.MLA:
            rows.append(mla(1 + a % 8, b, b + c, LATENT, Precision.FP32))
        elif kind is OperationKind.SPARSE_MLA:
            rows.append(sparse_mla(1 + a % 8, b, b + c, LATENT, 1 + c // 2, Precision.FP32))
        elif kind is OperationKind.INDEXER:
            rows.append(indexer(1 + a % 8, b, b + c, INDEXER))
        elif kind is OperationKind.TOP_K:
            rows.append(top_k(1 + a % 8, b, b + c, 1 + c // 2))
        elif kind is OperationKind.LINEAR_ATTENTION:
            recurrent = LinearAttention(
                key_heads=2, value_heads=4, key_dim=16, value_dim=16 * (1 + c % 4), conv_width=4
            )
            rows.append(linear_attention(1 + a % 8, b, recurrent, Precision.FP32))
        elif kind is OperationKind.CONVOLUTION:
            rows.append(convolution(1 + a % 8, b, 64 + c, 4, Precision.FP32))
        elif kind is OperationKind.EXPERTS:
            block = Experts(expert=FeedForward(intermediate_size=64 + b), count=16, top_k=2)
            rows.append(experts(a, 64 + c, block, Precision.FP32))
        else:
            heads = Attention(query_heads=8, kv_heads=int(rng.choice([1, 4, 8])), head_dim=64)
            rows.append(attention(1 + a % 8, b, b + c, heads, Precision.FP32))
    return rows


def kernel(kind, residual=None, seed=0):
    sizes = sizes_of(kind, operations(kind, seed=seed))
    learned = None
    if residual is not None:
        columns = features(kind, sizes, LAWS[kind](sizes), USUAL_PROCESSORS)
        target = residual(sizes)
        regressor = ExtraTreesRegressor(n_estimators=30, random_state=0).fit(columns, target)
        learned = Residual(trees_of(regressor))
    spread = sizes.extent
    return Kernel(kind, LAWS[kind], learned, spread.min(axis=0), spread.max(axis=0)), sizes


kinds = pytest.mark.parametrize("kind", list(REGIMES))


@kinds
def test_without_a_residual_the_law_of_each_operations_regime_holds(kind):
    plain, sizes = kernel(kind)
    assert len(set(sizes.regime)) > 1
    for row, value in enumerate(plain.latency_ms(sizes)):
        alone = sizes.take(np.arange(len(sizes.flops)) == row)
        assert value == LAWS[kind].laws[sizes.regime[row]](alone)[0]


@kinds
def test_the_residual_is_learned_as_a_factor(kind):
    learned, sizes = kernel(kind, lambda s: np.where(s.regime == 0, np.log(2.0), np.log(0.5)))
    ratio = learned.latency_ms(sizes) / LAWS[kind](sizes)
    assert ratio == pytest.approx(np.where(sizes.regime == 0, 2.0, 0.5), rel=0.01)


@kinds
def test_an_operations_latency_does_not_depend_on_its_company(kind):
    learned, sizes = kernel(kind, lambda s: np.log(s.flops) / 50)
    together = learned.latency_ms(sizes)
    alone = [
        learned.latency_ms(sizes.take(np.arange(len(together)) == row))[0]
        for row in range(len(together))
    ]
    assert together == pytest.approx(alone)


@kinds
def test_what_was_measured_is_inside(kind):
    plain, sizes = kernel(kind)
    assert not plain.outside(sizes).any()


@kinds
@settings(max_examples=30)
@given(factor=st.floats(2.0, 1e4))
def test_the_distance_outside_grows_with_each_factor(kind, factor):
    plain, sizes = kernel(kind)
    beyond = moving(sizes, sizes.bytes.max() * factor)
    further = moving(sizes, sizes.bytes.max() * factor * np.e)
    assert np.all(plain.outside(beyond) > 0)
    assert plain.outside(further) - plain.outside(beyond) == pytest.approx(1.0)
    assert np.all(plain.outside(moving(sizes, sizes.bytes.min() / factor)) > 0)


def moving(sizes, moved):
    """Returns operations that all move so many bytes."""
    extent = sizes.extent.copy()
    extent[:, -1] = moved
    return replace(sizes, extent=extent)


def test_without_a_residual_nothing_is_known_of_the_doubt():
    plain, sizes = kernel(OperationKind.LINEAR)
    assert np.all(plain.spread(sizes) == 1.0)
    assert plain.most_telling(sizes, np.arange(len(sizes.flops)), 1) is None


@kinds
def test_trees_that_agree_leave_no_doubt_and_noise_leaves_some(kind):
    sure, _ = kernel(kind, lambda s: np.full(len(s.flops), 0.3))
    rng = np.random.default_rng(1)
    unsure, _ = kernel(kind, lambda s: rng.normal(size=len(s.flops)))
    unseen = sizes_of(kind, operations(kind, seed=9))
    assert sure.spread(unseen) == pytest.approx(np.zeros(len(unseen.flops)), abs=1e-6)
    # Where many sizes coincide all trees may end in one leaf.
    assert np.mean(unsure.spread(unseen) > 0) > 0.9


@kinds
@pytest.mark.parametrize("residual", [None, lambda s: np.log(s.flops) / 50])
def test_a_kernel_written_as_json_prices_the_same(kind, residual):
    written, sizes = kernel(kind, residual)
    read = Kernel.from_json(unpack(pack(written.to_json())))
    assert read.kind is kind
    assert np.array_equal(read.latency_ms(sizes), written.latency_ms(sizes))
    assert np.array_equal(read.spread(sizes), written.spread(sizes))
    unseen = sizes_of(kind, operations(kind, seed=5, high=20_000))
    assert np.array_equal(read.outside(unseen), written.outside(unseen))


@pytest.mark.parametrize(
    "damage",
    [
        {"residual": {"trees": b"no trees", "smooth": None}},
        {"residual": {}},
        {"kind": "novel"},
        {"laws": {"laws": [{}], "blocks": None}},
    ],
)
def test_damaged_json_is_refused(damage):
    written, _ = kernel(OperationKind.LINEAR, lambda s: np.log(s.flops))
    with pytest.raises((KeyError, TypeError, ValueError)):
        Kernel.from_json(written.to_json() | damage)


@kinds
def test_features_are_finite_at_the_smallest_sizes(kind):
    one = Precision.FP32
    heads = Attention(query_heads=1, kv_heads=1, head_dim=1)
    latent = LatentAttention(
        query_heads=1, kv_rank=1, query_rank=0, head_dim=1, rope_dim=1, value_dim=1
    )
    block = Experts(expert=FeedForward(intermediate_size=1), count=1, top_k=1)
    recurrent = LinearAttention(key_heads=1, value_heads=1, key_dim=1, value_dim=1, conv_width=1)
    smallest = {
        OperationKind.LINEAR: linear("x", 1, 1, 1, one),
        OperationKind.LINEAR_TRANSPOSED: linear(
            "x", 1, 1, 1, one, kind=OperationKind.LINEAR_TRANSPOSED
        ),
        OperationKind.LINEAR_PER_TENSOR: linear(
            "x", 1, 1, 1, one, kind=OperationKind.LINEAR_PER_TENSOR
        ),
        OperationKind.BATCHED_LINEAR: batched_linear("x", 1, 1, 1, 1, one),
        OperationKind.ATTENTION: attention(1, 1, 1, heads, one),
        OperationKind.STATIC_ATTENTION: attention(
            1, 1, 1, heads, one, kind=OperationKind.STATIC_ATTENTION
        ),
        OperationKind.PAGED_ATTENTION: attention(
            1, 1, 1, heads, one, kind=OperationKind.PAGED_ATTENTION
        ),
        OperationKind.MLA: mla(1, 1, 1, latent, one),
        OperationKind.SPARSE_MLA: sparse_mla(1, 1, 1, latent, 1, one),
        OperationKind.INDEXER: indexer(1, 1, 1, Indexer(heads=1, head_dim=1, top_k=1)),
        OperationKind.TOP_K: top_k(1, 1, 1, 1),
        OperationKind.LINEAR_ATTENTION: linear_attention(1, 1, recurrent, one),
        OperationKind.CONVOLUTION: convolution(1, 1, 1, 1, one),
        OperationKind.EXPERTS: experts(1, 1, block, one),
    }[kind]
    sizes = sizes_of(kind, [smallest])
    columns = features(kind, sizes, LAWS[kind](sizes), USUAL_PROCESSORS)
    assert columns.shape[0] == 1
    assert np.all(np.isfinite(columns))


def test_blocks_run_in_waves_of_the_devices_own_processors():
    # 108 tiles of 128 by 128: one whole wave on an A100, most of one on an H100.
    sizes = sizes_of(OperationKind.LINEAR, [linear("x", 128, 108 * 128, 4096, Precision.BF16)])
    law_ms = LAWS[OperationKind.LINEAR](sizes)
    whole, part = (features(OperationKind.LINEAR, sizes, law_ms, count) for count in (108, 132))
    changed = part[0] - whole[0]
    assert pytest.approx(np.log(132 / 108)) in changed[changed > 0].tolist()
