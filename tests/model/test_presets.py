"""Every preset against the published checkpoint."""

import json
from importlib.resources import files

import pytest

from model.errors import UnknownNameError
from model.presets import preset, preset_names

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
]


def siglip_and_projector(text_hidden_size: int) -> int:
    """Elements of Gemma 3's vision tower (27 layers, 1,152 wide) and its projector."""
    width, inner = 1152, 4304
    embeddings = width * 3 * 14 * 14 + width + 4096 * width
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 2 * 2 * width
    return embeddings + 27 * layer + 2 * width + width * text_hidden_size + width


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
}


def document(name):
    path = files("model") / "data" / "presets" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_presets_are_those_expected():
    assert preset_names() == tuple(sorted(EXPECTED))


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_are_within_a_hundredth_of_the_published_checkpoint(name):
    published = document(name)
    assert published["source"].startswith("https://")
    assert published["published_parameters_source"].startswith("https://")
    count = published["published_parameters"]
    assert preset(name).parameter_count() == pytest.approx(count, rel=0.01)
    stored = published.get("checkpoint_elements", count)
    assert stored - count == NOT_PARAMETERS.get(name, 0)


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
    ],
)
def test_layers_have_the_windows_of_the_published_model(name, windows):
    groups = preset(name).layers
    assert {group.layer.attention.window: group.count for group in groups} == windows


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
