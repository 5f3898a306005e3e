"""Sharding and parameter counts of the plain dataclasses."""

import pytest

from model.architecture import Architecture, Layer, LayerGroup, Norm
from model.blocks import Activation, Attention, FeedForward
from model.errors import InvalidFieldError


def attention(query_heads: int = 32, kv_heads: int = 8) -> Attention:
    return Attention(query_heads=query_heads, kv_heads=kv_heads, head_dim=128)


@pytest.mark.parametrize(
    ("tensor", "query_heads", "kv_heads"), [(1, 32, 8), (4, 8, 2), (8, 4, 1), (16, 2, 1)]
)
def test_heads_are_divided_and_too_few_kv_heads_are_replicated(tensor, query_heads, kv_heads):
    rank = attention().shard(tensor)
    assert (rank.query_heads, rank.kv_heads) == (query_heads, kv_heads)


@pytest.mark.parametrize(("heads", "tensor"), [((32, 8), 3), ((30, 10), 6), ((12, 4), 8)])
def test_a_degree_that_does_not_fit_the_heads_names_tensor(heads, tensor):
    with pytest.raises(InvalidFieldError) as caught:
        attention(*heads).shard(tensor)
    assert caught.value.field == "tensor"


def test_the_fullest_rank_takes_the_odd_columns():
    assert FeedForward(intermediate_size=10).shard(4).intermediate_size == 3


def test_every_weight_and_bias_of_a_layer_is_counted():
    layer = Layer(
        attention=Attention(
            query_heads=4, kv_heads=2, head_dim=3, qkv_bias=True, output_bias=True, qk_norm=True
        ),
        feed_forward=FeedForward(
            intermediate_size=7, gated=False, activation=Activation.GELU, bias=True
        ),
        norm=Norm.LAYER,
        norms=2,
    )
    attention_weights = 5 * 12 + 5 * 6 + 5 * 6 + 12 * 5
    attention_biases = 12 + 6 + 6 + 5
    feed_forward = 5 * 7 + 7 + 7 * 5 + 5
    assert layer.parameter_count(5) == (
        attention_weights + attention_biases + 2 * 3 + feed_forward + 2 * 2 * 5
    )


def test_tied_embeddings_are_counted_once_and_positions_and_head_bias_too():
    layer = Layer(attention=attention(2, 2), feed_forward=FeedForward(intermediate_size=8))

    def count(*, tied: bool, positions: int = 0, head_bias: bool = False) -> int:
        return Architecture(
            name="",
            model_type="llama",
            hidden_size=4,
            layers=(LayerGroup(layer=layer, count=3),),
            vocab_size=100,
            tied_embeddings=tied,
            learned_positions=positions,
            head_bias=head_bias,
        ).parameter_count()

    assert count(tied=False) - count(tied=True) == 400
    assert count(tied=True, positions=10) - count(tied=True) == 40
    assert count(tied=True, head_bias=True) - count(tied=True) == 100
