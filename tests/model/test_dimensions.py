"""Explicit dimensions, their ranges and their way back."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model.architecture import Norm
from model.blocks import Activation
from model.dimensions import RANGES, architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from model.presets import preset, preset_names
from model.sizes import architecture_of_size

SMALL = {
    "hidden_size": 512,
    "layer_count": 12,
    "query_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 32000,
}


def rejected(**changes):
    with pytest.raises(InvalidFieldError) as caught:
        architecture_of_dimensions(**SMALL | changes)
    return caught.value


def test_zeros_take_their_meaning():
    layer = architecture_of_dimensions(**SMALL).layers[0].layer
    assert (layer.attention.kv_heads, layer.attention.head_dim) == (8, 64)
    assert layer.norms == 2
    assert layer.attention.window is None


@pytest.mark.parametrize("field", sorted(RANGES))
def test_both_ends_of_every_range_are_kept(field):
    low, high = RANGES[field]
    assert rejected(**{field: low - 1}).field == field
    assert rejected(**{field: high + 1}).field == field


@pytest.mark.parametrize("field", ["hidden_size", "layer_count", "query_heads", "vocab_size"])
def test_a_required_size_cannot_be_zero(field):
    error = rejected(**{field: 0})
    assert error.field == field
    assert "is not in 1 to" in error.message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kv_heads": 3}, "kv_heads"),
        ({"kv_heads": 16}, "kv_heads"),
        ({"hidden_size": 500}, "head_dim"),
        ({"norms_per_layer": 3}, "norms_per_layer"),
        ({"norms_per_layer": -1}, "norms_per_layer"),
        ({"full_attention_interval": 2}, "full_attention_interval"),
        ({"name": "x" * 129}, "name"),
        ({"query_heads": 65_536, "head_dim": 65_536, "layer_count": 4096}, ""),
    ],
)
def test_dimensions_that_do_not_go_together_name_the_field(changes, field):
    assert rejected(**changes).field == field


@pytest.mark.parametrize(
    ("interval", "windowed", "full"), [(0, 12, 0), (1, 0, 12), (2, 6, 6), (6, 10, 2), (13, 12, 0)]
)
def test_every_nth_layer_attends_to_everything(interval, windowed, full):
    groups = architecture_of_dimensions(
        **SMALL, sliding_window=128, full_attention_interval=interval
    ).layers
    counts = {group.layer.attention.window: group.count for group in groups}
    assert counts == {k: v for k, v in ((128, windowed), (None, full)) if v}


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "llama"),
        ({"qkv_bias": True, "attention_output_bias": True}, "llama"),
        ({"qkv_bias": True}, "qwen2"),
        ({"qk_norm": True}, "qwen3"),
        ({"norms_per_layer": 4}, "gemma2"),
        ({"norms_per_layer": 4, "qk_norm": True}, "gemma3_text"),
        ({"norms_per_layer": 1, "plain_mlp": True, "norm": Norm.LAYER}, "phi"),
        ({"learned_positions": 1024, "plain_mlp": True, "norm": Norm.LAYER}, "gpt2"),
        ({"plain_mlp": True, "norm": Norm.LAYER}, "starcoder2"),
        ({"attention_output_gate": True, "qk_norm": True}, "qwen3_5_text"),
    ],
)
def test_explicit_dimensions_find_the_closest_family(changes, family):
    assert architecture_of_dimensions(**SMALL | changes).model_type == family


def rebuilt(architecture):
    return architecture_of_dimensions(
        **dimensions_of(architecture),
        model_type=architecture.model_type,
        stored_precision=architecture.stored_precision,
        stored_experts=architecture.stored_experts,
        source=architecture.source,
    )


@pytest.mark.parametrize("name", preset_names())
def test_presets_survive_the_way_there_and_back(name):
    assert rebuilt(preset(name)) == preset(name)


def test_bare_sizes_survive_the_way_there_and_back():
    assert rebuilt(architecture_of_size(7e9)) == architecture_of_size(7e9)


@given(
    layer_count=st.integers(1, 200),
    heads=st.sampled_from([(8, 8), (8, 1), (12, 4)]),
    flags=st.fixed_dictionaries(
        {
            flag: st.booleans()
            for flag in (
                "plain_mlp",
                "tied_embeddings",
                "qkv_bias",
                "attention_output_bias",
                "mlp_bias",
                "qk_norm",
                "head_bias",
            )
        }
    ),
    norm=st.sampled_from(Norm),
    activation=st.sampled_from(Activation),
    norms_per_layer=st.sampled_from([1, 2, 4]),
    window=st.integers(0, 5000),
    interval=st.integers(0, 12),
    positions=st.integers(0, 100),
)
def test_any_dimensions_survive_the_way_there_and_back(
    *, layer_count, heads, flags, norm, activation, norms_per_layer, window, interval, positions
):
    assume(window or not interval)
    architecture = architecture_of_dimensions(
        hidden_size=96,
        layer_count=layer_count,
        query_heads=heads[0],
        kv_heads=heads[1],
        head_dim=16,
        intermediate_size=256,
        vocab_size=1000,
        norm=norm,
        activation=activation,
        norms_per_layer=norms_per_layer,
        sliding_window=window,
        full_attention_interval=interval,
        learned_positions=positions,
        **flags,
    )
    assert rebuilt(architecture) == architecture
