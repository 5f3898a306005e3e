"""Bytes on the fullest device, against figures computed by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.memory import (
    MemoryFootprint,
    activations_bytes,
    kv_cache_bytes_per_sequence,
    weights_bytes,
)
from model.precision import Precision
from model.presets import preset
from model.workload import Parallelism

ONE = Parallelism()
LLAMA = preset("llama-3.1-8b")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt2", "gemma-3-4b", "phi-2", "qwen2.5-0.5b"])
def test_one_device_holds_every_parameter_once(name):
    architecture = preset(name)
    assert weights_bytes(architecture, ONE, Precision.BF16) == 2 * architecture.parameter_count()
    assert weights_bytes(architecture, ONE, Precision.FP32) == 4 * architecture.parameter_count()


def test_packed_weights_leave_embedding_and_head_in_bf16():
    ends = 2 * 128256 * 4096
    norms = (32 * 2 + 1) * 4096
    matrices = LLAMA.parameter_count() - ends - norms
    assert weights_bytes(LLAMA, ONE, Precision.FP8) == matrices + 2 * (ends + norms)


@pytest.mark.parametrize("tensor", [2, 4, 8])
def test_tensor_parallel_ranks_share_the_matrices(tensor):
    share = weights_bytes(LLAMA, Parallelism(tensor=tensor), Precision.BF16)
    assert share == pytest.approx(2 * LLAMA.parameter_count() / tensor, rel=0.001)


def test_data_parallel_replicas_hold_all_of_it():
    replica = weights_bytes(LLAMA, Parallelism(data=8), Precision.BF16)
    assert replica == weights_bytes(LLAMA, ONE, Precision.BF16)


def test_a_stage_holds_its_layers_and_one_end():
    stage = weights_bytes(LLAMA, Parallelism(pipeline=4), Precision.BF16)
    layer = LLAMA.layers[0].layer.parameter_count(4096)
    assert stage == 2 * (8 * layer + 128256 * 4096 + 4096)


def test_an_uneven_pipeline_counts_its_fullest_stage():
    stage = kv_cache_bytes_per_sequence(LLAMA, Parallelism(pipeline=3), Precision.BF16, 10)
    assert stage == 2 * 11 * 2 * 10 * 8 * 128


def test_the_kv_cache_holds_keys_and_values_of_all_layers():
    cache = kv_cache_bytes_per_sequence(LLAMA, ONE, Precision.BF16, 1000)
    assert cache == 2 * 32 * 2 * 1000 * 8 * 128
    assert kv_cache_bytes_per_sequence(LLAMA, ONE, Precision.FP8, 1000) == cache / 2


def test_kv_heads_are_replicated_beyond_their_number():
    eight, sixteen = (
        kv_cache_bytes_per_sequence(LLAMA, Parallelism(tensor=n), Precision.BF16, 1000)
        for n in (8, 16)
    )
    assert eight == sixteen == 2 * 32 * 2 * 1000 * 128


def test_a_window_bounds_the_cache():
    gemma = preset("gemma-3-1b")
    cache = kv_cache_bytes_per_sequence(gemma, ONE, Precision.BF16, 4096)
    assert cache == 2 * 2 * 1 * 256 * (22 * 512 + 4 * 4096)


def test_logits_are_the_largest_in_decode_and_the_block_in_prefill():
    decode = activations_bytes(LLAMA, ONE, Precision.BF16, 64, 64)
    assert decode == 64 * (4096 * 2 + 128256 * 4)
    prefill = activations_bytes(LLAMA, ONE, Precision.BF16, 8192, 1)
    assert prefill == 8192 * (2 * 4096 + 3 * 14336) * 2


def test_what_does_not_fit_says_so_and_an_unknown_capacity_says_nothing():
    def parts(capacity):
        return MemoryFootprint(
            weights_bytes=60.0,
            kv_cache_bytes=30.0,
            activations_bytes=10.0,
            capacity_bytes=capacity,
        )

    assert parts(100).fits is True
    assert parts(99).fits is False
    assert parts(0).fits is None
    assert parts(0).total_bytes == 100


@given(st.sampled_from(["llama-3.1-8b", "gemma-3-1b", "gpt2"]), st.integers(1, 100_000))
@settings(max_examples=40, deadline=None)
def test_a_longer_sequence_never_needs_less(name, tokens):
    sizes = [
        kv_cache_bytes_per_sequence(preset(name), ONE, Precision.BF16, n)
        for n in (tokens, tokens + 1)
    ]
    assert sizes[0] <= sizes[1]
