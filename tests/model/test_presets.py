"""Every preset against the published checkpoint."""

import json
from collections import Counter
from importlib.resources import files

import pytest

from model.blocks import FeedForward, LinearAttention
from model.errors import UnknownNameError
from model.memory import weights_bytes
from model.precision import Precision
from model.presets import preset, preset_names
from model.workload import Parallelism

EXPECTED = [
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-405b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.3-70b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-3b",
    "qwen2.5-7b",
    "qwen2.5-14b",
    "qwen2.5-32b",
    "qwen2.5-72b",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen3-14b",
    "qwen3-32b",
    "mistral-7b-v0.1",
    "mistral-7b-v0.3",
    "mistral-nemo-12b",
    "mistral-small-24b",
    "mistral-large",
    "phi-1.5",
    "phi-2",
    "phi-3-mini",
    "phi-3-medium",
    "phi-4",
    "phi-4-mini",
    "gemma-2b",
    "gemma-7b",
    "gemma-2-2b",
    "gemma-2-9b",
    "gemma-2-27b",
    "gemma-3-1b",
    "gemma-3-4b",
    "gemma-3-12b",
    "gemma-3-27b",
    "smollm2-135m",
    "smollm2-360m",
    "smollm2-1.7b",
    "smollm3-3b",
    "tinyllama-1.1b",
    "gpt2",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
    "mixtral-8x7b",
    "mixtral-8x22b",
    "qwen1.5-moe-a2.7b",
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "gpt-oss-20b",
    "gpt-oss-120b",
    "minimax-m2",
    "deepseek-v2-lite",
    "deepseek-v2",
    "deepseek-v3",
    "deepseek-r1",
    "kimi-k2",
    "glm-4.5-air",
    "glm-4.5",
    "llama-4-scout",
    "llama-4-maverick",
    "qwen3-next-80b-a3b",
    "qwen3.5-27b",
    "qwen3.5-35b-a3b",
    "qwen3.5-122b-a10b",
    "qwen3.5-397b-a17b",
    "deepseek-v3.2",
    "glm-5",
    "kimi-k2.5",
]


def siglip_and_projector(text_hidden_size: int) -> int:
    """Elements of Gemma 3's vision tower (27 layers, 1,152 wide) and its projector."""
    width, inner = 1152, 4304
    embeddings = width * 3 * 14 * 14 + width + 4096 * width
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 2 * 2 * width
    return embeddings + 27 * layer + 2 * width + width * text_hidden_size + width


def llama4_vision_and_projector():
    """Elements of Llama 4's vision tower (34 layers, 1,408 wide), adapter and projector."""
    width, inner, out = 1408, 5632, 4096
    embeddings = width * 3 * 14 * 14 + width + (24 * 24 + 1) * width
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 2 * 2 * width
    return embeddings + 34 * layer + 2 * 2 * width + inner * out + out * out + out * 5120


def grouped_attention(width, heads, kv_heads, *, qk_norm):
    """Weights, query, key and value biases and norms, with heads of 128."""
    biases = (heads + 2 * kv_heads) * 128
    return 2 * width * (heads + kv_heads) * 128 + biases + 2 * 128 * qk_norm


def experts(width, inner, routed):
    """Routed experts, as many as ``routed``, a shared one, the router and its corrections."""
    return (routed + 1) * 3 * width * inner + routed * width + routed


def token_prediction(width, vocab, layer):
    """A layer that predicts a further token (MTP): projection of both inputs, three norms
    besides the layer's two, and copies of embedding and head."""
    return layer + 2 * width * width + (3 + 2) * width + 2 * vocab * width


def deepseek_v3_besides():
    """The MTP module and the scales: one per 128 x 128 block of every fp8 matrix."""
    projections = [
        (1536, 7168),  # queries down
        (128 * (128 + 64), 1536),  # queries up
        (512 + 64, 7168),  # latent and rotary part
        (128 * (128 + 128), 512),  # keys and values up
        (7168, 128 * 128),  # output
    ]
    attention = sum(rows * columns for rows, columns in projections) + 1536 + 512
    module = token_prediction(7168, 129_280, attention + experts(7168, 2048, 256))
    scales = sum(-(-rows // 128) * -(-columns // 128) for rows, columns in projections)
    dense, routed = 3 * 144 * 56, 257 * 3 * 16 * 56
    return module + (61 + 1) * scales + 3 * dense + (58 + 1) * routed


# Elements of the checkpoint that are no parameters of the decoder, worked out from the
# shapes of the tensors that hold them.
NOT_PARAMETERS = {
    "llama-2-7b": 32 * 64,  # rotary frequencies, a buffer of every layer
    "llama-2-13b": 40 * 64,
    "llama-2-70b": 80 * 64,
    "qwen3-0.6b": 151_936 * 1024,  # the tied head, stored a second time
    "qwen3-1.7b": 151_936 * 2048,
    "gpt2": 12 * 1024 * 1024,  # causal masks, a buffer of every layer
    "gpt2-medium": 24 * 1024 * 1024,
    "gemma-3-4b": siglip_and_projector(2560),
    "gemma-3-12b": siglip_and_projector(3840),
    "gemma-3-27b": siglip_and_projector(5376),
    "deepseek-v3": deepseek_v3_besides(),
    "deepseek-r1": deepseek_v3_besides(),
    "glm-4.5-air": token_prediction(
        4096,
        151_552,
        grouped_attention(4096, 96, 8, qk_norm=False) + experts(4096, 1408, 128),
    ),
    "glm-4.5": token_prediction(
        5120,
        151_552,
        grouped_attention(5120, 96, 8, qk_norm=True) + experts(5120, 1536, 160),
    ),
    "llama-4-scout": llama4_vision_and_projector(),
    "llama-4-maverick": llama4_vision_and_projector(),
}

# Parameters of the published decoder that the architecture leaves out, as they change no
# operation's size.
LEFT_OUT = {
    "qwen1.5-moe-a2.7b": 24 * 2048,  # the shared expert's gate, of one row
    "gpt-oss-20b": 24 * 64,  # attention sinks, one a head
    "gpt-oss-120b": 36 * 64,
    # Norms over all query and over all key heads, and the router's correction biases.
    "minimax-m2": 62 * ((48 + 8 - 2) * 128 + 256),
    "deepseek-v3": 58 * 256,  # the router's correction biases
    "deepseek-r1": 58 * 256,
    "kimi-k2": 60 * 384 + 61 * 56,  # and 56 elements a layer that its config does not tell
    "kimi-k2.5": 60 * 384 + 61 * 56,
    "glm-4.5-air": 45 * 128,
    "glm-4.5": 89 * 160,
    "llama-4-scout": -48 * 2 * 128,  # its norms of queries and keys have no weights
}

# What the published number of active parameters leaves out: rows of vocab_size x
# hidden_size. Architecture.active_parameters() counts embedding and head.
NOT_ACTIVE = {
    "mixtral-8x7b": 0,
    "mixtral-8x22b": 0,
    "qwen1.5-moe-a2.7b": 0,
    "qwen3-30b-a3b": 0,
    "qwen3-235b-a22b": 0,
    "gpt-oss-20b": 201_088 * 2880,  # "Unembedding parameters are counted (...), not embeddings"
    "gpt-oss-120b": 201_088 * 2880,
    "minimax-m2": 2 * 200_064 * 3072,  # not stated
    "deepseek-v2-lite": 102_400 * 2048,  # "including 0.9B for the output Head" in V3
    "deepseek-v2": 102_400 * 5120,
    "deepseek-v3": 129_280 * 7168,
    "deepseek-r1": 129_280 * 7168,
    "kimi-k2": 163_840 * 7168,
    "kimi-k2.5": 163_840 * 7168,
    "deepseek-v3.2": 129_280 * 7168,
    "glm-5": 2 * 154_880 * 6144,  # as for GLM-4.5
    "qwen3-next-80b-a3b": 2 * 151_936 * 2048,  # not stated
    "qwen3.5-35b-a3b": 248_320 * 2048,  # not stated
    "qwen3.5-122b-a10b": 248_320 * 3072,
    "qwen3.5-397b-a17b": 248_320 * 4096,
    "glm-4.5-air": 2 * 151_552 * 4096,  # "not word embeddings and the output layer"
    "glm-4.5": 2 * 151_552 * 5120,
    "llama-4-scout": 0,
    "llama-4-maverick": 0,
}


def document(name):
    path = files("model") / "data" / "presets" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


ROUNDED = {name for name in EXPECTED if document(name).get("published_parameters_rounded")}
"""Models whose elements nobody has counted for us: ``tests/model/test_huggingface.py`` does."""


def test_the_presets_are_those_expected():
    assert preset_names() == tuple(sorted(EXPECTED))


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_are_within_a_hundredth_of_the_published_checkpoint(name):
    published = document(name)
    assert published["source"].startswith("https://")
    assert published["published_parameters_source"].startswith("https://")
    count = published["published_parameters"]
    assert preset(name).parameter_count() == pytest.approx(count, rel=0.01)
    if name in ROUNDED:
        return
    stored = published.get("checkpoint_elements", count)
    assert stored - count == NOT_PARAMETERS.get(name, 0)


def test_deepseek_v3_2_comes_to_its_checkpoint_with_indexers_and_all_else():
    indexer = 1536 * 64 * 128 + 7168 * 128 + 7168 * 64 + 2 * 128
    elements = preset("deepseek-v3.2").parameter_count() + deepseek_v3_besides() + indexer
    assert round(elements / 1e9) * 10**9 == document("deepseek-v3.2")["checkpoint_elements"]
    of_v3 = preset("deepseek-v3").parameter_count()
    assert preset("deepseek-v3.2").parameter_count() - of_v3 == 61 * indexer


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - ROUNDED))
def test_what_an_architecture_leaves_out_of_the_checkpoint_is_known(name):
    count = document(name)["published_parameters"]
    assert count - preset(name).parameter_count() == LEFT_OUT.get(name, 0)


def test_models_with_experts_tell_their_active_parameters():
    assert {name for name in EXPECTED if preset(name).experts} == set(NOT_ACTIVE)


@pytest.mark.parametrize("name", sorted(NOT_ACTIVE))
def test_active_parameters_are_within_a_tenth_of_the_published_number(name):
    published = document(name)
    assert published["published_active_parameters_source"].startswith("https://")
    assert published["active_parameters_convention"]
    active = preset(name).active_parameters() - NOT_ACTIVE[name]
    assert active == pytest.approx(published["published_active_parameters"], rel=0.1)


def test_a_preset_carries_its_name_and_source():
    architecture = preset("llama-3.1-8b")
    assert architecture.name == "llama-3.1-8b"
    assert architecture.source == document("llama-3.1-8b")["source"]
    assert architecture.model_type == "llama"


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("mistral-7b-v0.1", {4096: 32}),
        ("mistral-7b-v0.3", {None: 32}),
        ("gemma-2-9b", {4096: 21, None: 21}),
        ("gemma-3-27b", {1024: 52, None: 10}),
        ("qwen2.5-7b", {None: 28}),
        ("mixtral-8x7b", {None: 32}),
        ("qwen3-235b-a22b", {None: 94}),
        ("gpt-oss-120b", {128: 18, None: 18}),
        ("llama-4-scout", {8192: 36, None: 12}),
        ("llama-4-maverick", {8192: 36, None: 12}),
        ("deepseek-v3", {None: 61}),
        ("qwen3.5-397b-a17b", {None: 60}),
    ],
)
def test_layers_have_the_windows_of_the_published_model(name, windows):
    counts = Counter()
    for group in preset(name).layers:
        counts[group.layer.attention.window] += group.count
    assert counts == windows


@pytest.mark.parametrize(
    ("name", "dense", "routed", "top_k", "shared_width"),
    [
        ("mixtral-8x7b", 0, 8, 2, None),
        ("qwen1.5-moe-a2.7b", 0, 60, 4, 5632),
        ("deepseek-v2-lite", 1, 64, 6, 2 * 1408),
        ("deepseek-r1", 3, 256, 8, 2048),
        ("kimi-k2", 1, 384, 8, 2048),
        ("glm-4.5", 3, 160, 8, 1536),
        ("llama-4-scout", 0, 16, 1, 8192),
        ("llama-4-maverick", 24, 128, 1, 8192),
    ],
)
def test_layers_have_the_experts_of_the_published_model(name, dense, routed, top_k, shared_width):
    architecture = preset(name)
    blocks = [(g.layer.feed_forward, g.count) for g in architecture.layers]
    assert sum(count for block, count in blocks if isinstance(block, FeedForward)) == dense
    mixture = architecture.experts
    assert (mixture.count, mixture.top_k) == (routed, top_k)
    assert (mixture.shared and mixture.shared.intermediate_size) == shared_width


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("deepseek-v3", Precision.FP8_BLOCK),
        ("deepseek-r1", Precision.FP8_BLOCK),
        ("kimi-k2", Precision.FP8_BLOCK),
        ("minimax-m2", Precision.FP8_BLOCK),
        ("gpt-oss-20b", Precision.BF16),
        ("glm-4.5", Precision.BF16),
        ("deepseek-v3.2", Precision.FP8_BLOCK),
    ],
)
def test_a_preset_tells_the_format_of_its_checkpoint(name, precision):
    assert preset(name).stored_precision is precision


# Sizes of the published checkpoints: arXiv 2508.10925, table 1 (60.8 GiB, 12.8 GiB), and the
# card of Kimi-K2-Thinking (594 GB), whose text decoder and format Kimi K2.5 has.
@pytest.mark.parametrize(
    ("name", "precision", "size"),
    [
        ("gpt-oss-120b", Precision.FP4, 60.8 * 2**30),
        ("gpt-oss-20b", Precision.FP4, 12.8 * 2**30),
        ("kimi-k2.5", Precision.INT4, 594e9),
    ],
)
def test_experts_in_a_format_of_their_own_come_to_the_size_of_the_checkpoint(name, precision, size):
    architecture = preset(name)
    experts = architecture.stored_experts
    assert (architecture.stored_precision, experts.precision) == (Precision.BF16, precision)
    weights = weights_bytes(architecture, Parallelism(), Precision.BF16, experts)
    assert weights == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("name", "linear", "full"),
    [("qwen3-next-80b-a3b", 36, 12), ("qwen3.5-397b-a17b", 45, 15), ("qwen3.5-27b", 48, 16)],
)
def test_every_fourth_layer_of_a_hybrid_attends_to_everything(name, linear, full):
    counts = Counter()
    for group in preset(name).layers:
        counts[isinstance(group.layer.attention, LinearAttention)] += group.count
    assert counts == {True: linear, False: full}


def test_kimi_k2_runs_on_the_modules_of_deepseek_v3():
    assert document("kimi-k2")["config"]["model_type"] == "kimi_k2"
    assert preset("kimi-k2").model_type == "deepseek_v3"


@pytest.mark.parametrize(
    ("name", "closest"),
    [("Llama-3.1-8B", "llama-3.1-8b"), ("lama-3.1-8b", "llama-3.1-8b"), ("qwen3-30b", "qwen3-32b")],
)
def test_an_unknown_name_is_answered_with_the_closest(name, closest):
    with pytest.raises(UnknownNameError) as caught:
        preset(name)
    assert (caught.value.kind, caught.value.name) == ("preset", name)
    assert closest in caught.value.message


def test_a_name_is_no_path_and_a_long_one_is_cut():
    with pytest.raises(UnknownNameError):
        preset("../devices")
    with pytest.raises(UnknownNameError) as caught:
        preset("x" * 100_000)
    assert len(caught.value.message) < 2_000
